"""The command line: each command is one library call."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

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
    typer.Option("--data", help="digits, cifar10:PATH, images:PATH (folder per class), or package.module:callable."),
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
Force = Annotated[bool, typer.Option("--force", help="Replace what stands at --out.")]
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


@app.command()
def shrink(
    model: Model,
    data: DataText,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    budget: OptionalBudget = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="A plan to follow in place of a budget.")] = None,
    weights: Weights = None,
    epochs: Annotated[int, typer.Option(min=0, help="Of recovery at the most; 0: no gradient step.")] = 12,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Of recovery at the most.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Peak; by default a short trial chooses.")
    ] = None,
    methods: Methods = "",
    keep: Keep = "",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    seed: Seed = 0,
    memory: Memory = 2.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished job of the same --out.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Lighten a trained network within a budget: plan, repair, recover, verify, export.

    Example: `lighten shrink resnet20 --weights w.safetensors --data cifar10:PATH --budget 'latency<=0.5x' --out light`
    """
    from lighten.data import load_data
    from lighten.plan.plan import load_plan
    from lighten.planning import Settings
    from lighten.recover.distil import Recipe
    from lighten.shrink import shrink as run

    opened = open_original(model, weights)
    with progress_display() as show:
        made = run(
            opened.model,
            load_data(data),
            budget or (),
            out=out,
            plan=load_plan(plan_file) if plan_file else None,
            name=opened.text,
            weights=weights and Path(weights).name,
            settings=Settings(listed(methods), listed(keep), runtime, threads, batch, seed, int(memory * 2**30)),
            recipe=Recipe(epochs=epochs, minutes=minutes, learning_rate=learning_rate, seed=seed),
            resume=resume,
            force=force,
            show=show,
        )
    show_outcome(made.results, out, as_json)


