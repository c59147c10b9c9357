"""What a training leaves: results.json and a page with its curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lighten.report.charts import curves
from lighten.report.html import chart, document, section
from lighten.report.results import REPORT_NAME, Epoch, Totals, plain, write_whole
from lighten.report.tables import facts
from lighten.report.wording import count_text, percent_text, seconds_text


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResults:
    """All of one training. input_shape: of one sample; best_epoch: the one that is kept, 0 for the start."""

    lighten_version: str
    model: str = ""
    weights: str | None = None
    data: str
    input_shape: tuple[int, ...]
    recipe: Mapping[str, object]
    machine: Mapping[str, object]
    after: Totals
    metric: str
    num_test_samples: int
    epochs: Sequence[Epoch]
    best_epoch: int
    seconds: Mapping[str, float]


def write_training_results(results: TrainingResults, path: Path) -> None:
    """Write results.json whole or not at all."""
    write_whole(json.dumps(plain(asdict(results)), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_training_report(results: TrainingResults, path: Path) -> None:
    """Write the page whole or not at all."""
    rows = training_facts(results)
    recipe = {name: value for name, value in results.recipe.items() if value not in (None, {}, 0)}
    settings = {**recipe, "machine": ", ".join(f"{key} {value}" for key, value in results.machine.items())}
    text = f"{len(results.epochs)} epochs; the weights of epoch {results.best_epoch} are kept."
    parts = [
        section("The network", facts(rows)),
        section("Learning curves", chart(curves(results.epochs), "", text)),
        section("How it was trained", facts(settings)),
    ]
    title = f"{results.model} trained on {results.data}"
    write_whole(document(title, f"{rows['Accuracy']} on data that training never saw.", parts), path)


def training_facts(results: TrainingResults) -> dict[str, str]:
    """The network's figures in words."""
    after, samples = results.after, results.num_test_samples
    held_out = f"{percent_text(after.held_out_accuracy)} of the held-out training samples"
    test = f"{percent_text(after.accuracy)} of {samples:,} test samples" if samples else held_out
    return {
        "Accuracy": test,
        "Held-out accuracy": held_out,
        "Parameters": count_text(after.params),
        "MACs": count_text(after.macs),
        "Input": "×".join(map(str, results.input_shape)),
        "Weights to start from": results.weights or "none: trained from scratch",
        "Training time": seconds_text(results.seconds["train"]),
    }


def print_training(results: TrainingResults, out: Path, console: Console) -> None:
    """The figures as a table in the terminal, and where the page lies."""
    table = Table(title=Text(f"{results.model} trained on {results.data}"), title_justify="left", show_header=False)
    for name, value in training_facts(results).items():
        table.add_row(name, value)
    console.print(table)
    console.print(Text(f"Report: {out / REPORT_NAME}"), soft_wrap=True)
