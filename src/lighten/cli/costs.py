"""The commands that say what a network costs."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lighten.cli.app import AsJson, Model, Threads, app, check_format, print_json
from lighten.errors import LightenError

if TYPE_CHECKING:
    from lighten.measure.roofline import TimeTable
    from lighten.network.record import Example
    from lighten.opening import Opened

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Input shape with the batch first, as 1x3x224x224, or ids=1x128:int64; may be repeated.",
    ),
]
FORMATS = ("table", "text", "markdown", "csv", "json")


@app.command()
def count(
    model: Model,
    inputs: Inputs = None,
    convention: Annotated[str, typer.Option(help="macs, flops, torchinfo, fvcore, ptflops or thop.")] = "macs",
    explain: Annotated[str | None, typer.Option(help="Another convention: say where the two part.")] = None,
    per_call: Annotated[bool, typer.Option("--per-call", help="A row for each call of a layer.")] = False,
    shape: Annotated[str, typer.Option("--format", help="table, text, markdown, csv or json.")] = "table",
    timed: Annotated[
        bool, typer.Option("--time", help="Time every layer too, and how far it is from its limit.")
    ] = False,
    threads: Threads = 1,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where an operator has no formula.")] = False,
    fail_if: Annotated[list[str] | None, typer.Option(help="As 'macs>600M'; may be repeated; exit code 3.")] = None,
    as_json: AsJson = False,
) -> None:
    """Parameters, MACs, activations and memory, per layer and in total.

    Example: `lighten count resnet56 --fail-if 'macs>130M'`
    """
    from lighten.network.count import count as measure
    from lighten.network.limits import check_limits, parse_limits
    from lighten.opening import open_model

    check_format(shape, FORMATS)
    limits = parse_limits(fail_if or [])
    opened = open_model(model)
    example = opened.example_of(inputs or [])
    table = measure(
        opened.model,
        example,
        convention=convention,
        explain=explain,
        per_call=per_call,
        strict=strict,
        title=opened.title,
    )
    times = time_layers(opened, example, threads) if timed else None
    if as_json or shape == "json":
        print_json(table.as_dict() | ({"times": times.as_dict()} if times else {}))
    elif shape == "table":
        Console().print(table)
    else:
        text = {"text": table.to_text, "markdown": table.to_markdown, "csv": table.to_csv}[shape]()
        typer.echo(text, nl=False)
    if times and not as_json and shape != "json":
        Console().print(times)
    check_limits(table, limits)


def time_layers(opened: "Opened", example: "Example", threads: int) -> "TimeTable":
    """Times per layer; raises LightenError where the network needs more than one tensor."""
    from torch import Tensor

    from lighten.measure.roofline import time_table

    if not isinstance(example, Tensor):
        raise LightenError(f"times per layer need a network of one input tensor; '{opened.title}' has {len(example)}")
    return time_table(opened.model, example, threads, title=opened.title)
