"""The report's charts, in plotly: cost per layer, predictions against the clock, recovery, totals."""

import math
from collections.abc import Callable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lighten.report.results import Choice, Epoch, Results
from lighten.report.wording import (
    bytes_text,
    count_text,
    is_number,
    loss_text,
    ms_text,
    options_text,
    ratio_text,
    rewrite_text,
)

INK, GRID, BEFORE, KEPT = "#24292f", "#e6e8eb", "#d3d7dc", "#6e7781"
COLOURS = {  # Okabe & Ito 2008: told apart by colour-blind readers
    "keep": KEPT,
    "depthwise": "#0072b2",
    "blueprint": "#56b4e9",
    "spatial": "#e69f00",
    "tucker": "#009e73",
    "low-rank": "#cc79a7",
}
SPARE = ("#d55e00", "#b5a800", "#000000", "#8c6bb1")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
TICKS = {"macs": "~s", "latency_ms": "~g"}
NAME_LENGTH = 22
ROW_PX = 22

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "xaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": KEPT, "automargin": True},
        "yaxis": {"gridcolor": GRID, "zeroline": False, "linecolor": KEPT, "automargin": True},
        "legend": {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0, "xanchor": "left"},
        "hoverlabel": {"align": "left"},
        "bargap": 0.2,
    }
)


def layer_costs(results: Results) -> go.Figure | None:
    """One row per site: cost before behind, cost after in front, coloured by rewrite; buttons switch the unit."""
    choices = results.choices
    if not choices:
        return None
    figure = go.Figure(layout={"template": TEMPLATE, "barmode": "overlay"})
    rows = range(len(choices))
    figure.add_bar(y=list(rows), width=0.82, marker_color=BEFORE, name="before", orientation="h")
    for rewrite in used_rewrites(choices):
        rows = [row for row, choice in enumerate(choices) if choice.rewrite == rewrite]
        colour = colour_of(rewrite, choices)
        name = escape(rewrite_text(rewrite))
        figure.add_bar(y=rows, width=0.5, marker_color=colour, name=name, orientation="h")
    units = [("MACs", "macs"), ("Milliseconds", "latency_ms")] if has_latency(choices) else [("MACs", "macs")]
    states = [bar_state(choices, field) for _, field in units]
    for trace, values, texts in zip(figure.data, states[0]["x"], states[0]["hovertext"], strict=True):
        trace.update(x=values, hovertext=texts, hoverinfo="text", textposition="none")
    figure.update_yaxes(
        tickvals=list(range(len(choices))),
        ticktext=[escape(short_name(choice.site)) for choice in choices],
        range=[len(choices) - 0.4, -0.6],
        showgrid=False,
        tickfont={"size": 11},
    )
    figure.update_xaxes(title=units[0][0], tickformat=TICKS[units[0][1]], rangemode="tozero", nticks=7)
    figure.update_layout(height=150 + ROW_PX * len(choices), margin={"t": 96 if len(units) > 1 else 60, "b": 48})
    if len(units) > 1:
        figure.update_layout(updatemenus=[unit_buttons(units, states)])
    return figure


def bar_state(choices: Sequence[Choice], field: str) -> dict[str, list]:
    """Lengths and hover texts of every trace of `layer_costs` in one unit: before, then each rewrite."""
    texts = [hover_text(choice) for choice in choices]
    values, hovers = [[getattr(choice, f"{field}_before") for choice in choices]], [texts]
    for rewrite in used_rewrites(choices):
        rows = [row for row, choice in enumerate(choices) if choice.rewrite == rewrite]
        values.append([getattr(choices[row], field) for row in rows])
        hovers.append([texts[row] for row in rows])
    return {"x": values, "hovertext": hovers}


def unit_buttons(units: list[tuple[str, str]], states: list[dict[str, list]]) -> dict:
    """Buttons that put another unit's lengths into the bars."""
    buttons = []
    for (label, field), state in zip(units, states, strict=True):
        axis = {"xaxis.title.text": label, "xaxis.autorange": True, "xaxis.tickformat": TICKS[field]}
        buttons.append({"label": label, "method": "update", "args": [state, axis]})
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 6, "t": 0}}
    return {"type": "buttons", "direction": "right", "buttons": buttons, "showactive": True, **place}


