"""Where the time goes: each layer in PyTorch and in ONNX Runtime, beside its MACs and the limits of this machine.

    python benchmarks/layer_times.py [--threads 1] [--runs 50] [--only resnet20]

Nothing else should run on the machine. Weights are random.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from rich.console import Console
from torch import nn

import lighten
from lighten.measure.roofline import time_table

ROOT = Path(__file__).resolve().parent.parent
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: lighten.build_model("resnet20"), (1, 3, 32, 32)),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, (1, 3, 224, 224)),
    "crnn": (lambda: lighten.build_model("crnn"), (1, 1, 32, 320)),
}


def main() -> None:
    """Print a table for each network and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--only", choices=NETWORKS, help="print this one alone, and keep nothing")
    options = parser.parse_args()
    console, results = Console(width=140), []
    for name in [options.only] if options.only else NETWORKS:
        build, shape = NETWORKS[name]
        torch.manual_seed(0)
        table = time_table(build(), torch.randn(shape), options.threads, options.runs, name)
        console.print(table)
        results.append(table.as_dict())
    kept = {"runs": options.runs, "networks": results}
    if not options.only:
        text = json.dumps(kept, indent=1, ensure_ascii=False)
        (ROOT / "benchmarks" / "results" / "layer_times.json").write_text(text + "\n")
    totals = {found["title"]: [found["pytorch_ms"], found["onnxruntime_ms"]] for found in results}
    print(json.dumps({"runs": options.runs, "pytorch_and_onnxruntime_ms": totals}, ensure_ascii=False))


if __name__ == "__main__":
    main()
