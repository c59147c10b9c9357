"""ResNet-20 and ResNet-56 on CIFAR-10 within budgets: every case's bar, what was reached, and the folder in zoo/.

    python benchmarks/resnet_cifar10.py --shared ../shared/data resnet20-macs2-untrained resnet20-latency
    python benchmarks/resnet_cifar10.py --table

Plans are chosen and training is stopped on a slice of the training images; the test images are looked at once, by
`shrink` itself, at the end. Each case writes benchmarks/results/CASE.json; `--resume` goes on with a broken run.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import lighten
from lighten.models.weights import load_weights

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Case:
    """A job and its bars: top-1 on all 10,000 test images, and where it has one, the measured latency ratio."""

    model: str
    budget: str
    folder: str
    accuracy: float
    epochs: int = 0
    minutes: float | None = None
    learning_rate: float = 0.03
    latency_ratio: float | None = None
    optimizer: str = "sgd"
    temperature: float = 1.0


CASES = {
    "resnet20-macs1.37-untrained": Case("resnet20", "macs<=0.7299x", "resnet20-cifar10-macs0.73-untrained", 91.4),
    "resnet20-macs2-untrained": Case("resnet20", "macs<=0.5x", "resnet20-cifar10-macs0.5-untrained", 90.0),
    "resnet20-macs2.84": Case("resnet20", "macs<=0.3521x", "resnet20-cifar10-macs0.352", 91.0, 40, 25, 0.01),
    "resnet20-latency": Case("resnet20", "latency<=0.5x", "resnet20-cifar10-latency0.5", 91.0, 40, 25, 0.01, 0.52),
    "resnet56-macs2.57": Case(
        "resnet56", "macs<=0.3891x", "resnet56-cifar10-macs0.389", 93.2, 40, 57, 0.0015, None, "muon", 4.0
    ),
}


def run(name: str, shared: Path, resume: bool) -> None:
    """One job; its folder goes to zoo/, its figures to results/."""
    case = CASES[name]
    weights = shared / "resnet_cifar10" / f"{case.model}.safetensors"
    model = lighten.build_model(case.model)
    load_weights(model, weights)
    made = lighten.shrink(
        model,
        lighten.load_data(f"cifar10:{shared / 'cifar10'}"),
        case.budget,
        out=ROOT / "zoo" / case.folder,
        name=case.model,
        weights=weights.name,
        settings=lighten.Settings(temperature=case.temperature),
        recipe=lighten.Recipe(
            epochs=case.epochs, minutes=case.minutes, learning_rate=case.learning_rate, optimizer=case.optimizer
        ),
        resume=resume,
        force=True,
        show=lambda stage, share, words: print(f"\r{stage} {share:6.1%} {words}", end="", file=sys.stderr, flush=True),
    )
    (RESULTS / f"{name}.json").write_text(json.dumps(figures(name, case, made.results), indent=2) + "\n")


def figures(name: str, case: Case, results) -> dict:
    """What was reached beside the bars."""
    before, after = results.before, results.after
    ratio = after.latency_ms / before.latency_ms
    met = after.accuracy >= case.accuracy and (case.latency_ratio is None or ratio <= case.latency_ratio)
    return {
        "case": name,
        "budget": case.budget,
        "bar": {"accuracy": case.accuracy, "latency_ratio": case.latency_ratio},
        "met": met,
        "accuracy_before": before.accuracy,
        "accuracy_untrained": after.accuracy_untrained,
        "accuracy": after.accuracy,
        "macs_ratio": before.macs / after.macs,
        "params_ratio": before.params / after.params,
        "latency_ratio": ratio,
        "latency_ms": [before.latency_ms, after.latency_ms],
        "epochs": len(results.recovery),
        "seconds": results.seconds,
        "machine": results.machine,
    }


def table() -> None:
    """All kept results as a Markdown table."""
    print("| case | accuracy before | untrained | recovered | bar | MACs | time | minutes of recovery |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in CASES:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        minutes = found["seconds"].get("recover", 0) / 60
        print(
            f"| {name} | {found['accuracy_before']:.2f} % | {found['accuracy_untrained']:.2f} % "
            f"| {found['accuracy']:.2f} % | {found['bar']['accuracy']:.1f} % | 1/{found['macs_ratio']:.2f} "
            f"| {found['latency_ratio']:.2f}× | {minutes:.0f} |"
        )


def main() -> None:
    """Run the named cases, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--cores", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.cores)
    for name in arguments.cases:
        run(name, arguments.shared, arguments.resume)
    if arguments.table or not arguments.cases:
        table()


if __name__ == "__main__":
    main()