def layer_latency(results: Results) -> go.Figure | None:
    """Each rewritten site's time before against the time of the chosen variant; lines mark equal, half, quarter."""
    timed = [c for c in results.choices if positive(c.latency_ms) and positive(c.latency_ms_before)]
    timed = [choice for choice in timed if choice.rewrite != "keep"]
    if not timed:
        return None
    figure = go.Figure(layout={"template": TEMPLATE, "height": 460, "margin": {"t": 64, "b": 56}})
    log_axis(figure.update_xaxes, "Time before (ms)", [choice.latency_ms_before for choice in timed])
    log_axis(figure.update_yaxes, "Time after (ms)", [choice.latency_ms for choice in timed])
    low = min(choice.latency_ms_before for choice in timed) / 1.15
    high = max(choice.latency_ms_before for choice in timed) * 1.15
    for share, label in ((1, "equal"), (1 / 2, "½"), (1 / 4, "¼"), (1 / 8, "⅛")):
        guide(figure, low, high, share, label)
    for rewrite in used_rewrites(timed):
        group = [choice for choice in timed if choice.rewrite == rewrite]
        x, y = [c.latency_ms_before for c in group], [c.latency_ms for c in group]
        add_points(figure, x, y, rewrite, results.choices, [hover_text(choice) for choice in group])
    return figure


def loss_prediction(results: Results) -> go.Figure | None:
    """Predicted loss of single swaps against the divergence measured, both on log axes; None without such points."""
    points = [d for d in results.divergence if positive(d.predicted_loss) and positive(d.measured)]
    if not points:
        return None
    figure = go.Figure(layout={"template": TEMPLATE, "height": 460, "margin": {"t": 64, "b": 56}})
    log_axis(figure.update_xaxes, "Predicted loss", [point.predicted_loss for point in points])
    log_axis(figure.update_yaxes, "Measured divergence", [point.measured for point in points])
    values = [point.predicted_loss for point in points]
    guide(figure, min(values) / 1.5, max(values) * 1.5, 1, "equal")
    for rewrite in used_rewrites(points):
        group = [point for point in points if point.rewrite == rewrite]
        texts = [
            f"<b>{escape(p.site)}</b><br>{escape(rewrite_text(p.rewrite))}"
            f"<br>predicted {loss_text(p.predicted_loss)}, measured {loss_text(p.measured)}"
            for p in group
        ]
        x, y = [p.predicted_loss for p in group], [p.measured for p in group]
        add_points(figure, x, y, rewrite, results.divergence, texts)
    return figure


def curves(epochs: Sequence[Epoch], original_accuracy: float | None = None) -> go.Figure | None:
    """Loss and held-out accuracy over the epochs; None where there are none. original_accuracy: a dashed line."""
    if not epochs:
        return None
    measured = [epoch for epoch in epochs if is_number(epoch.held_out_accuracy)]
    figure = make_subplots(rows=2 if measured else 1, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    rates = [f"learning rate {epoch.learning_rate:.3g}, {epoch.seconds:.0f} s" for epoch in epochs]
    loss = {"x": [epoch.epoch for epoch in epochs], "y": [epoch.loss for epoch in epochs], "customdata": rates}
    line = {"mode": "lines+markers", "line_color": COLOURS["spatial"]}
    hover = "epoch %{x}: %{y:.4g}<br>%{customdata}<extra></extra>"
    figure.add_scatter(**loss, **line, name="training loss", hovertemplate=hover, row=1, col=1)
    figure.update_yaxes(title="Loss", row=1, col=1)
    if measured:
        x, y = [epoch.epoch for epoch in measured], [epoch.held_out_accuracy for epoch in measured]
        line = {"mode": "lines+markers", "line_color": COLOURS["depthwise"]}
        hover = "epoch %{x}: %{y:.2f} %<extra></extra>"
        figure.add_scatter(x=x, y=y, **line, name="held-out accuracy", hovertemplate=hover, row=2, col=1)
        figure.update_yaxes(title="Accuracy (%)", row=2, col=1)
        if is_number(original_accuracy):
            ends, levels = [epochs[0].epoch, epochs[-1].epoch], [original_accuracy] * 2
            dashes = {"mode": "lines", "line": {"color": KEPT, "dash": "dash"}, "hoverinfo": "skip"}
            figure.add_scatter(x=ends, y=levels, **dashes, name="original network", row=2, col=1)
    figure.update_xaxes(nticks=min(10, len(epochs) + 1), tickformat="d")
    figure.update_xaxes(title="Epoch", row=2 if measured else 1, col=1)
    figure.update_layout(template=TEMPLATE, height=460 if measured else 280, margin={"t": 60, "b": 48})
    return figure


def totals(results: Results) -> go.Figure | None:
    """After ÷ before of each total, as bars against one."""
    before, after = results.before, results.after
    rows = [
        ("Parameters", before.params, after.params, count_text),
        ("Weights", before.weight_bytes, after.weight_bytes, bytes_text),
        ("MACs", before.macs, after.macs, count_text),
        ("Activations", before.activation_bytes, after.activation_bytes, bytes_text),
        ("Latency", before.latency_ms, after.latency_ms, ms_text),
    ]
    rows = [row for row in rows if positive(row[1]) and is_number(row[2])]
    if not rows:
        return None
    ratios = [new / old for _, old, new, _ in rows]
    figure = go.Figure(layout={"template": TEMPLATE, "showlegend": False})
    figure.add_bar(
        x=ratios,
        y=[row[0] for row in rows],
        orientation="h",
        marker_color=[COLOURS["depthwise"] if ratio <= 1 else SPARE[0] for ratio in ratios],
        text=[ratio_text(old, new) for _, old, new, _ in rows],
        textposition="auto",
        insidetextanchor="end",
        textangle=0,
        hovertext=[f"{label}: {words(old)} → {words(new)}" for label, old, new, words in rows],
        hoverinfo="text",
    )
    figure.add_vline(x=1, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix=" ")
    figure.update_xaxes(title="After ÷ before", range=[0, max(1.08, 1.12 * max(ratios))], ticksuffix="×", nticks=6)
    figure.update_layout(height=80 + 36 * len(rows), margin={"t": 8, "b": 48})
    return figure


def log_axis(update: Callable[..., go.Figure], title: str, values: Sequence[float]) -> None:
    """A log axis whose ticks are written out: 1, 2, 5 of each decade, or the decades alone where there are many."""
    low, high = math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    update(type="log", title=title, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], tickangle=0)


