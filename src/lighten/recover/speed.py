"""The fastest way to train this network on this machine, by the clock."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lighten.recover.composed import composed
from lighten.training.run import channels_last_of

NUM_STEPS = 3
MAX_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Way:
    """precision: as lightning-fabric names it; composed: through the equivalent dense kernels."""

    precision: str
    composed: bool


def fastest_way(
    lighter: nn.Module, original: nn.Module, example: Tensor, names: Sequence[str], precision: str | None = None
) -> Way:
    """The fastest of bf16 and fp32, layer by layer and composed, over a few steps; `precision` fixes the first."""
    trial = deepcopy(lighter).train().to(memory_format=torch.channels_last)
    inputs = example[:MAX_IMAGES].contiguous(memory_format=channels_last_of(example))
    precisions = [precision] if precision else ["bf16-mixed", "32-true"]
    ways = [Way(p, c) for p in precisions for c in ((True, False) if names else (False,))]
    seconds = {}
    for way in ways:
        with composed(trial, original, names if way.composed else ()):
            seconds[way] = min(step_seconds(trial, inputs, way.precision) for _ in range(NUM_STEPS))
    return min(ways, key=seconds.__getitem__)


def step_seconds(model: nn.Module, inputs: Tensor, precision: str) -> float:
    """Of one pass forward and back."""
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = model(inputs).float().square().mean()
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - start