@app.command()
def plan(
    model: Model,
    data: DataText,
    budget: BudgetText,
    out: Annotated[Path, typer.Option(help="Plan file to write.")] = Path("plan.json"),
    weights: Weights = None,
    methods: Methods = "",
    keep: Keep = "",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    seed: Seed = 0,
    memory: Memory = 2.0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Choose a rewrite per layer within a budget and write the plan; no training, nothing else changes.

    Example: `lighten plan resnet20 --weights resnet20.safetensors --data cifar10:PATH --budget 'macs<=0.5x'`
    """
    from lighten.data import load_data
    from lighten.planning import Settings, plan_network
    from lighten.report.results import to_json

    if out.exists() and not force:
        raise LightenError(f"'{out}' exists: choose another --out, or replace it with --force")
    opened = open_original(model, weights)
    settings = Settings(listed(methods), listed(keep), runtime, threads, batch, seed, int(memory * 2**30))
    with progress_display() as show:
        planned, results = plan_network(opened.model, load_data(data), budget, opened.text, settings, show)
    planned.save(out)
    if as_json:
        print_json(to_json(results) | {"out": str(out)})
        return
    table = Table("site", "rewrite", "options", "MACs", "predicted loss")
    for choice in results.choices:
        options = " ".join(f"{key}={value}" for key, value in choice.options.items())
        table.add_row(choice.site, choice.rewrite, options, f"{choice.macs:,}", f"{choice.predicted_loss:.3g}")
    Console().print(table)
    Console().print(f"MACs {results.before.macs:,} → {results.after.macs:,}; plan: {out}", highlight=False)


@app.command()
def evaluate(
    model: Model,
    data: DataText,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy on the test data. Example: `lighten evaluate zoo/resnet20-cifar10-latency0.5 --data cifar10:PATH`"""
    from lighten.data import load_data
    from lighten.measure.accuracy import evaluate as measure
    from lighten.opening import open_model

    opened, loaded = open_model(model, weights), load_data(data)
    found = measure(opened.model, loaded.test or loaded.held_out)
    if as_json:
        print_json({"model": opened.title, "data": data, **asdict(found)})
    else:
        Console().print(f"{opened.title}: {found.metric} {found.value:.2f} % of {found.num_samples:,}", highlight=False)


@app.command()
def count(model: Model, input_shape: InputShape = None, as_json: AsJson = False) -> None:
    """Parameters and MACs, per layer and in total. Example: `lighten count resnet56`"""
    from lighten.network.trace import trace
    from lighten.opening import open_model

    opened = open_model(model)
    found = trace(opened.model, opened.example(input_shape))
    rows = [
        {
            "name": site.name,
            "kind": site.kind,
            "output_shape": site.output_shape,
            "params": site.cost.params,
            "macs": site.cost.macs,
            "calls": site.calls,
        }
        for site in found.sites
    ]
    uncounted = [{"operator": name, "calls": calls} for name, calls in found.uncounted.items()]
    head = {"model": opened.title, "input": found.input_shape, "convention": "macs", "total": asdict(found.cost)}
    if as_json:
        print_json(head | {"rows": rows, "outside": asdict(found.outside), "uncounted": uncounted})
        return
    table = Table("layer", "kind", "output", "parameters", "MACs", "calls", title=opened.title)
    for row in rows:
        shape = "×".join(map(str, row["output_shape"]))
        table.add_row(row["name"], row["kind"], shape, f"{row['params']:,}", f"{row['macs']:,}", str(row["calls"]))
    if found.outside.params:
        table.add_row("(outside any layer called)", "", "", f"{found.outside.params:,}", "", "")
    table.add_section()
    table.add_row("total", "", "", f"{found.cost.params:,}", f"{found.cost.macs:,}", "")
    Console().print(table)
    for entry in uncounted:
        Console().print(f"not counted: {entry['operator']}, {entry['calls']} calls", style="yellow")


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="Networks to time side by side.")],
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Per network.")] = 3.0,
    input_shape: InputShape = None,
    as_json: AsJson = False,
) -> None:
    """Latency of networks, timed in turns. Example: `lighten bench resnet20 zoo/resnet20-cifar10-latency0.5`"""
    from lighten.measure.latency import machine, time_networks
    from lighten.opening import open_model

    opened = {text: open_model(text) for text in models}
    networks = {text: (o.model, o.example(input_shape)) for text, o in opened.items()}
    timings = time_networks(networks, runtime, threads, batch, seconds)
    first = timings[models[0]].median_ms
    rows = [
        {
            "model": text,
            "runtime": runtime,
            "threads": threads,
            "batch": batch,
            "median_ms": timing.median_ms,
            "low_ms": timing.low_ms,
            "high_ms": timing.high_ms,
            "ratio": timing.median_ms / first,
        }
        for text, timing in timings.items()
    ]
    if as_json:
        print_json({"rows": rows, "machine": machine(threads)})
        return
    table = Table("model", "median ms", "10–90 %", "ratio", title=f"{runtime}, {threads} threads, batch {batch}")
    for row in rows:
        spread = f"{row['low_ms']:.3f}–{row['high_ms']:.3f}"
        table.add_row(row["model"], f"{row['median_ms']:.3f}", spread, f"{row['ratio']:.3f}")
    Console().print(table)


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("model.onnx"),
    file_format: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    weights: Weights = None,
    input_shape: InputShape = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write an ONNX file with a free batch axis, compared with PyTorch.

    Example: `lighten export light --out light.onnx`
    """
    import torch

    from lighten.export.onnx import export_onnx
    from lighten.export.parity import check_parity
    from lighten.opening import open_model

    if file_format != "onnx":
        raise LightenError(f"cannot export to '{file_format}': known is onnx")
    if out.exists() and not force:
        raise LightenError(f"'{out}' exists: choose another --out, or replace it with --force")
    opened = open_model(model, weights)
    example = torch.randn_like(opened.example(input_shape, batch=16))
    export_onnx(opened.model, example[:2], out)
    parity = check_parity(opened.model, out, example)
    if as_json:
        print_json({"out": str(out), "format": file_format, "parity": asdict(parity)})
    else:
        word = "agrees" if parity.agrees else "DISAGREES"
        Console().print(f"{out}: {word} with PyTorch, relative error {parity.max_relative_error:.1e}", highlight=False)
    if not parity.agrees:
        raise LightenError(f"'{out}' doesn't agree with PyTorch: relative error {parity.max_relative_error:.2g}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A lightened network's folder.")], as_json: AsJson = False
) -> None:
    """Write the HTML page of a lightened network anew. Example: `lighten report light`"""
    from lighten.folder import REPORT, RESULTS
    from lighten.report.html import write_report
    from lighten.report.results import read_results

    write_report(read_results(folder / RESULTS), folder / REPORT)
    if as_json:
        print_json({"out": str(folder / REPORT)})
    else:
        Console().print(f"Report: {folder / REPORT}", highlight=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; it is replaced.")] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Train a small network on scikit-learn's digits, lighten it, and show what was gained (under 5 minutes)."""
    from lighten.demo import demo as run

    with progress_display() as show:
        made = run(out, show)
    show_outcome(made.results, out, as_json)


def show_outcome(results: Any, out: Path, as_json: bool) -> None:
    """Before and after, as a table or as JSON."""
    from lighten.report.console import print_summary
    from lighten.report.results import to_json

    if as_json:
        print_json(to_json(results) | {"out": str(out)})
    else:
        print_summary(results, out, Console())


def open_original(model: str, weights: str | None) -> Any:
    """The network to lighten; raises LightenError for a folder, which holds one that is lightened already."""
    from lighten.opening import open_model

    opened = open_model(model, weights)
    if opened.text is None:
        raise LightenError(f"'{model}' is lightened already: start from the original network with a tighter budget")
    return opened
