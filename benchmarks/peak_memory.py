"""Memory of activations: the naive sum, our prediction, and what ONNX Runtime allocates, on one image.

    python benchmarks/peak_memory.py [NETWORK …]

ONNX Runtime's own profiler tells how many bytes are requested of its allocator: what the third run holds at most, less
what stood before the first (the weights). From the second run on the memory pattern is in force. Weights are random.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

import lighten
from lighten.export.onnx import export_bytes
from lighten.measure.latency import machine
from lighten.measure.layer_times import profiled
from lighten.network.peak import peak_bytes
from lighten.network.record import record
from lighten.network.trace import sites_of

ROOT = Path(__file__).resolve().parent.parent
IMAGE = (1, 3, 224, 224)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: lighten.build_model("resnet20"), (1, 3, 32, 32)),
    "crnn": (lambda: lighten.build_model("crnn"), (1, 1, 32, 320)),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, IMAGE),
    "resnet50": (torchvision.models.resnet50, IMAGE),
    "mobilenet_v3_large": (torchvision.models.mobilenet_v3_large, IMAGE),
    "squeezenet1_1": (torchvision.models.squeezenet1_1, IMAGE),
    "densenet121": (torchvision.models.densenet121, IMAGE),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, IMAGE),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False), IMAGE),
    "mnasnet0_5": (torchvision.models.mnasnet0_5, IMAGE),
    "regnet_y_400mf": (torchvision.models.regnet_y_400mf, IMAGE),
    "shufflenet_v2_x1_0": (torchvision.models.shufflenet_v2_x1_0, IMAGE),
}


def allocated_bytes(model: nn.Module, example: Tensor) -> int | None:
    """What ONNX Runtime allocates for one run beside the weights; None where its profiler doesn't tell."""
    (_, first), *_, (_, last) = profiled(export_bytes(model, example), example, threads=1, runs=3)
    if "mem_bytes_requested_in_use" not in first[0]["args"]:
        return None
    start = int(first[0]["args"]["mem_bytes_requested_in_use"]) - int(first[0]["args"]["mem_requested_in_use_delta"])
    return max(int(node["args"]["mem_bytes_requested_in_use"]) for node in last) - start


def compare(name: str) -> dict[str, str | int | float | None]:
    """One line of the table."""
    build, shape = NETWORKS[name]
    model, example = build().eval(), torch.zeros(shape)
    found = record(model, example)
    row = {"network": name, "naive_bytes": sites_of(found).cost.activation_bytes, "peak_bytes": peak_bytes(found)}
    allocated = allocated_bytes(model, example)
    return row | {"onnxruntime_bytes": allocated, "ratio": row["peak_bytes"] / allocated if allocated else None}


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    names = parser.parse_args().networks
    torch.set_num_threads(1)
    print("| network | every layer's output, MB | our peak, MB | ONNX Runtime's, MB | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rows = []
    for name in names:
        rows.append(compare(name))
        naive, peak, allocated, ratio = list(rows[-1].values())[1:]
        told = f"{allocated / 1e6:.3f} | {ratio:.3f}" if allocated else "not told |"
        print(f"| {name} | {naive / 1e6:.2f} | {peak / 1e6:.3f} | {told} |", flush=True)
    result = {"machine": machine(threads=1), "rows": rows}
    if names == list(NETWORKS):
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (ROOT / "benchmarks" / "results" / "peak_memory.json").write_text(text + "\n")
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
