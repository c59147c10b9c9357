"""The same network with dense, depthwise separable, blueprint or spatially separable convolutions, trained alike.

    python benchmarks/convolutions_cifar10.py --shared ../shared/data            # trains what isn't trained yet
    python benchmarks/convolutions_cifar10.py --time --table --plot

ResNet-20 on CIFAR-10 from random weights: same images in the same order, same recipe, same number of steps, three
seeds. `narrow` is the dense network with fewer channels, at about the MACs of the depthwise separable one: what a
user could have had without any separable layer. The stem and the head are dense in all. The epoch that is best on the
held-out training images counts, and the test images are looked at once per run. A broken run goes on from its
checkpoint in runs/. Two processes with one thread each, `--turn 0` and `--turn 1`, are done sooner than one with two
threads. The plot needs the package kaleido and a Chromium.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from plotly.subplots import make_subplots
from torch import nn

import lighten
from lighten.layers.separable import BlueprintU, DepthwiseSeparable, SpatialSeparable
from lighten.measure.latency import machine, time_networks
from lighten.network.trace import trace
from lighten.report.charts import COLOURS, KEPT, SPARE, TEMPLATE
from lighten.train import TrainRecipe, fit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "convolutions_cifar10.json"
PLOT = ROOT / "docs" / "convolutions.svg"
SEEDS = (0, 1, 2)
RECIPE = TrainRecipe(epochs=6, learning_rate=0.1, weight_decay=5e-4, label_smoothing=0.0, average_decay=0.0)
KINDS: dict[str, Callable[..., nn.Module] | None] = {  # of a 3×3 convolution with its norm; None: as it is
    "dense": None,
    "depthwise": DepthwiseSeparable,
    "blueprint": BlueprintU,
    "spatial": SpatialSeparable,
    "narrow": None,
}
NARROW = 6  # channels of the first stage, 16 in the others


def network(kind: str) -> nn.Module:
    """ResNet-20 whose residual blocks have convolutions of this kind, all drawn from the same distribution."""
    model = lighten.build_model("resnet20", width=NARROW if kind == "narrow" else 16)
    make = KINDS[kind]
    for stage in (model.layer1, model.layer2, model.layer3):
        for block in stage if make else ():
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
                old = getattr(block, conv)
                new = make(old.in_channels, old.out_channels, 3, old.stride[0], activation=None)
                setattr(block, conv, new)
                setattr(block, norm, nn.Identity())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model


def train(kind: str, seed: int, data: lighten.Data) -> dict:
    """One run from random weights, or the rest of a broken one."""
    torch.manual_seed(seed)
    model = network(kind)
    checkpoint = ROOT / "runs" / "convolutions" / f"{kind}-{seed}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def show(stage: str, share: float, words: str) -> None:
        print(f"\r{kind} {seed}: {share:6.1%} {words}", end="", file=sys.stderr, flush=True)

    recipe = TrainRecipe(**asdict(RECIPE) | {"seed": seed})
    progress = fit(model, data, recipe, show, checkpoint, resume=True)
    found = {"kind": kind, "seed": seed, "accuracy": lighten.evaluate(model, data.test).value}
    return found | {"seconds": progress.seconds, "best_epoch": progress.best_epoch, "history": progress.history}


def costs() -> dict[str, dict]:
    """Parameters and MACs of each kind."""
    found = {kind: trace(network(kind), torch.zeros(1, 3, 32, 32)).cost for kind in KINDS}
    return {kind: {"params": cost.params, "macs": cost.macs} for kind, cost in found.items()}


def latencies() -> dict[str, dict]:
    """Milliseconds of all kinds side by side, in both runtimes with one and two threads."""
    example = torch.randn(1, 3, 32, 32)
    networks = {kind: (network(kind).eval(), example) for kind in KINDS}
    found: dict[str, dict] = {kind: {} for kind in KINDS}
    for runtime in ("onnxruntime", "openvino"):
        for threads in (1, 2):
            for kind, timing in time_networks(networks, runtime, threads, seconds=4.0).items():
                found[kind][f"{runtime}-{threads}"] = asdict(timing)
    return found


def results() -> dict:
    """What is kept."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


