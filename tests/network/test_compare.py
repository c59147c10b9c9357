"""Rows find their partners by plan, name and place; whatever happens, they add up to the totals."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lighten.errors import LightenError
from lighten.layers.branches import RepVggConv
from lighten.layers.fold import fold
from lighten.models import build_model, input_shape
from lighten.network.compare import (
    QUANTITIES,
    SURE,
    Comparison,
    below_each,
    by_name,
    by_place,
    by_prefix,
    change_text,
    compare,
    likeness,
    ratios,
)
from lighten.network.cost import Cost
from lighten.network.count import count
from lighten.network.table import Row
from lighten.opening import open_model
from lighten.plan.apply import apply_plan
from lighten.plan.plan import Choice, Plan, load_plan

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[2] / "zoo").glob("*/plan.json"))


def built(text: str):
    return count(build_model(text), torch.zeros(1, *input_shape(text)), title=text)


def on_images(*layers: nn.Module, **options):
    return count(nn.Sequential(*layers), torch.zeros(1, 3, 8, 8), **options)


def changes(found: Comparison) -> list[tuple[list[str], list[str], str]]:
    return [([r.name for r in pair.before], [r.name for r in pair.after], pair.change) for pair in found.pairs]


def sums_hold(found: Comparison) -> bool:
    """Whether every row of both tables stands in one pair, and the pairs add up to the totals."""
    for side, table, total in zip(("before", "after"), (found.before, found.after), found.totals, strict=True):
        rows = [row for pair in found.pairs for row in getattr(pair, side)]
        own = [row for row in rows if row.index <= len(table.rows)]
        if len(own) != len(table.rows) or set(own) != set(table.rows):
            return False
        sides = [pair[side] for pair in found.as_dict()["rows"] if pair[side]]
        if any(sum(row[key] for row in sides) != total[key] for key in QUANTITIES if key in sides[0]):
            return False
    return True


def test_a_network_against_itself():
    table = built("resnet20")
    found = compare(table, table)
    assert {change for *_, change in changes(found)} == {"same"} and sums_hold(found)
    assert all(pair.before == pair.after for pair in found.pairs)
    assert found.ratio == dict.fromkeys(found.totals[0], 1.0)


def test_totals_of_the_crnn_as_published():
    found = compare(built("crnn"), built("crnn_separable"))
    assert sums_hold(found)
    assert found.totals[0]["params"] == 8_331_301 and found.totals[0]["macs"] == 2_216_913_408
    assert round(found.ratio["params"], 2) == 2.34 and round(found.ratio["macs"], 1) == 4.8
    assert found.ratio["activations"] < 1


def test_where_numbers_have_shifted_rows_are_aligned_by_place():
    found = compare(built("crnn"), built("crnn_separable"))
    names = {pair.before[0].name: pair.after[0].name for pair in found.pairs if pair.before and pair.after}
    poolings = {"features.2": "features.3", "features.5": "features.7", "features.11": "features.15"}
    assert poolings.items() <= names.items() and names["features.20"] == "features.27"
    assert names["features.3"] == "features.5"  # the pointwise one, which has the same shapes
    assert (["head.0.rnn"], ["head.0.rnn"], "same") in changes(found)
    assert [change for *_, change in changes(found)].count("added") == 7
    assert "removed" not in {change for *_, change in changes(found)}


def test_another_width_and_other_names_align_layer_by_layer():
    other = {"weights": None, "width_mult": 0.5}
    torchvision = pytest.importorskip("torchvision").models.mobilenet_v2(**other)
    found = compare(built("mobilenet_v2"), count(torchvision, torch.zeros(1, 3, 224, 224)))
    kinds = [(pair.before[0].kind, pair.after[0].kind) for pair in found.pairs if pair.before and pair.after]
    assert all(first == second for first, second in kinds) and kinds.count(("conv2d", "conv2d")) == 52
    assert not any(pair.change in ("removed", "added") for pair in found.pairs if "conv2d" in pair.kinds)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_lightened_folder_against_its_original(folder):
    plan, after = load_plan(folder / "plan.json"), open_model(str(folder))
    tables = built(plan.model), count(after.model, after.example(None))
    found, unplanned = compare(*tables, plan), compare(*tables)
    assert sums_hold(found) and sums_hold(unplanned)
    rewrites = {choice.site: choice.rewrite for choice in plan.choices}
    assert {pair.name: pair.change for pair in found.pairs if pair.rewrite} == rewrites
    assert all(pair.change == "same" for pair in found.pairs if not pair.rewrite)
    assert [pair.name for pair in found.pairs] == [row.name for row in tables[0].rows]
    assert [(p.before, p.after) for p in found.pairs] == [(p.before, p.after) for p in unplanned.pairs]
    assert {pair.change for pair in unplanned.pairs} == {"same", "replaced"}


def test_a_replaced_layer_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
    plan = Plan(None, (3, 8, 8), (Choice("0", "depthwise", {"rank": 1, "form": "plain"}),))
    example = torch.zeros(1, 3, 8, 8)
    found = compare(count(model, example), count(apply_plan(model, plan), example), plan)
    assert changes(found) == [(["0"], ["0.0", "0.1"], "depthwise"), (["1"], ["1"], "same")]
    row = found.as_dict()["rows"][0]
    assert row["before"] == {
        "layers": ["0"], "kinds": ["conv2d"], "output_shape": [16, 8, 8], "params": 448, "macs": 64 * 27 * 16,
        "activations": 1024, "activation_bytes": 4096, "weight_bytes": 4 * 448,
    }  # fmt: skip
    assert row["after"]["params"] == 27 + 48 + 16 and row["after"]["macs"] == 64 * (27 + 48)
    assert row["after"]["activations"] == 64 * (3 + 16) and row["ratio"]["macs"] == 27 * 16 / 75
    assert "depthwise: 2 layers" in found.to_text() and "27,648 → 4,800 (5.76×)" in found.to_text()


def test_branches_merged_into_one_layer():
    model = nn.Sequential(RepVggConv(8, 8)).eval()
    example = torch.zeros(1, 8, 6, 6)
    found = compare(count(model, example), count(fold(model), example))
    merged = next(pair for pair in found.pairs if pair.rewrite)
    assert merged.change == "merged" and [row.name for row in merged.after] == ["0.branches"]
    assert len(merged.before) == 5 and "merged: 5 layers" in found.to_markdown() and sums_hold(found)


def test_a_layer_of_another_kind_keeps_its_place():
    found = compare(
        on_images(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)),
        on_images(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Conv2d(4, 8, 3)),
    )
    assert [pair.kinds for pair in found.pairs] == ["conv2d", "relu → hardswish", "conv2d"]
    assert [pair.change for pair in found.pairs] == ["changed"] * 3


def test_removed_and_added_layers_stand_where_they_were():
    before = on_images(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    after = on_images(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
    found = compare(before, after)
    assert changes(found) == [
        (["0"], ["0"], "same"), (["1"], [], "removed"), (["2"], ["1"], "same"), (["3"], ["2"], "same"),
        ([], ["3"], "added"), (["4"], [], "removed"),
    ]  # fmt: skip
    rows = found.as_dict()["rows"]
    assert rows[1]["after"] is None and rows[1]["ratio"]["params"] is None and rows[4]["before"] is None
    assert "now 1" in found.to_text()


def test_blocks_that_only_one_network_has():
    found = compare(built("resnet20"), built("resnet56"))
    assert sums_hold(found) and {change for *_, change in changes(found)} == {"same", "added"}
    names = [pair.name for pair in found.pairs]
    assert names.index("layer1.2.conv2") < names.index("layer1.3.conv1") < names.index("layer2.0.conv1")


class Loose(nn.Module):
    """A parameter of no layer."""

    def __init__(self, width: int):
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.ones(width)), nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.expand(-1, len(self.scale)) * self.scale)


def test_parameters_of_no_layer_are_a_row():
    found = compare(*(count(Loose(width), torch.zeros(1, 1)) for width in (6, 3)))
    last = found.as_dict()["rows"][-1]
    assert last["name"] == "(outside any layer called)" and sums_hold(found)
    assert (last["before"]["params"], last["after"]["params"], last["ratio"]["params"]) == (6, 3, 2)


def test_latency_where_measured():
    table = on_images(nn.Conv2d(3, 8, 3))
    found = compare(table, table, latency_ms=(3.0, 1.5))
    assert found.as_dict()["after"]["latency_ms"] == 1.5 and found.ratio["latency_ms"] == 2
    assert "latency in ms: 3.000 → 1.500 (2.00×)" in found.to_text()
    assert "latency_ms" not in compare(table, table).as_dict()["before"]


def test_latency_of_layers_where_measured():
    """The layers that replaced one add up; what has no time takes none."""
    before, after = (
        on_images(nn.Conv2d(3, 8, 3), nn.ReLU()),
        on_images(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1)), nn.ReLU()),
    )
    found = compare(before, after, latency_ms=(3.0, 1.0), layers_ms=({"0": 2.0}, {"0.0": 0.25, "0.1": 0.25, "1": 0.5}))
    rows = found.as_dict()["rows"]
    assert [row["ratio"]["latency_ms"] for row in rows] == [4, None]
    assert rows[1]["before"]["latency_ms"] == 0 and rows[1]["after"]["latency_ms"] == 0.5
    assert "2.000 → 0.500 (4.00×)" in found.to_text(160) and "| ms |" in found.to_markdown()


def test_what_was_not_counted_is_said():
    class Rolled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten._trilinear(x, x, x, [0], [0], [0], [1])

    found = compare(on_images(nn.ReLU()), on_images(nn.ReLU(), Rolled()))
    assert found.as_dict()["after"]["uncounted"] == [{"operator": "_trilinear", "calls": 1}]
    assert "not counted after: _trilinear, 1 calls" in found.to_text()


def test_markdown_and_text():
    found = compare(
        on_images(nn.Conv2d(3, 8, 3), title="old", convention="flops"),
        on_images(nn.Conv2d(3, 4, 3), title="new", convention="flops"),
    )
    lines = found.to_markdown().splitlines()
    assert lines[0] == "| layer | kind | change | parameters | FLOPs | activations |"
    assert lines[2] == "| 0 | conv2d | changed | 224 → 112 (2.00×) | 15,552 → 7,776 (2.00×) | 288 → 144 (2.00×) |"
    assert "- FLOPs: 15,552 → 7,776 (2.00×)" in lines and "old → new" in str(found)
    assert found.ratio["macs"] == 2 and found.as_dict()["convention"] == "flops"


def test_tables_that_cannot_be_compared():
    flops, macs = on_images(nn.ReLU(), title="a", convention="flops"), on_images(nn.ReLU(), title="b")
    with pytest.raises(LightenError, match="^cannot compare 'a', counted as flops, with 'b', counted as macs: count"):
        compare(flops, macs)
    plan = Plan(None, (3, 8, 8), (Choice("7", "depthwise", {"rank": 1}),))
    with pytest.raises(LightenError, match="^the plan is for another network: 'b' doesn't call '7'$"):
        compare(macs, macs, plan)


def row(index: int, name: str, kind: str, inputs: tuple[int, ...] = (), outputs: tuple[int, ...] = ()) -> Row:
    return Row(index, name, kind, inputs, outputs, 1, (), Cost(), 0)


def test_likeness():
    first = row(1, "a", "conv2d", (3, 8, 8), (16, 4, 4))
    assert likeness(first, row(7, "b", "conv2d", (3, 8, 8), (16, 4, 4))) == SURE
    assert likeness(first, row(7, "b", "conv2d", (9, 8, 8), (16, 4, 4))) == 3
    assert likeness(first, row(7, "b", "conv2d", (9, 8, 8), (32, 4, 4))) == 2
    assert likeness(first, row(7, "b", "conv2d", (9, 8, 8), (32, 2, 2))) == 1
    assert likeness(first, row(7, "a", "linear", (3, 8, 8), (16, 4, 4))) == 0


SHAPES = st.lists(st.sampled_from([("a", (1, 2)), ("a", (2, 2)), ("a", (2, 3)), ("b", (1, 2))]), max_size=5)


@given(SHAPES, SHAPES, st.integers(1, SURE))
def test_the_alignment_is_the_best_there_is(first, second, least):
    before, after = ([row(i, "", kind, (), shape) for i, (kind, shape) in enumerate(s)] for s in (first, second))
    pairs = [(pair.before[0], pair.after[0]) for pair in by_place(before, after, least)]
    assert all(likeness(one, other) >= least for one, other in pairs)
    for side in zip(*pairs, strict=True):
        assert [r.index for r in side] == sorted({r.index for r in side})
    others = [
        [likeness(one, other) for one, other in zip(some, more, strict=True)]
        for size in range(min(len(before), len(after)) + 1)
        for some in combinations(before, size)
        for more in combinations(after, size)
    ]
    best = max(sum(alike) for alike in others if all(value >= least for value in alike))
    assert sum(likeness(one, other) for one, other in pairs) == best


def test_names_that_mean_something_else_are_not_followed():
    before = [row(1, "0", "conv2d"), row(2, "1", "relu"), row(3, "2", "conv2d")]
    shifted = [row(1, "0", "batchnorm2d"), row(2, "1", "conv2d"), row(3, "2", "relu"), row(4, "3", "conv2d")]
    assert list(by_name(before, shifted)) == []
    changed = [row(1, "0", "conv2d"), row(2, "1", "hardswish"), row(3, "2", "conv2d")]
    assert [(p.before[0].name, p.after[0].name) for p in by_name(before, changed)] == [
        ("0", "0"),
        ("2", "2"),
        ("1", "1"),
    ]


def test_a_row_belongs_to_the_longest_name_above_it():
    tops = [row(1, "a", "matmul"), row(2, "a.b", "conv2d"), row(3, "", "relu")]
    below = [row(1, "a.c", "conv2d"), row(2, "a.b.0", "conv2d"), row(3, "a.b.1", "conv2d"), row(4, "ab", "relu")]
    assert list(below_each(tops, below)) == [(tops[0], (below[0],)), (tops[1], (below[1], below[2]))]


def test_no_row_is_both_replaced_and_merged():
    before = [row(1, "a", "matmul"), row(2, "a.b.0", "conv2d"), row(3, "c.0", "conv2d"), row(4, "c.1", "relu")]
    after = [row(1, "a.b", "linear"), row(2, "c", "conv2d")]
    assert [(p.before, p.after, p.rewrite) for p in by_prefix(before, after)] == [
        ((before[0],), (after[0],), "replaced"), ((before[2], before[3]), (after[1],), "merged"),
    ]  # fmt: skip


def test_a_renamed_network_is_the_same():
    layers = nn.Conv2d(3, 8, 3), nn.ReLU()
    found = compare(on_images(*layers), on_images(nn.Identity(), *layers))
    assert changes(found) == [([], ["0"], "added"), (["0"], ["1"], "same"), (["1"], ["2"], "same")]
    assert "now 1" in found.to_text() and found.ratio["params"] == 1


def test_ratios_and_their_words():
    assert ratios({"a": 4, "b": 0, "c": 3}, {"a": 8, "b": 2, "c": 0}) == {"a": 0.5, "b": None, "c": None}
    assert change_text(4000, 4000) == "4,000" and change_text(4000, 1000) == "4,000 → 1,000 (4.00×)"
    assert change_text(0, 1000) == "0 → 1,000" and change_text(1.5, 0.5) == "1.500 → 0.500 (3.00×)"


LAYERS = {
    "conv": lambda: nn.Conv2d(3, 3, 3, padding=1),
    "relu": nn.ReLU,
    "norm": lambda: nn.BatchNorm2d(3),
    "block": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()),
}
NETWORKS = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=7)


@given(NETWORKS, NETWORKS)
def test_every_row_stands_in_one_pair(first, second):
    before, after = (on_images(*(LAYERS[name]() for name in names)) for names in (first, second))
    assert sums_hold(compare(before, after))
    same = compare(before, before)
    assert all(pair.before == pair.after for pair in same.pairs)
