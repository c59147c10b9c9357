"""The job in a few lines for the terminal."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lighten.report.results import REPORT_NAME, RESULTS_NAME, Results
from lighten.report.verdict import verdicts
from lighten.report.wording import (
    NONE,
    change_text,
    count_text,
    is_number,
    ms_text,
    percent_text,
    points_text,
    ratio_text,
)

VERDICTS = {True: ("met", "green"), False: ("missed", "red"), None: ("cannot be judged", "yellow")}


def print_summary(results: Results, out: Path, console: Console) -> None:
    """Totals before and after, each budget's verdict, and where the report lies."""
    console.print(summary_table(results))
    for verdict in verdicts(results):
        word, colour = VERDICTS[verdict.met]
        console.print(Text.assemble("Budget ", verdict.budget, " ", (word, colour), f": {verdict.reached}"))
    for note in results.notes:
        console.print(Text(f"Note: {note}"))
    report = out / REPORT_NAME
    line = f"Report: {report}" if report.exists() else f"Results: {out / RESULTS_NAME}"
    console.print(Text(line), soft_wrap=True)


def summary_table(results: Results) -> Table:
    """Parameters, MACs, latency and accuracy, before and after."""
    before, after = results.before, results.after
    table = Table(title=Text(f"{results.model} → lightened"), title_justify="left", title_style="bold")
    table.add_column("")
    for head in ("before", "after", "ratio", "change"):
        table.add_column(head, justify="right")
    add_total(table, "parameters", before.params, after.params, count_text, "fewer", "more")
    add_total(table, "MACs", before.macs, after.macs, count_text, "fewer", "more")
    add_total(table, "latency", before.latency_ms, after.latency_ms, ms_text, "faster", "slower")
    rows = [("accuracy", after.accuracy)]
    if is_number(after.accuracy_untrained):
        last = "accuracy, recovered" if results.recovery else "accuracy, final"
        rows = [("accuracy, untrained", after.accuracy_untrained), (last, after.accuracy)]
    for label, value in rows:
        old = percent_text(before.accuracy)
        table.add_row(label, old, percent_text(value), "", points_text(before.accuracy, value))
    return table


def add_total(
    table: Table,
    label: str,
    before: float | None,
    after: float | None,
    words: Callable[[float], str],
    less: str,
    more: str,
) -> None:
    """One total: both values in `words`, their ratio, the change."""
    values = [words(value) if is_number(value) else NONE for value in (before, after)]
    table.add_row(label, *values, ratio_text(before, after), change_text(before, after, less, more))