def keep(**values: object) -> None:
    """Put values into the file as it stands now: another process may have written to it."""
    kept = results() | {"costs": costs(), "recipe": asdict(RECIPE), "machine": machine(2)} | values
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


def train_missing(shared: Path, turn: int | None) -> None:
    """All runs that aren't kept, or those whose turn it is: every second of all."""
    data = lighten.load_data(f"cifar10:{shared / 'cifar10'}")
    for index, (seed, kind) in enumerate(itertools.product(SEEDS, KINDS)):
        done = {(run["kind"], run["seed"]) for run in results()["runs"]}
        if (kind, seed) not in done and turn in (None, index % 2):
            run = train(kind, seed, data)
            keep(runs=[*results()["runs"], run])


def table(kept: dict) -> None:
    """Everything in one Markdown table; ratios to dense."""
    print("| convolutions | accuracy, mean of 3 (range) | parameters | MACs | ORT 1 / 2 threads | OpenVINO 1 / 2 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        accuracies = [run["accuracy"] for run in kept["runs"] if run["kind"] == kind]
        if not accuracies:
            continue
        cost, times = kept["costs"][kind], kept.get("latencies", {})
        cells = [
            " / ".join(
                f"{times[kind][key]['median_ms']:.3f} ms" if times else "–" for key in (f"{runtime}-1", f"{runtime}-2")
            )
            for runtime in ("onnxruntime", "openvino")
        ]
        spread = f"{min(accuracies):.2f}–{max(accuracies):.2f}"
        print(
            f"| {kind} | {statistics.mean(accuracies):.2f} % ({spread}) | {cost['params']:,} | {cost['macs']:,} "
            f"| {' | '.join(cells)} |"
        )


def plot(kept: dict) -> None:
    """Accuracy over MACs and over measured time, ranges over the seeds as bars."""
    axes = [
        ("MACs", [5e6, 1e7, 2e7, 4e7], {kind: kept["costs"][kind]["macs"] for kind in KINDS}),
        (
            "ms in ONNX Runtime, 1 thread",
            [0.2, 0.3, 0.5, 0.8],
            {kind: kept["latencies"][kind]["onnxruntime-1"]["median_ms"] for kind in KINDS},
        ),
    ]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (title, ticks, values) in enumerate(axes, start=1):
        for kind, colour in zip(KINDS, (KEPT, *list(COLOURS.values())[1:4], SPARE[0]), strict=True):
            accuracies = [run["accuracy"] for run in kept["runs"] if run["kind"] == kind]
            mean = statistics.mean(accuracies)
            spread = {"array": [max(accuracies) - mean], "arrayminus": [mean - min(accuracies)], "symmetric": False}
            figure.add_scatter(
                x=[values[kind]],
                y=[mean],
                error_y=spread,
                name=kind,
                text=[kind],
                mode="markers+text",
                textposition="middle right",
                showlegend=False,
                marker={"size": 11, "color": colour},
                row=1,
                col=column,
            )
        span = [math.log10(0.85 * min(values.values())), math.log10(1.35 * max(values.values()))]
        figure.update_xaxes(title=title, type="log", range=span, tickvals=ticks, row=1, col=column)
    figure.update_yaxes(title="Accuracy (%)", row=1, col=1)
    figure.update_layout(template=TEMPLATE, width=900, height=380)
    figure.write_image(PLOT)


def main() -> None:
    """Train what is missing, then what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--turn", type=int, choices=(0, 1), help="train every second run, in a process with one thread")
    parser.add_argument("--time", action="store_true", help="time the networks; nothing else should run")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", action="store_true", help="draw docs/convolutions.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(2 if arguments.turn is None else 1)
    if not (arguments.time or arguments.table or arguments.plot):
        train_missing(arguments.shared, arguments.turn)
    if arguments.time:
        keep(latencies=latencies())
    kept = results()
    table(kept)
    if arguments.plot:
        plot(kept)


if __name__ == "__main__":
    main()
