"""The report as one page that opens anywhere: no network, no other files."""

from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go

from lighten.report import charts
from lighten.report.results import Choice, Results, write_whole
from lighten.report.tables import Cell, facts, number, table
from lighten.report.verdict import verdicts
from lighten.report.wording import (
    NONE,
    UNCHANGED,
    bytes_text,
    change_text,
    count_text,
    digits,
    interval_of,
    is_number,
    loss_text,
    ms_text,
    options_text,
    percent_text,
    points_text,
    ratio_text,
    rewrite_text,
    seconds_text,
    shape_text,
)

METRICS = {"top1": "Accuracy", "word_accuracy": "Word accuracy"}
SAFETY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


def write_report(results: Results, path: Path | str) -> None:
    """Write the page whole or not at all; it holds plotly.js, about 5 MB."""
    write_whole(page(results), Path(path))


def page(results: Results) -> str:
    """The whole page; a part that has no data is left out or says why."""
    title = f"{results.model} → lightened"
    parts = [
        section("Before and after", verdict_list(results) + totals_table(results)),
        section("How it was measured", measured(results)),
        section("Cost per layer", layer_charts(results)),
        section("What was chosen", choices_table(results)),
        section("What was refused", refusals(results)),
        section("Predictions against measurements", predictions(results)),
        section("Recovery", recovery(results)),
        section("Exported file", parity(results)),
        section("Time the job took", stages(results)),
        section("Not counted", uncounted(results)),
        section("Notes", notes(results)),
    ]
    return document(title, summary(results), parts)


def document(title: str, lead: str, parts: Sequence[str]) -> str:
    """A whole page out of sections that are HTML already."""
    style = resources.files("lighten.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{SAFETY}">\n'
        f"<style>\n{style}</style>\n{library()}\n</head>\n<body>\n<main>\n<header><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(lead)}</p></header>\n{"".join(parts)}</main>\n</body>\n</html>\n'
    )


def library() -> str:
    """plotly.js in a script element, once for all charts."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def section(title: str, body: str) -> str:
    """A titled part of the page; nothing where the body is empty."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}</section>\n" if body else ""


def paragraph(text: str) -> str:
    """A paragraph of escaped text."""
    return f"<p>{escape(text)}</p>\n"


def chart(figure: go.Figure | None, title: str, caption: str) -> str:
    """A chart with its heading and one sentence on how to read it; nothing where there is no figure."""
    if figure is None:
        return ""
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    height = f"{figure.layout.height}px"
    body = figure.to_html(config, full_html=False, include_plotlyjs=False, default_height=height)
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    return f"{heading}<p>{escape(caption)}</p>\n<figure>{body}</figure>\n"


def summary(results: Results) -> str:
    """The job in one sentence."""
    before, after = results.before, results.after
    macs = change_text(before.macs, after.macs, "fewer MACs", "more MACs")
    latency = change_text(before.latency_ms, after.latency_ms, "faster", "slower")
    parts = [
        f"MACs {macs}" if macs == UNCHANGED else macs,
        f"latency {latency}" if latency == UNCHANGED else latency or "latency not measured",
        points_text(before.accuracy, after.accuracy).replace("points", "points of accuracy") or "accuracy not measured",
    ]
    return ", ".join(filter(None, parts)) + "."


def verdict_list(results: Results) -> str:
    """Each budget, what was reached, and whether that is enough."""
    words = {True: ("met", "met"), False: ("missed", "missed"), None: ("open", "cannot be judged")}
    items = []
    for verdict in verdicts(results):
        kind, text = words[verdict.met]
        mark = f'<span class="mark {kind}">{text}</span>'
        items.append(f"<li>{mark} <code>{escape(verdict.budget)}</code>: {escape(verdict.reached)}</li>\n")
    return f'<ul class="verdicts">\n{"".join(items)}</ul>\n' if items else ""


def totals_table(results: Results) -> str:
    """Totals before and after, then the same as bars."""
    b, a = results.before, results.after
    rows = [
        total_row("Parameters", b.params, a.params, count_text, "fewer", "more"),
        total_row("Weights", b.weight_bytes, a.weight_bytes, bytes_text, "smaller", "larger"),
        total_row("MACs", b.macs, a.macs, count_text, "fewer", "more"),
        total_row("Activations", b.activation_bytes, a.activation_bytes, bytes_text, "smaller", "larger"),
        total_row("Latency", b.latency_ms, a.latency_ms, ms_text, "faster", "slower"),
    ]
    if is_number(b.latency_low_ms) or is_number(a.latency_low_ms):
        spreads = [spread_text(t.latency_low_ms, t.latency_high_ms) for t in (b, a)]
        rows.append(["…its spread", *map(number, spreads), "", ""])
    rows += accuracy_rows(results)
    head = ["", number("Before"), number("After"), number("Ratio"), number("Change")]
    caption = "After ÷ before: a bar that ends at half the line is a network that needs half."
    return table(head, rows, "totals") + chart(charts.totals(results), "", caption)


