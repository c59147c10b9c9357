"""The summary in the terminal."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lighten.report.console import print_summary
from lighten.report.results import Results, Totals


def printed(results: Results, out: Path) -> str:
    """What the terminal shows, spaces and lines of the table taken together."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_summary(results, out, console)
    return " ".join(console.file.getvalue().replace("│", " ").split())


def test_summary(make_results, tmp_path):
    text = printed(make_results(), tmp_path)
    for words in (
        "tinynet → lightened",
        "parameters 90 k 30 k 0.333× 3× fewer",
        "MACs 4 M 1 M 0.250× 4× fewer",
        "latency 2 ms 0.800 ms 0.400× 2.50× faster",
        "accuracy, untrained 91.73 % 81.00 % 10.73 points lost",
        "accuracy, recovered 91.73 % 91.33 % 0.40 points lost",
        "Budget latency<=0.5x met: 0.400×",
        "Budget drop<=0.5 met: 0.40 points",
        "Note: the cache was cold",
        f"Results: {tmp_path / 'results.json'}",
    ):
        assert words in text, words


def test_report_is_named_where_it_exists(make_results, tmp_path):
    (tmp_path / "report.html").write_text("page")
    assert f"Report: {tmp_path / 'report.html'}" in printed(make_results(), tmp_path)


def test_missed_budget_and_slower_network(make_results, tmp_path):
    slower = replace(make_results().after, latency_ms=3.0)
    text = printed(make_results(after=slower), tmp_path)
    assert "1.50× slower" in text
    assert "Budget latency<=0.5x missed: 1.50×" in text


def test_what_was_not_measured_says_so(make_results, tmp_path):
    bare = Totals(1, 2, 3, 4)
    text = printed(make_results(before=bare, after=bare, recovery=()), tmp_path)
    assert "latency not measured not measured –" in text
    assert "accuracy not measured not measured" in text
    assert "Budget latency<=0.5x cannot be judged: not measured" in text


def test_markup_in_names_is_text(make_results, tmp_path):
    text = printed(make_results(model="[red]net[/red]", notes=("[bold]x[/bold]",)), tmp_path / "[blue]")
    assert "[red]net[/red] → lightened" in text
    assert "Note: [bold]x[/bold]" in text
    assert "[blue]" in text
