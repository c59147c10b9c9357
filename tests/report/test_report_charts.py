"""Charts hold the document's numbers, and none is drawn without data."""

from dataclasses import replace

import pytest

from lighten.report import charts
from lighten.report.results import Choice, Divergence, Totals


def test_layer_costs_has_every_site_once_before_and_once_after(make_results):
    results = make_results(57)
    figure = charts.layer_costs(results)
    before, *after = figure.data
    assert list(before.x) == [choice.macs_before for choice in results.choices]
    assert sorted(row for trace in after for row in trace.y) == list(range(57))
    values = {row: value for trace in after for row, value in zip(trace.y, trace.x, strict=True)}
    assert [values[row] for row in range(57)] == [choice.macs for choice in results.choices]
    assert list(figure.layout.yaxis.ticktext) == [choice.site for choice in results.choices]
    assert figure.layout.height > 57 * 18


def test_buttons_switch_to_milliseconds(make_results):
    results = make_results(8)
    figure = charts.layer_costs(results)
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["MACs", "Milliseconds"]
    state = buttons[1].args[0]
    assert [button.args[1]["xaxis.tickformat"] for button in buttons] == ["~s", "~g"]
    assert state["x"][0] == [choice.latency_ms_before for choice in results.choices]
    assert len(state["x"]) == len(figure.data) == len(state["hovertext"])


def test_no_buttons_where_nothing_was_timed(make_results):
    choices = tuple(replace(c, latency_ms=None, latency_ms_before=None) for c in make_results().choices)
    results = make_results(choices=choices)
    assert not charts.layer_costs(results).layout.updatemenus
    assert charts.layer_latency(results) is None


def test_colours_are_fixed_and_unknown_rewrites_differ(make_results):
    names = ["depthwise", "zebra", "apple"]
    items = [Divergence("a", name, 0.1, 0.1) for name in names]
    colours = [charts.colour_of(name, items) for name in names]
    assert colours[0] == charts.COLOURS["depthwise"]
    assert len(set(colours)) == 3
    assert len({charts.symbol_of(name, items) for name in names}) == 3


def test_layer_latency_leaves_kept_layers_out(make_results):
    figure = charts.layer_latency(make_results(8))
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == 6
    assert {x for trace in points for x in trace.x} == {0.2}
    assert {y for trace in points for y in trace.y} == {0.05}


def test_loss_prediction_draws_what_a_log_axis_can_show(make_results):
    good, bad = Divergence("a", "spatial", 0.1, 0.3), Divergence("b", "spatial", 0.0, 0.3)
    figure = charts.loss_prediction(make_results(divergence=(good, bad)))
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(list(trace.x), list(trace.y)) for trace in points] == [([0.1], [0.3])]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert charts.loss_prediction(make_results(divergence=(bad,))) is None


def test_curves_shows_loss_and_accuracy(make_results):
    results = make_results()
    figure = charts.curves(results.recovery, results.before.held_out_accuracy)
    series = {trace.name: list(trace.y) for trace in figure.data}
    assert series["training loss"] == [0.9, 0.5]
    assert series["held-out accuracy"] == [88.0, 91.5]
    assert series["original network"] == [92.0, 92.0]
    assert charts.curves(()) is None


def test_curves_without_held_out_samples(make_results):
    epochs = tuple(replace(epoch, held_out_accuracy=None) for epoch in make_results().recovery)
    assert [trace.name for trace in charts.curves(epochs).data] == ["training loss"]


def test_totals_are_ratios(make_results):
    (bars,) = charts.totals(make_results()).data
    assert dict(zip(bars.y, bars.x, strict=True)) == pytest.approx(
        {"Parameters": 1 / 3, "Weights": 1 / 3, "MACs": 0.25, "Activations": 1.2, "Latency": 0.4}
    )
    assert bars.marker.color[3] != bars.marker.color[0]


def test_totals_leave_out_what_was_not_measured(make_results):
    figure = charts.totals(make_results(after=Totals(30_000, 1_000_000, 600_000, 120_000)))
    assert "Latency" not in figure.data[0].y


def test_long_names_keep_their_end():
    short = charts.short_name("features.stage3.block12.convolution.pointwise2")
    assert len(short) <= charts.NAME_LENGTH
    assert short.endswith("pointwise2")
    assert charts.short_name("layer1.0.conv1") == "layer1.0.conv1"


def test_names_are_escaped_in_charts(make_results):
    hostile = Choice("<a href='x'>y</a>", "<b>", {}, 0.1, 1, 2, 1, 2, 0.1, 0.2)
    figure = charts.layer_costs(make_results(choices=(hostile,)))
    assert "<a" not in figure.layout.yaxis.ticktext[0]
    assert all("<a" not in text for trace in figure.data for text in trace.hovertext)
    assert figure.data[1].name == "&lt;b&gt;"
