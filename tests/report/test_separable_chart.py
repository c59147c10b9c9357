"""The chart of dense ÷ separable: lines by formula, what was measured, and files."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from lighten.advise import separable_ratio
from lighten.errors import LightenError
from lighten.measure.latency_table import LatencyTable
from lighten.network.trace import trace
from lighten.report import separable_chart as charts
from lighten.report.separable_chart import INPUTS, WINDOWS, Point, dense_and_separable, measure_points, write_chart

POINT = Point(64, 28, 3, 32, 4.0, 1.0)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """Each dense layer takes 3 ms, each separable one 1 ms; what it was asked for is kept."""
    found = LatencyTable(tmp_path / "t.json")
    asked = []

    def measure(layers):
        asked.append(layers)
        return [3.0, 1.0] * (len(layers) // 2)

    monkeypatch.setattr(found, "measure", measure)
    found.asked = asked
    return found


def lines(figure) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data if trace.name and trace.name.startswith("k = ")}


def test_a_line_for_each_window_by_formula():
    drawn = lines(charts.separable_chart([]))
    assert list(drawn) == [f"k = {k}" for k in range(2, 8)]
    for k, line in zip(WINDOWS, drawn.values(), strict=True):
        assert line.x[0] == 1 and line.x[-1] == 512 and len(set(line.x)) == len(line.x)
        assert list(line.y) == [n * k**2 / (k**2 + n) for n in line.x]
    assert len({line.line.color for line in drawn.values()}) == 6


def test_limits_and_thresholds_are_marked():
    figure = charts.separable_chart([])
    rings = [(trace.x[0], trace.y[0]) for trace in figure.data if trace.mode == "markers"]
    assert rings == [(k**2 / (k**2 - 1), 1) for k in range(2, 8)]
    limits = {trace.text[1]: set(trace.y) for trace in figure.data if trace.line.dash == "dot"}
    assert limits == {f"k² = {k**2}": {k**2} for k in range(2, 8)}
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


def test_points_have_the_colour_of_their_line_and_the_shape_of_their_input():
    other = replace(POINT, num_inputs=3, size=56, window=7, separable_ms=2.0)
    figure = charts.separable_chart([POINT, other])
    first, second = (trace for trace in figure.data if trace.customdata is not None)
    assert (list(first.x), list(first.y), list(second.y)) == ([32], [4.0], [2.0])
    drawn = lines(figure)
    assert first.marker.color == drawn["k = 3"].line.color and second.marker.color == drawn["k = 7"].line.color
    assert first.marker.symbol != second.marker.symbol
    assert [t.name for t in figure.data if t.name and t.name.startswith("measured")] == [
        "measured, 64 channels on 28×28",
        "measured, 3 channels on 56×56",
    ]


def test_points_lost_in_the_noise_are_left_out_and_counted(tmp_path):
    lost = replace(POINT, separable_ms=1e-4)
    assert lost.is_lost and not POINT.is_lost
    figure = charts.separable_chart([POINT, lost])
    assert [list(trace.y) for trace in figure.data if trace.customdata is not None] == [[4.0]]
    write_chart([POINT, lost], "here", tmp_path / "c.html")
    assert "1 of 2 points are lost in the noise" in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(("num_inputs", "num_outputs", "window"), [(64, 32, 3), (3, 48, 7), (64, 1, 5), (3, 2, 3)])
def test_the_layers_that_are_timed_have_the_macs_of_the_formula(num_inputs, num_outputs, window):
    example = torch.empty(1, num_inputs, 28, 28, device="meta")
    dense, separable = (
        trace(layer, example).cost.macs for layer in dense_and_separable(num_inputs, num_outputs, window)
    )
    assert dense == 28 * 28 * num_inputs * num_outputs * window**2
    assert dense / separable == pytest.approx(separable_ratio(num_outputs, window**2))


def test_every_input_window_and_number_of_outputs_is_measured(clock):
    told = []
    points = measure_points(clock, (3, 5), (8, 2), on_progress=lambda done, total: told.append((done, total)))
    found = {(p.num_inputs, p.size, p.window, p.num_outputs) for p in points}
    assert found == {(*place, k, n) for place in INPUTS for k in (3, 5) for n in (8, 2)} and len(points) == 8
    assert {point.ratio for point in points} == {3.0} and told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert measure_points(clock, (3,), (512,)) == [] and len(measure_points(clock, (3,), (256,))) == 1
    dense, separable = clock.asked[0][:2]
    assert dense[1] == separable[1] == (64, 28, 28) and len(list(separable[0].children())) == 2


def test_no_time_still_gives_the_first_points(clock):
    assert [(p.num_outputs, p.window) for p in measure_points(clock, (3, 5), seconds=0)] == [(64, 3), (64, 5)]


def test_points_are_measured_for_real(tmp_path):
    clock = LatencyTable(tmp_path / "t.json")
    clock.seconds = 0.0
    (point,) = measure_points(clock, (3,), (8,), seconds=0)
    assert point.dense_ms > 0 and point.separable_ms > 0


def test_html_opens_anywhere(tmp_path):
    write_chart([POINT], "a machine", tmp_path / "deep" / "c.html")
    text = (tmp_path / "deep" / "c.html").read_text()
    assert "Measured: a machine<" in text and "k = 7" in text and "<script src" not in text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["c.html"]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(LightenError, match=r"its name must end in \.html, \.svg, \.png"):
        write_chart([POINT], "", tmp_path / "c.pdf")


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_images_need_kaleido(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LightenError, match=rf"\{ending} needs the package kaleido; \.html needs nothing"):
        write_chart([POINT], "", tmp_path / f"c{ending}")
    assert not list(tmp_path.iterdir())


def test_images_are_written_and_their_failure_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(charts.go.Figure, "to_image", lambda self, kind, **size: kind.encode())
    write_chart([POINT], "", tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_bytes() == b"svg"

    def fail(self, kind, **size):
        raise RuntimeError("no browser\nlong story")

    monkeypatch.setattr(charts.go.Figure, "to_image", fail)
    with pytest.raises(LightenError, match=r"c\.png': no browser$"):
        write_chart([POINT], "", tmp_path / "c.png")
