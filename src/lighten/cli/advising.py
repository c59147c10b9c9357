"""The command that says which layers are worth rewriting."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lighten.cli.app import AsJson, Model, Runtime, Threads, app, print_json, progress_display
from lighten.cli.costs import Inputs


@app.command()
def advise(
    model: Model,
    inputs: Inputs = None,
    timed: Annotated[bool, typer.Option("--time", help="Time every layer and its replacements, too.")] = False,
    runtime: Runtime = "onnxruntime",
    threads: Threads = 1,
    details: Annotated[bool, typer.Option("--details", help="A row for each rewrite of each layer.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Chart of dense ÷ separable: .html, .svg or .png.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of measuring for the chart; fewer points in less.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Which rewrites of each layer pay, by formula and by the clock; no data and no weights are needed.

    Example: `lighten advise resnet20 --time`
    """
    from lighten.advise import advise as judge
    from lighten.advise import place_of
    from lighten.measure.latency import machine
    from lighten.measure.latency_table import LatencyTable
    from lighten.opening import open_model
    from lighten.progress import Stages
    from lighten.report.separable_chart import check_chart_path, measure_points, write_chart

    if plot:
        check_chart_path(plot)
    clock = LatencyTable(None, runtime, threads)
    opened = open_model(model)
    points = []
    with progress_display() as show:
        stages = Stages(show)
        with stages.stage("advise"):
            advice = judge(
                opened.model,
                opened.example_of(inputs or []),
                clock=clock if timed else None,
                title=opened.title,
                on_progress=stages.count,
            )
        if plot:
            with stages.stage("plot"):
                points = measure_points(clock, seconds=seconds, on_progress=stages.count)
                write_chart(points, f"{machine()['cpu']}, {place_of(clock)}", plot)
    if as_json:
        found = advice.as_dict()
        found |= {"machine": machine(threads)} if timed else {}
        print_json(found | ({"plot": str(plot), "num_points": len(points)} if plot else {}))
        return
    Console().print(advice.details() if details else advice)
    if plot:
        Console().print(f"Chart: {plot}", soft_wrap=True, highlight=False, markup=False)
