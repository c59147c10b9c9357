"""What planning costs as networks grow deeper: moments, variants, latency (cache warm) and solve, in seconds.

    python benchmarks/planning_cost.py --shared ../shared/data

The budget is latency<=0.5x; the latency cache is filled first, then read for the figure that counts. ResNet-32 and -44
have random weights, since planning takes as long whatever the weights are.
"""

import argparse
import json
from pathlib import Path

import torch

import lighten
from lighten.measure.latency import machine
from lighten.measure.latency_table import LatencyTable
from lighten.models.weights import load_weights
from lighten.plan.budget import parse_budget
from lighten.planning import absolute_limits, make_plan, prepare, time_all
from lighten.progress import Stages

ROOT = Path(__file__).resolve().parent.parent
BARS = {"resnet20": 60.0, "resnet56": 240.0}


def planning_seconds(name: str, shared: Path, data: lighten.Data) -> dict:
    """Seconds of each stage with a warm latency cache."""
    model = lighten.build_model(name)
    weights = shared / "resnet_cifar10" / f"{name}.safetensors"
    if weights.exists():
        load_weights(model, weights)
    model.to(memory_format=torch.channels_last)
    bounds = parse_budget("latency<=0.5x")
    stages, cold = Stages(), Stages()
    prepared = prepare(model, name, data, lighten.Settings(), stages)
    time_all(prepared, cold)
    prepared.is_timed, prepared.original = False, None
    prepared.table = LatencyTable(None, prepared.table.runtime.name, prepared.table.threads, prepared.table.batch)
    make_plan(prepared, absolute_limits(bounds, prepared, stages), stages)
    total = sum(stages.seconds.values())
    num_variants = sum(map(len, prepared.variants.values()))
    found = {"network": name, "num_sites": len(prepared.variants), "num_variants": num_variants, "seconds": total}
    return found | {
        "stages": stages.seconds,
        "cold_latency": cold.seconds["latency"],
        "bar": BARS.get(name),
        "met": total <= BARS.get(name, total),
    }


def main() -> None:
    """Measure all four depths, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    shared = parser.parse_args().shared
    torch.set_num_threads(2)
    data = lighten.load_data(f"cifar10:{shared / 'cifar10'}")
    rows = [planning_seconds(f"resnet{depth}", shared, data) for depth in (20, 32, 44, 56)]
    (ROOT / "benchmarks" / "results" / "planning_cost.json").write_text(
        json.dumps({"rows": rows, "machine": machine(2)}, indent=1) + "\n"
    )
    print("| network | sites | variants | seconds | per site | bar |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        per_site = row["seconds"] / row["num_sites"]
        bar = f"{row['bar']:.0f}" if row["bar"] else "–"
        print(
            f"| {row['network']} | {row['num_sites']} | {row['num_variants']} | {row['seconds']:.1f} "
            f"| {per_site:.2f} | {bar} |"
        )


if __name__ == "__main__":
    main()
