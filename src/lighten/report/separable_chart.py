"""When separable pays: dense ÷ separable over the number of output channels, by formula and measured."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from torch import nn

from lighten.advise import separable_ratio, threshold
from lighten.errors import LightenError
from lighten.files import write_atomically, write_with
from lighten.measure.latency_table import SHORTEST_MS, LatencyTable
from lighten.report.charts import INK, KEPT, TEMPLATE
from lighten.report.html import chart, document, section
from lighten.rewrites import REWRITES

WINDOWS = {2: "#0072b2", 3: "#e69f00", 4: "#009e73", 5: "#cc79a7", 6: "#56b4e9", 7: "#d55e00"}  # Okabe & Ito 2008
INPUTS = {(64, 28): 256, (3, 56): 128}  # {channels, height and width of the map: the most outputs}; beyond, the frame
# in which layers are timed takes ten times as long as the separable one
SYMBOLS = dict(zip(INPUTS, ("circle", "diamond"), strict=True))
OUTPUTS = (64, 8, 256, 2, 32, 128, 16)  # the first ones say most, should the time run out
LARGEST = 512
FORMATS = (".html", ".svg", ".png")
TITLE = "When does depthwise separable pay?"
CAPTION = (
    "Lines: MACs of a k×k convolution ÷ those of depthwise and pointwise, N·k²/(k²+N). Above 1× separable has fewer; "
    "rings mark the threshold N = k²/(k²−1), dotted ends the limit k². Markers: time ÷ time, measured."
)


@dataclass(frozen=True, slots=True)
class Point:
    """A k×k convolution of stride 1 and its separable form, timed; size: height and width of the input map."""

    num_inputs: int
    size: int
    window: int
    num_outputs: int
    dense_ms: float
    separable_ms: float

    @property
    def ratio(self) -> float:
        """Dense ÷ separable."""
        return self.dense_ms / self.separable_ms

    @property
    def is_lost(self) -> bool:
        """Whether one of the times is lost in the noise, so that the ratio says nothing."""
        return min(self.dense_ms, self.separable_ms) <= SHORTEST_MS


def measure_points(
    clock: LatencyTable,
    windows: Sequence[int] = (3, 5, 7),
    outputs: Sequence[int] = OUTPUTS,
    seconds: float = float("inf"),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Point]:
    """Dense and separable timed side by side; no new number of outputs is begun once the seconds are over."""
    end = time.monotonic() + seconds
    places = [(n, place) for n in outputs for place, most in INPUTS.items() if n <= most]
    points: list[Point] = []
    for done, (num_outputs, (num_inputs, size)) in enumerate(places, 1):
        layers = [
            (layer, (num_inputs, size, size))
            for k in windows
            for layer in dense_and_separable(num_inputs, num_outputs, k)
        ]
        times_ms = clock.measure(layers)
        pairs = zip(windows, times_ms[::2], times_ms[1::2], strict=True)
        points += [Point(num_inputs, size, k, num_outputs, dense, separable) for k, dense, separable in pairs]
        on_progress(done, len(places))
        if time.monotonic() > end:
            break
    return points


def dense_and_separable(num_inputs: int, num_outputs: int, window: int) -> tuple[nn.Module, nn.Module]:
    """A convolution on the meta device and its separable form; an even window costs the map a row and a column."""
    dense = nn.Conv2d(num_inputs, num_outputs, window, padding=(window - 1) // 2, device="meta")
    return dense, REWRITES["depthwise"].build(dense, {"rank": 1})


def separable_chart(points: Sequence[Point]) -> go.Figure:
    """Lines by formula for k = 2…7, their limits and thresholds, and the points measured, in the same colours.

    Points that are lost in the noise are left out.
    """
    figure = go.Figure(layout={"template": TEMPLATE, "height": 640, "margin": {"t": 64, "b": 56, "r": 72}})
    outputs = [2 ** (i / 8) for i in range(8 * 9 + 1)]
    for k, colour in WINDOWS.items():
        add_formula(figure, k, colour, outputs)
    figure.add_scatter(
        x=[1, LARGEST],
        y=[1, 1],
        mode="lines+text",
        line={"color": INK, "width": 1},
        text=["", "separable pays above"],
        textposition="bottom left",
        hoverinfo="skip",
        showlegend=False,
    )
    for (num_inputs, size), symbol in SYMBOLS.items():
        here = [p for p in points if (p.num_inputs, p.size) == (num_inputs, size) and not p.is_lost]
        if here:
            add_measured(figure, here, symbol, f"measured, {num_inputs} channels on {size}×{size}")
    ticks = [2**i for i in range(10)]
    figure.update_xaxes(type="log", title="Output channels N", tickvals=ticks, ticktext=[str(t) for t in ticks])
    ratios = [2.0**i for i in range(-4, 8)]
    figure.update_yaxes(type="log", title="Dense ÷ separable", tickvals=ratios, ticktext=[f"{r:g}×" for r in ratios])
    return figure


def add_formula(figure: go.Figure, window: int, colour: str, outputs: Sequence[float]) -> None:
    """The line of one window, a ring at its threshold, and the end of its limit."""
    num_taps, same = window**2, {"legendgroup": f"k{window}", "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(
        x=outputs,
        y=[separable_ratio(n, num_taps) for n in outputs],
        mode="lines",
        line_color=colour,
        name=f"k = {window}",
        legendgroup=f"k{window}",
        hovertemplate=f"k = {window}, N = %{{x:.0f}}: %{{y:.2f}}× by formula<extra></extra>",
    )
    ring = {"color": "white", "size": 8, "line": {"color": colour, "width": 2}}
    figure.add_scatter(x=[threshold(num_taps)], y=[1], mode="markers", marker=ring, **same)
    figure.add_scatter(
        x=[LARGEST / 4, LARGEST],
        y=[num_taps, num_taps],
        mode="lines+text",
        line={"color": colour, "width": 1, "dash": "dot"},
        text=["", f"k² = {num_taps}"],
        textposition="middle right",
        textfont={"color": colour},
        cliponaxis=False,
        **same,
    )


def add_measured(figure: go.Figure, points: Sequence[Point], symbol: str, name: str) -> None:
    """The points of one input, each in the colour of its window."""
    figure.add_scatter(
        x=[None], y=[None], mode="markers", marker={"color": KEPT, "symbol": symbol, "size": 9}, name=name
    )
    for k in sorted({point.window for point in points}):
        group = [point for point in points if point.window == k]
        figure.add_scatter(
            x=[point.num_outputs for point in group],
            y=[point.ratio for point in group],
            mode="markers",
            marker={"color": WINDOWS[k], "symbol": symbol, "size": 9, "line": {"color": "white", "width": 1}},
            customdata=[(point.dense_ms, point.separable_ms) for point in group],
            hovertemplate=f"{name}, k = {k}, N = %{{x}}: %{{y:.2f}}×"
            "<br>%{customdata[0]:.3f} ms ÷ %{customdata[1]:.3f} ms<extra></extra>",
            legendgroup=f"k{k}",
            showlegend=False,
        )


def check_chart_path(path: Path) -> None:
    """Raise LightenError, before anything is measured, where a chart can't be written to this file."""
    if path.suffix not in FORMATS:
        raise LightenError(f"cannot draw '{path}': its name must end in {', '.join(FORMATS)}")
    if path.suffix != ".html" and importlib.util.find_spec("kaleido") is None:
        raise LightenError(f"cannot draw '{path}': {path.suffix} needs the package kaleido; .html needs nothing")


def write_chart(points: Sequence[Point], place: str, path: Path) -> None:
    """Write the chart by the ending of the name; place: where it was measured. Raises LightenError where it can't."""
    check_chart_path(path)
    figure = separable_chart(points)
    num_lost = sum(point.is_lost for point in points)
    lead = f"Measured: {place}" + (f"; {num_lost} of {len(points)} points are lost in the noise" if num_lost else "")
    if path.suffix == ".html":
        write_atomically(path, document(TITLE, lead, [section("Ratio over N", chart(figure, "", CAPTION))]))
        return
    try:
        image = figure.to_image(path.suffix[1:], width=1100, height=640)
    except (RuntimeError, ValueError) as error:
        raise LightenError(f"cannot draw '{path}': {str(error).strip().splitlines()[0]}") from error
    write_with(path, lambda temporary: temporary.write_bytes(image))
