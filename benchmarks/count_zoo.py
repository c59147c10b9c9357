"""Whether `lighten.count` agrees with PyTorch's FlopCounterMode on every classification network that people use.

    python benchmarks/count_zoo.py

All classification networks of torchvision, and 200 of timm that contain an nn.Conv2d, taken at random with a fixed
seed. Built on the meta device where the constructor allows it, else with random weights. For each: count runs; its
parameters are those of `model.parameters()`; its MACs of convolutions, linear layers, matrix products and attention are
half of what FlopCounterMode counts on a pass of its own. Keeps every figure, every operator without a formula, both
counts where they differ, and the reason where one fails.
"""

import argparse
import json
import random
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lighten

ROOT = Path(__file__).resolve().parent.parent
NUM_TIMM, SEED = 200, 0


def built(build: Callable[..., nn.Module], name: str) -> nn.Module:
    """The network with random weights, on the meta device if its constructor allows it."""
    try:
        with torch.device("meta"):
            return build(name).eval()
    except (NotImplementedError, RuntimeError):  # it computes with its weights
        return build(name).eval()


def torchvision_networks() -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """All for classification, with the input of their published weights."""
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(name).DEFAULT
        model = built(torchvision.models.get_model, name)
        size = getattr(model, "image_size", weights.transforms().crop_size[0])  # a transformer reads one size only
        yield f"torchvision/{name}", model, (3, size, size)


def timm_networks(number: int, seed: int) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """Convolutional ones in random order, with their usual input."""
    names = timm.list_models()
    random.Random(seed).shuffle(names)
    for name in names:
        if number == 0:
            return
        model = built(timm.create_model, name)
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):
            number -= 1
            yield f"timm/{name}", model, model.default_cfg["input_size"]


def half_of_flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    """FlopCounterMode's count of one pass.

    Without gradients, which its hooks stumble over, and the fast path of attention, which it doesn't know.
    """
    device = next(model.requires_grad_(False).parameters()).device
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def checked(name: str, model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Both counts of one network."""
    found: dict[str, Any] = {"network": name, "input": list(shape)}
    try:
        table = lighten.count(model, torch.zeros(1, *shape))
    except lighten.LightenError as error:
        return found | {"agrees": False, "reason": str(error)}
    params, macs = sum(p.numel() for p in model.parameters()), half_of_flops(model, shape)
    agrees = (table.total.params, table.total.macs) == (params, macs)
    found |= {"params": table.total.params, "macs": table.total.macs, "uncounted": table.uncounted, "agrees": agrees}
    if not agrees:
        found |= {"torch_params": params, "torch_macs": macs}
    return found


def main() -> None:
    """Check all, print the ones that differ, and keep every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "count_zoo.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for networks in (torchvision_networks(), timm_networks(NUM_TIMM, SEED)):
        for name, model, shape in networks:
            row = checked(name, model, shape)
            rows.append(row)
            if not row["agrees"] or row["uncounted"]:
                print(json.dumps(row), flush=True)
    print(keep(rows, out))


def keep(rows: list[dict[str, Any]], out: Path) -> str:
    """Write all figures, a line for each network; returns the summary."""
    versions = {package: metadata.version(package) for package in ("torch", "torchvision", "timm")}
    agreeing = sum(row["agrees"] for row in rows)
    summary = json.dumps({"seed": SEED, "versions": versions, "num_networks": len(rows), "agreeing": agreeing})
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    out.write_text(f'{summary[:-1]},\n "rows": [\n  {lines}\n ]}}\n')
    return summary


if __name__ == "__main__":
    main()
