"""The commands that make a network: shrink, plan, train, demo, report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lighten.cli.app import (
    AsJson,
    Batch,
    BudgetText,
    DataText,
    Force,
    Keep,
    LearningRate,
    Memory,
    Methods,
    Model,
    OptionalBudget,
    Resume,
    Runtime,
    Seed,
    Threads,
    Weights,
    app,
    listed,
    print_json,
    progress_display,
)
from lighten.errors import LightenError


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
    learning_rate: LearningRate = None,
    optimizer: Annotated[str, typer.Option(help="Of recovery: sgd or muon.")] = "sgd",
    methods: Methods = "",
    keep: Keep = "",
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    seed: Seed = 0,
    memory: Memory = 2.0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Lighten a trained network within a budget: plan, repair, recover, verify, export.

    Example: `lighten shrink resnet20 --weights w.safetensors --data cifar10:PATH --budget 'latency<=0.5x' --out light`
    """
    from lighten.opening import data_for
    from lighten.plan.plan import load_plan
    from lighten.planning import Settings
    from lighten.recover.distil import Recipe
    from lighten.shrink import shrink as run

    opened = open_original(model, weights)
    with progress_display() as show:
        made = run(
            opened.model,
            data_for(model, data),
            budget or (),
            out=out,
            plan=load_plan(plan_file) if plan_file else None,
            name=opened.text,
            weights=origin(model, weights),
            settings=Settings(listed(methods), listed(keep), runtime, threads, batch, seed, int(memory * 2**30)),
            recipe=Recipe(epochs=epochs, minutes=minutes, learning_rate=learning_rate, seed=seed, optimizer=optimizer),
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
    from lighten.opening import data_for
    from lighten.planning import Settings, plan_network
    from lighten.report.results import to_json

    if out.exists() and not force:
        raise LightenError(f"'{out}' exists: choose another --out, or replace it with --force")
    opened = open_original(model, weights)
    settings = Settings(listed(methods), listed(keep), runtime, threads, batch, seed, int(memory * 2**30))
    with progress_display() as show:
        planned, results = plan_network(opened.model, data_for(model, data), budget, opened.text, settings, show)
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
def train(
    model: Model,
    data: DataText,
    out: Annotated[Path, typer.Option(help="Folder to write; it serves as MODEL afterwards.")],
    weights: Weights = None,
    epochs: Annotated[int, typer.Option(min=1, help="At the most.")] = 30,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="At the most.")] = None,
    recipe: Annotated[str, typer.Option(help="sgd or adamw, with options as sgd:mixup=0.2,label_smoothing=0")] = "sgd",
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="Peak; by default 0.1 (sgd), 0.002 (adamw), a tenth with --weights.")
    ] = None,
    rates: Annotated[str, typer.Option(help="Factors of it by part, as features=0.1,classifier=1; 0 freezes.")] = "",
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train from scratch, or further from `--weights`, whose last layer may be for other classes.

    A built-in network gets as many classes as the data, unless it is told otherwise. Options of the recipe:
    weight_decay, label_smoothing, mixup, cutmix, erase, average_decay, momentum, warmup, clip_norm.

    Example: `lighten train mobilenet_v2:stem_stride=1 --data cifar10:PATH --out runs/mobile --recipe sgd:mixup=0.2`
    """
    import torch

    from lighten.opening import data_for, open_to_train
    from lighten.train import train as run

    chosen = read_recipe(recipe, rates, epochs=epochs, minutes=minutes, learning_rate=learning_rate, seed=seed)
    loaded = data_for(model, data)
    torch.manual_seed(seed)
    opened = open_to_train(model, weights, loaded.num_classes)
    with progress_display() as show:
        made = run(
            opened.model,
            loaded,
            out=out,
            name=opened.text,
            weights=origin(model, weights),
            recipe=chosen,
            resume=resume,
            force=force,
            show=show,
        )
    show_training(made.results, out, as_json)


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
    if opened.is_lightened:
        raise LightenError(f"'{model}' is lightened already: start from the original network with a tighter budget")
    return opened


def show_training(results: Any, out: Path, as_json: bool) -> None:
    """The trained network's figures, as a table or as JSON."""
    from lighten.report.results import plain
    from lighten.report.training import print_training

    if as_json:
        print_json(plain(asdict(results)) | {"out": str(out)})
    else:
        print_training(results, out, Console())


def origin(model: str, weights: str | None) -> str | None:
    """What the weights came from, without its path: a file, or the folder of a trained network; None where fresh."""
    source = Path(weights or model)
    return source.resolve().name if weights or source.is_dir() else None


def read_recipe(text: str, rates: str, **fixed: Any) -> Any:
    """The recipe that `OPTIMIZER[:key=value,…]` and `part=factor,…` name; `fixed`: what has options of its own."""
    from lighten.references import check_options, split_options
    from lighten.train import TrainRecipe

    optimizer, options = split_options(text)
    check_options("--recipe", TrainRecipe, options, without=("optimizer", "rates", *fixed))
    try:
        factors = {part: float(factor) for part, factor in (pair.split("=") for pair in listed(rates))}
    except ValueError:
        raise LightenError(f"cannot read --rates '{rates}': write it as features=0.1,classifier=1") from None
    return TrainRecipe(optimizer=optimizer, rates=factors, **options, **fixed)
