"""The commands that say what a network costs."""

from typing import Annotated

import typer
from rich.console import Console

from lighten.cli.app import AsJson, Model, app, print_json
from lighten.errors import LightenError

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
    shape: Annotated[str, typer.Option("--format", help="table, text, markdown, csv or json.")] = "table",
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

    if shape not in FORMATS:
        raise LightenError(f"there is no format '{shape}': known are {', '.join(FORMATS)}")
    limits = parse_limits(fail_if or [])
    opened = open_model(model)
    table = measure(
        opened.model,
        opened.example_of(inputs or []),
        convention=convention,
        explain=explain,
        strict=strict,
        title=opened.title,
    )
    if as_json or shape == "json":
        print_json(table.as_dict())
    elif shape == "table":
        Console().print(table)
    else:
        text = {"text": table.to_text, "markdown": table.to_markdown, "csv": table.to_csv}[shape]()
        typer.echo(text, nl=False)
    check_limits(table, limits)
