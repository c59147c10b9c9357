"""One table in the shapes in which people read it: rows and totals are the same in all of them."""

import csv
import io
import json

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

import lighten
from lighten.network.table import CostTable, by, flat, size


class Net(nn.Module):
    """A layer called twice, two of one weight, a product of its own, a layer that nobody calls, and a fixed one."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x)).mean(1)
        return F.relu(x @ x.transpose(1, 2)) + self.second(self.first(x))


@pytest.fixture(scope="module")
def table() -> CostTable:
    return lighten.count(Net(), torch.zeros(2, 3, 8, 8), title="<net>")


def test_records(table):
    twice, first, second, product = table.records()
    assert [row["name"] for row in table.records()] == ["twice", "first", "second", ""]
    assert (twice["kind"], twice["calls"], twice["params"], twice["macs"]) == ("conv2d", 2, 84, 2 * 81 * 64)
    assert (twice["input_shape"], twice["output_shape"], twice["activations"]) == ([3, 8, 8], [3, 8, 8], 2 * 192)
    assert (first["shared_with"], first["params"]) == (["second"], 64)
    assert (second["shared_with"], second["params"]) == (["first"], 8)
    assert (product["kind"], product["macs"], product["activation_bytes"]) == ("matmul", 512, 256)
    assert twice["intensity"] == round(2 * twice["macs"] / (4 * 384 * 2 + 4 * 84), 4)
    assert [row.title for row in table.rows] == ["conv2d-1", "linear-2", "linear-3", "matmul-4"]


def test_totals(table):
    total = table.total
    assert (total.params, total.trainable_params, table.outside.params) == (84 + 72 + 30, 84 + 72, 30)
    assert total.macs == table.amount == 2 * 81 * 64 + 2 * 512 + 512
    assert total.activations == 2 * 192 + 64 * 3 and total.activation_bytes == 4 * total.activations
    assert total.weight_bytes == 4 * total.params
    assert table.training_bytes == 2 * 4 * (2 * 192 + 64 * 2)


def test_rows_and_what_is_outside_make_the_total(table):
    total = table.outside
    for row in table.rows:
        total += row.cost
    assert total == table.total


def test_json_is_everything(table):
    found = json.loads(table.to_json())
    assert found == json.loads(json.dumps(table.as_dict()))
    assert (found["model"], found["input"], found["convention"]) == ("<net>", [3, 8, 8], "macs")
    assert found["total"]["params"] == table.total.params and found["total"]["macs"] == table.amount
    assert found["total"]["peak_bytes"] == table.peak_bytes and found["rows"] == table.records()
    assert found["outside"]["params"] == 30 and found["uncounted"] == [] and found["notes"] == []


def test_csv_reads_back(table):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [int(row["params"]) for row in rows] == [84, 64, 8, 0]
    assert rows[0]["output_shape"] == "3x8x8" and rows[1]["shared_with"] == "second"
    assert list(rows[0]) == list(table.records()[0])


def test_a_table_without_rows():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.ReLU()])

        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    table = lighten.count(Nothing(), torch.zeros(1, 3))
    assert table.rows == () and table.to_csv() == "name\n"
    assert "parameters" in table.to_text() and table.total.intensity == 0


def test_markdown(table):
    lines = table.to_markdown().splitlines()
    assert lines[0] == "| layer | kind | output | parameters | MACs | calls |"
    assert lines[1] == "| --- | --- | --- | ---: | ---: | ---: |"
    assert lines[2] == "| twice | conv2d-1 | 3×8×8 | 84 | 10,368 | 2 |"
    assert lines[5] == "| (whole) | matmul-4 | 8×8 | 0 | 512 | 1 |"
    assert lines[6] == "| (outside any layer called) |  |  | 30 |  |  |"
    assert "- parameters: 186 (156 trainable, 30 not)" in lines and "- MACs: 11,904" in lines
    assert all(line.count("|") == 7 for line in lines[:7])


def test_text_and_the_terminal_show_the_same(table):
    text = table.to_text()
    assert text == str(table) and "conv2d-1" in text and "10,368" in text and "input: 3×8×8" in text
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(table)
    assert out.getvalue() == text
    assert max(map(len, table.to_text(60).splitlines())) <= 60


def test_html_is_escaped(table):
    html = lighten.count(Net(), torch.zeros(1, 3, 8, 8))._repr_html_()
    assert html.count("<tr>") == 1 + 4 + 1 and html.count("<th>") == 6
    assert "<td>10,368</td>" in html and "<li>MACs: 11,904</li>" in html
    odd = nn.Sequential()
    odd.add_module("<b>", nn.Linear(2, 2))
    assert "<b>" not in lighten.count(odd, torch.zeros(1, 2))._repr_html_()


def test_sizes_are_in_both_units(table):
    assert size(2**20) == "1.05 MB (1.00 MiB)" and size(1_500_000_000) == "1,500.00 MB (1,430.51 MiB)"
    totals = dict(table.totals())
    assert totals["weights"] == size(4 * 186)
    assert totals["forward and backward, estimated"] == size(2 * 4 * table.total.activations)
    assert totals["forward and backward of layers with weights only"] == size(table.training_bytes)
    assert totals["arithmetic intensity"].endswith(" operations per byte")


def test_zeros_get_a_line_of_their_own():
    layer = nn.Linear(4, 4)
    assert "effective" not in dict(lighten.count(nn.Linear(4, 4), torch.zeros(1, 4)).totals())
    with torch.no_grad():
        layer.weight[:2] = 0
    totals = dict(lighten.count(layer, torch.zeros(1, 4)).totals())
    expected = "12 parameters and 8 MACs aren't zero; a runtime without sparse kernels computes all the same"
    assert totals["effective"] == expected and totals["MACs"] == "16"


def test_what_was_not_counted_and_what_to_know_stand_under_the_rows():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = nn.Bilinear(3, 3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.pair(x, x) if x.sum() > 0 else x

    table = lighten.count(Odd(), torch.ones(1, 3))
    found = table.as_dict()
    assert found["uncounted"] == [{"operator": "_trilinear", "calls": 1}]
    assert ("not counted", f"_trilinear, 1 of {found['num_operators']} calls") in table.totals()
    assert table.totals()[-1][0] == "note" and "its own values" in table.totals()[-1][1]


def test_other_conventions_are_named():
    table = lighten.count(nn.Linear(4, 4), torch.zeros(1, 4), convention="flops")
    assert dict(table.totals())["FLOPs"] == "32, as flops counts"
    assert "| layer | kind | output | parameters | FLOPs | calls |" in table.to_markdown()
    assert table.as_dict()["total"]["macs"] == table.records()[0]["macs"] == 32 and table.total.macs == 16


def test_several_inputs_are_shown_as_they_are():
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b

    table = lighten.count(Two(), (torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)))
    assert table.as_dict()["input"] == [[2, 3, 4], [2, 4, 5]] and table.amount == 2 * 3 * 4 * 5
    assert dict(table.totals())["input"] == "2×3×4 and 2×4×5"


def test_shapes_as_text():
    assert (by((64, 8, 8)), by(()), flat([64, 8]), flat("x")) == ("64×8×8", "", "64x8", "x")
