"""What all commands share: the app, options, progress, output and errors."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lighten.errors import LightenError

app = typer.Typer(
    name="lighten",
    help="Make trained convolutional networks light: less measured time, with the accuracy held and proven.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
errors = Console(stderr=True)

Model = Annotated[str, typer.Argument(help="Built-in name, package.module:callable, or a lightened network's folder.")]
Weights = Annotated[str | None, typer.Option(help="Trained weights: .safetensors, or a .pt/.pth state dict.")]
DataText = Annotated[
    str,
    typer.Option(
        "--data", help="digits, cifar10:PATH, images:PATH (folder per class), lines:PATH, or package.module:callable."
    ),
]
BUDGET = typer.Option(
    "--budget", help="latency<=0.5x, latency<=3ms, macs<=0.35x, params<=200k or drop<=0.5 (points); may be repeated."
)
BudgetText = Annotated[list[str], BUDGET]
OptionalBudget = Annotated[list[str] | None, BUDGET]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]
Methods = Annotated[str, typer.Option(help="Rewrites to use, separated by commas; all by default.")]
Keep = Annotated[str, typer.Option(help="Layers that stay as they are, separated by commas.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the runtime that is timed.")]
Batch = Annotated[int, typer.Option(min=1, help="Batch size that is timed.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Runtime = Annotated[str, typer.Option(help="onnxruntime, openvino or pytorch.")]
Memory = Annotated[float, typer.Option(min=0.01, help="Limit of the moments' memory in GiB.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished job of the same --out.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what stands at --out.")]
LearningRate = Annotated[float | None, typer.Option(min=1e-6, help="Peak; by default a short trial chooses.")]
InputShape = Annotated[str | None, typer.Option("--input", help="Input shape with the batch first, as 1x3x224x224.")]


def main() -> None:
    """Run the app; a user's mistake becomes one sentence and exit code 2 or 3, without a traceback."""
    as_json = "--json" in sys.argv
    try:
        app(standalone_mode=False)
    except LightenError as error:
        fail(str(error), error.exit_code, as_json)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped; what was checkpointed is kept", 130, as_json)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            fail(error.format_message(), 2, as_json)
        raise


def fail(message: str, code: int, as_json: bool) -> None:
    """Say what is wrong, and leave."""
    if as_json:
        print_json({"error": {"message": message}})
    else:
        errors.print(f"lighten: {message}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


def check_format(shape: str, known: Sequence[str]) -> None:
    """Raise LightenError for a `--format` that the command doesn't have."""
    if shape not in known:
        raise LightenError(f"there is no format '{shape}': known are {', '.join(known)}")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def progress_display() -> Iterator[Any]:
    """A progress bar on standard error that stages write to."""
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=errors, transient=False) as progress:
        tasks: dict[str, Any] = {}

        def show(stage: str, share: float, words: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0, words="")
            fields = {"words": words} if words else {}
            progress.update(tasks[stage], completed=share, **fields)

        yield show


def listed(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
