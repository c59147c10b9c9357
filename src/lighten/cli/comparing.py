"""The commands that judge networks by what they are: compare, lint."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lighten.cli.app import AsJson, Model, Runtime, Threads, app, check_format, print_json
from lighten.cli.costs import Inputs
from lighten.errors import LightenError

if TYPE_CHECKING:
    from torch import nn

    from lighten.network.record import Example
    from lighten.opening import Opened
    from lighten.plan.plan import Plan

FORMATS = ("table", "text", "markdown", "json")


@app.command()
def compare(
    first: Model,
    second: Annotated[str | None, typer.Argument(help="As FIRST; a lightened folder needs none.")] = None,
    inputs: Inputs = None,
    time: Annotated[bool, typer.Option("--time", help="Time both networks and their layers too.")] = False,
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of timing, per network.")] = 3.0,
    shape: Annotated[str, typer.Option("--format", help="table, text, markdown or json.")] = "table",
    as_json: AsJson = False,
) -> None:
    """Costs before and after, layer against layer; a lightened folder alone is compared with its original.

    Example: `lighten compare zoo/resnet20-cifar10-latency0.5`
    """
    from lighten.measure.latency import machine
    from lighten.network.compare import compare as measure
    from lighten.network.count import count

    check_format(shape, FORMATS)
    before, after, plan = opened_pair(first, second)
    examples = [opened.example_of(inputs or []) for opened in (before, after)]
    tables = [count(o.model, example, title=o.title) for o, example in zip((before, after), examples, strict=True)]
    networks = {"before": (before.model, examples[0]), "after": (after.model, examples[1])}
    times = latencies(networks, runtime, threads, seconds) if time else None
    layers = layer_latencies(networks, runtime, threads) if time else None
    compared = measure(tables[0], tables[1], plan, times, layers)
    settings = {"runtime": runtime, "seconds": seconds, "machine": machine(threads)} if time else {}
    if as_json or shape == "json":
        print_json(compared.as_dict() | settings)
    elif shape == "table":
        Console().print(compared)
    else:
        typer.echo(compared.to_text() if shape == "text" else compared.to_markdown(), nl=False)


def opened_pair(first: str, second: str | None) -> "tuple[Opened, Opened, Plan | None]":
    """The networks before and after, and the plan where it made the one of the other.

    Raises LightenError where there is no second one, and the first wasn't lightened.
    """
    from lighten.folder import PLAN
    from lighten.opening import open_model
    from lighten.plan.plan import load_plan

    after = open_model(second or first)
    if second is None and not after.is_lightened:
        raise LightenError(f"'{first}' isn't the folder of a lightened network: name another one to compare it with")
    before = open_model(first if second else str(after.text))
    is_made_of_it = after.is_lightened and not before.is_lightened and before.text == after.text
    return before, after, load_plan(Path(second or first) / PLAN) if is_made_of_it else None


def latencies(
    networks: "dict[str, tuple[nn.Module, Example]]", runtime: str, threads: int, seconds: float
) -> tuple[float, float]:
    """Milliseconds of the networks `before` and `after`, timed in turns.

    Raises LightenError where they don't take a single tensor.
    """
    from torch import Tensor

    from lighten.measure.latency import time_networks

    single = {side: (model, example) for side, (model, example) in networks.items() if isinstance(example, Tensor)}
    if len(single) < len(networks):
        raise LightenError("--time knows networks of one input only: leave it out, or give --input once, unnamed")
    timings = time_networks(single, runtime, threads, seconds=seconds)
    return timings["before"].median_ms, timings["after"].median_ms


def layer_latencies(
    networks: "dict[str, tuple[nn.Module, Example]]", runtime: str, threads: int
) -> tuple[dict[str, float], dict[str, float]] | None:
    """{layer: ms} within both networks; None for a runtime that can't tell."""
    from lighten.measure.layer_times import PASSES, layer_times

    if runtime not in PASSES:
        return None
    before, after = (layer_times(model, example, runtime, threads).layers_ms for model, example in networks.values())
    return before, after


@app.command()
def lint(
    model: Model,
    inputs: Inputs = None,
    as_json: AsJson = False,
) -> None:
    """What a network does for nothing: wasted padding, redundant biases and norms, odd widths, fixed resolutions.

    Example: `lighten lint crnn_separable`
    """
    from lighten.network.lint import lint as measure
    from lighten.opening import open_model

    opened = open_model(model)
    findings = measure(opened.model, opened.example_of(inputs or []))
    if as_json:
        print_json({"model": opened.title, "findings": [asdict(finding) for finding in findings]})
        return
    if not findings:
        Console().print(f"{opened.title}: nothing found", highlight=False)
        return
    table = Table("layer", "rule", "finding", "saves", title=opened.title)
    for it in findings:
        saved = [f"{amount:,} {unit}" for amount, unit in ((it.macs, "MACs"), (it.params, "parameters")) if amount]
        table.add_row(it.layer or "(whole)", it.rule, Text(it.message), ", ".join(saved))
    Console().print(table)
