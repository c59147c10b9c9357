"""The commands that look at a network: evaluate, bench, export."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lighten.cli.app import (
    AsJson,
    Batch,
    DataText,
    Force,
    InputShape,
    Model,
    Runtime,
    Threads,
    Weights,
    app,
    print_json,
)
from lighten.errors import LightenError


@app.command()
def evaluate(
    model: Model,
    data: DataText,
    weights: Weights = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy on the test data; of a recogniser of text lines, how much it reads.

    Example: `lighten evaluate zoo/resnet20-cifar10-latency0.5 --data cifar10:PATH`
    """
    from lighten.measure.accuracy import evaluate as measure
    from lighten.measure.text import evaluate_text
    from lighten.opening import data_for, open_model

    opened, loaded = open_model(model, weights), data_for(model, data)
    samples = loaded.test or loaded.held_out
    if loaded.alphabet is None:
        found = asdict(measure(opened.model, samples))
    else:
        text = evaluate_text(opened.model, samples, loaded.alphabet)
        found = {"metric": loaded.metric, "value": text.exact, **asdict(text)}
    if as_json:
        print_json({"model": opened.title, "data": data, **found})
        return
    line = f"{opened.title}: {found['metric']} {found['value']:.2f} % of {found['num_samples']:,}"
    if loaded.alphabet is not None:
        line += f", {found['ignoring_case_and_spaces']:.2f} % ignoring case and spaces, CER {found['cer']:.2f} %"
    Console().print(line, highlight=False)


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