def guide(figure: go.Figure, low: float, high: float, share: float, label: str) -> None:
    """A thin line y = share · x with its label at the right end."""
    line = {"color": KEPT, "width": 1, "dash": "solid" if share == 1 else "dot"}
    figure.add_scatter(
        x=[low, high],
        y=[low * share, high * share],
        mode="lines+text",
        line=line,
        text=["", label],
        textposition="middle right",
        cliponaxis=False,
        textfont={"color": KEPT, "size": 11},
        hoverinfo="skip",
        showlegend=False,
    )


def add_points(figure: go.Figure, x: list, y: list, rewrite: str, everything: Sequence, texts: list[str]) -> None:
    """The points of one rewrite, in its own colour and shape."""
    symbol = symbol_of(rewrite, everything)
    marker = {
        "color": colour_of(rewrite, everything),
        "symbol": symbol,
        "size": 9,
        "line": {"color": "white", "width": 1},
    }
    name = escape(rewrite_text(rewrite))
    figure.add_scatter(x=x, y=y, mode="markers", marker=marker, name=name, hovertext=texts, hoverinfo="text")


def used_rewrites(items: Sequence) -> list[str]:
    """The rewrites that occur, known ones first and in a fixed order."""
    names = {item.rewrite for item in items}
    return [name for name in COLOURS if name in names] + sorted(names - set(COLOURS))


def colour_of(rewrite: str, items: Sequence) -> str:
    """The fixed colour of a known rewrite, a spare one for the others."""
    if rewrite in COLOURS:
        return COLOURS[rewrite]
    others = [name for name in used_rewrites(items) if name not in COLOURS]
    return SPARE[others.index(rewrite) % len(SPARE)]


def symbol_of(rewrite: str, items: Sequence) -> str:
    """The fixed shape of a known rewrite, a spare one for the others."""
    order = [*COLOURS, *(name for name in used_rewrites(items) if name not in COLOURS)]
    return SYMBOLS[order.index(rewrite) % len(SYMBOLS)]


def hover_text(choice: Choice) -> str:
    """What the chart says of one site, one fact a line."""
    words = ", ".join(filter(None, [rewrite_text(choice.rewrite), options_text(choice.options)]))
    lines = [f"<b>{escape(choice.site)}</b>", escape(words)]
    macs = f"{count_text(choice.macs_before)} → {count_text(choice.macs)}"
    lines.append(f"MACs {macs} ({ratio_text(choice.macs_before, choice.macs)})")
    if is_number(choice.latency_ms) and is_number(choice.latency_ms_before):
        ratio = ratio_text(choice.latency_ms_before, choice.latency_ms)
        lines.append(f"{ms_text(choice.latency_ms_before)} → {ms_text(choice.latency_ms)} ({ratio})")
    return "<br>".join(lines)


def short_name(name: str) -> str:
    """The name, its middle left out where it is long; the end tells layers apart."""
    return name if len(name) <= NAME_LENGTH else f"{name[:6]}…{name[7 - NAME_LENGTH :]}"


def has_latency(choices: Sequence[Choice]) -> bool:
    """Whether any site was timed."""
    return any(is_number(choice.latency_ms) for choice in choices)


def positive(value: float | None) -> bool:
    """Whether a log axis can show it."""
    return is_number(value) and value > 0