def total_row(
    label: str, before: float | None, after: float | None, words: Callable[[float], str], less: str, more: str
) -> list[Cell | str]:
    """One total: both values in `words`, their ratio, the change."""
    values = [words(value) if is_number(value) else NONE for value in (before, after)]
    change = change_text(before, after, less, more)
    return [label, *map(number, [*values, ratio_text(before, after), change])]


def accuracy_rows(results: Results) -> list[list[Cell | str]]:
    """Accuracy on the test samples with its interval, before any training, and on held-out samples."""
    b, a, n = results.before, results.after, results.num_test_samples
    label = METRICS.get(results.metric, results.metric)
    rows = [(f"{label}, {n:,} test samples" if n else label, b.accuracy, a.accuracy)]
    if is_number(a.accuracy_untrained):
        rows.append(("…before any training", b.accuracy, a.accuracy_untrained))
    if is_number(a.held_out_accuracy):
        rows.append(("…on held-out training samples", b.held_out_accuracy, a.held_out_accuracy))
    made = [[name, *map(number, [percent_text(x), percent_text(y), "", points_text(x, y)])] for name, x, y in rows]
    intervals = [interval_of(accuracy, n) for accuracy in (b.accuracy, a.accuracy)]
    if all(intervals):
        texts = [f"{low:.2f}–{high:.2f} %" for low, high in intervals]
        made.insert(1, ["…its 95 % interval", *map(number, texts), "", ""])
    return made


def spread_text(low: float | None, high: float | None) -> str:
    """The spread of the runs in milliseconds."""
    return f"{ms_text(low)[:-3]}–{ms_text(high)}" if is_number(low) and is_number(high) else NONE


def measured(results: Results) -> str:
    """Settings, data, versions and machine."""
    rows: dict[str, object] = {
        "Runtime": results.runtime,
        "Threads": results.threads,
        "Batch": results.batch,
        "Input": shape_text(results.input_shape),
        "Weights": results.weights or "the model's own",
        "Data": results.data,
        "Test samples": f"{results.num_test_samples:,}" if results.num_test_samples else "none",
        "Seed": results.seed,
        "lighten": results.lighten_version,
    }
    said = {name.lower() for name in rows}
    machine = {key.replace("_", " "): value for key, value in results.machine.items() if key.lower() not in said}
    return facts(rows | machine)


def layer_charts(results: Results) -> str:
    """Cost per layer before and after, and time before against time after."""
    caption = "Grey: the layer as it was. In colour: the layer as it is, by what was chosen for it."
    latency = "One point per rewritten layer: the further below the full line, the more time it saves."
    costs = chart(charts.layer_costs(results), "", caption)
    return costs + chart(charts.layer_latency(results), "Time per layer, before against after", latency)


def choices_table(results: Results) -> str:
    """One row per site: the rewrite and what it costs now."""
    if not results.choices:
        return paragraph("The plan has no sites.")
    timed = charts.has_latency(results.choices)
    head = ["Layer", "Rewrite", number("MACs"), number("Ratio"), number("Parameters"), number("Ratio")]
    head += [number("Time (ms)"), number("Ratio")] if timed else []
    rows = [choice_row(choice, timed) for choice in results.choices]
    changed = sum(choice.rewrite != "keep" for choice in results.choices)
    text = f"{changed} of {len(rows)} layers are rewritten; the others are kept as they were."
    text += "" if timed else " The layers were not timed."
    return paragraph(text) + table([*head, number("Predicted loss")], rows, "choices")


def choice_row(choice: Choice, timed: bool) -> list[Cell | str]:
    """The cells of one site; a kept one is grey and says nothing twice."""
    words = ", ".join(filter(None, [rewrite_text(choice.rewrite), options_text(choice.options)]))
    if choice.rewrite == "keep":
        costs = [count_text(choice.macs), "", count_text(choice.params), ""]
        costs += [plain_ms(choice.latency_ms), ""] if timed else []
        return [Cell(choice.site, "name kept"), Cell(words, "kept"), *(Cell(t, "number kept") for t in [*costs, ""])]
    pairs = [
        (choice.macs_before, choice.macs, count_text),
        (choice.params_before, choice.params, count_text),
        (choice.latency_ms_before, choice.latency_ms, plain_ms),
    ]
    costs = []
    for before, after, text in pairs[: 3 if timed else 2]:
        costs += [f"{text(before)} → {text(after)}", ratio_text(before, after)]
    return [Cell(choice.site, "name"), words, *map(number, [*costs, loss_text(choice.predicted_loss)])]


def plain_ms(value: float | None) -> str:
    """Milliseconds under a heading that names the unit."""
    return digits(value) if is_number(value) else NONE


def refusals(results: Results) -> str:
    """Refusals under the rewrite and the reason they share."""
    groups: dict[tuple[str, str], list[str]] = {}
    for refused in results.refused:
        groups.setdefault((refused.rewrite, refused.reason), []).append(refused.site)
    items = []
    for (rewrite, reason), sites in groups.items():
        head = f"<b>{escape(rewrite_text(rewrite))}</b>: {escape(reason)}"
        count = f'<span class="count">{len(sites)} {"layer" if len(sites) == 1 else "layers"}</span>'
        names = ", ".join(f"<code>{escape(site)}</code>" for site in sites)
        items.append(f"<details><summary>{head} {count}</summary><p>{names}</p></details>\n")
    return "".join(items)


def predictions(results: Results) -> str:
    """Predicted loss against measured divergence, and the turns of the latency loop."""
    caption = "One point per swap that was tried alone. Only the order matters to the solver: the points should rise."
    body = chart(charts.loss_prediction(results), "Loss", caption)
    if results.solves:
        head = [number(t) for t in ("Turn", "Bound", "Predicted", "Measured", "Measured ÷ predicted")]
        rows = [
            [number(t) for t in (str(turn), ms_text(s.bound), ms_text(s.predicted_ms), ms_text(s.measured_ms))]
            + [number(ratio_text(s.predicted_ms, s.measured_ms))]
            for turn, s in enumerate(results.solves, 1)
        ]
        text = "Times of single layers do not quite add up: a plan that misses by the clock is solved again."
        body += f"<h3>Latency</h3>\n{paragraph(text)}{table(head, rows, 'solves')}"
    return body


def recovery(results: Results) -> str:
    """What repair and training gave back."""
    body = ""
    if results.repair:
        before, after = loss_text(results.repair.before), loss_text(results.repair.after)
        body = paragraph(f"Repair without gradients took the held-out loss from {before} to {after}.")
    if not results.recovery:
        return body + paragraph("No training ran: the weights are fitted, and no gradient step was taken.")
    last = results.recovery[-1]
    epochs = f"{len(results.recovery)} {'epoch' if len(results.recovery) == 1 else 'epochs'}"
    text = f"{epochs} of distillation in {seconds_text(last.seconds)}; final loss {loss_text(last.loss)}."
    return body + chart(charts.curves(results.recovery, results.before.held_out_accuracy), "", text)


def parity(results: Results) -> str:
    """Whether the exported file computes what PyTorch computes."""
    if results.parity is None:
        return ""
    p = results.parity
    verb = "agrees" if p.agrees else "DOES NOT AGREE"
    error = loss_text(p.max_relative_error)
    return paragraph(f"It {verb} with PyTorch on {p.num_samples:,} samples: largest relative error {error}.")


def stages(results: Results) -> str:
    """Seconds per stage and in total."""
    rows = [[stage, number(seconds_text(seconds))] for stage, seconds in results.seconds.items()]
    if not rows:
        return ""
    total = [Cell("total", "total"), Cell(seconds_text(sum(results.seconds.values())), "number total")]
    return table(["Stage", number("Time")], [*rows, total], "stages")


def uncounted(results: Results) -> str:
    """Operators that have weights but no formula."""
    rows = [[operator, number(str(calls))] for operator, calls in results.uncounted.items()]
    text = "These operators have no formula, so that the MACs above leave them out."
    return paragraph(text) + table(["Operator", number("Calls")], rows, "uncounted") if rows else ""


def notes(results: Results) -> str:
    """What the job wants to be known."""
    items = "".join(f"<li>{escape(note)}</li>\n" for note in results.notes)
    return f"<ul>\n{items}</ul>\n" if items else ""
