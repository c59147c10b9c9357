"""Milliseconds of layers in their place in a network, each distinct one timed once per machine and kept in a file."""

import copy
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from lighten.errors import LightenError
from lighten.export.layers import random_like
from lighten.layers.parallel import Sum
from lighten.measure.latency import cpu_model, time_alternating
from lighten.network.cost import CONVOLUTIONS
from lighten.runtimes import find_runtime

LayerCall = tuple[nn.Module, tuple[int, ...]]
FORMAT = 1
SHORTEST_MS = 1e-4  # a layer that is lost in the noise still isn't free
MAX_GROUP = 32  # timed side by side, and lost when a run is interrupted


class LatencyTable:
    """Times of layers for one runtime, thread count and batch.

    What a layer costs in a network is not what it costs alone: a lone run adds the call from Python and the
    reordering of its input and output (about 7 µs, nearly as much as a depthwise separable layer of ResNet-20). So a
    convolution is timed in a frame, pointwise → ReLU → layer → ReLU → pointwise, as its neighbours would be, and the
    frame's own time is subtracted: 2 t(frame of p) − t(frame of p ∥ p) for a pointwise layer p of the same shapes.
    """

    def __init__(self, path: Path | None = None, runtime: str = "onnxruntime", threads: int = 1, batch: int = 1):
        self.path = Path(path) if path else default_path()
        self.runtime, self.threads, self.batch = find_runtime(runtime), threads, batch
        self.seconds = 0.03  # of timing per distinct layer
        self.times_ms = read_times(self.path)

    def measure(self, layers: Sequence[LayerCall], progress: Callable[[int, int], None] | None = None) -> list[float]:
        """Milliseconds of each (module, input shape without batch); `progress` is told how many are done, of how many.

        Layers of the same shapes are timed side by side; the file is written after each group of them.
        """
        keys = [self.key(*layer) for layer in layers]
        missing = {key: layer for key, layer in zip(keys, layers, strict=True) if key not in self.times_ms}
        num_done = 0
        for group in groups_by_shape(missing):
            self.times_ms |= self.time_group(group)
            self.times_ms = write_times(self.path, self.times_ms)
            num_done += len(group)
            if progress:
                progress(num_done, len(missing))
        return [self.times_ms[key] for key in keys]

    def key(self, module: nn.Module, input_shape: tuple[int, ...]) -> str:
        """All that a time depends on, as one line."""
        place = f"{cpu_model()} × {os.cpu_count()} | {self.runtime.name} {self.runtime.version()}"
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        return f"{place} | {self.threads} threads | batch {self.batch} | {list(input_shape)} {dtype} | {spec(module)}"

    def time_group(self, group: dict[str, LayerCall]) -> dict[str, float]:
        """Times of layers that share input and output shape, next to the frame that they are timed in."""
        module, input_shape = next(iter(group.values()))
        example = torch.randn(self.batch, *input_shape, generator=torch.Generator().manual_seed(0))

        def ready(framed: nn.Module) -> Callable[[], object]:
            return self.runtime.prepare(with_values(framed), example.to(dtype_of(module)), self.threads)

        reference = pointwise(module, input_shape)
        calls = {key: ready(frame(layer, shape)) for key, (layer, shape) in group.items()}
        if reference is None:
            calls["once"] = ready(nn.ReLU())
        else:
            calls["once"] = ready(frame(reference, input_shape))
            calls["twice"] = ready(frame(Sum([reference, copy.deepcopy(reference)]), input_shape))
        median_ms = {name: timing.median_ms for name, timing in time_alternating(calls, seconds=self.seconds).items()}
        frame_ms = 2 * median_ms["once"] - median_ms.get("twice", median_ms["once"])
        return {key: max(SHORTEST_MS, median_ms[key] - frame_ms) for key in group}


def spec(module: nn.Module) -> str:
    """The module tree as one line of text."""
    return re.sub(r"\s+", " ", repr(module))


def groups_by_shape(layers: dict[str, LayerCall]) -> list[dict[str, LayerCall]]:
    """Layers of the same input shape, output shape and dtype together, in groups of a bounded size."""
    found = defaultdict(list)
    for key, (module, shape) in layers.items():
        found[shape, output_shape(module, shape), dtype_of(module), first_convolution(module) is None].append(key)
    chunks = [keys[i : i + MAX_GROUP] for keys in found.values() for i in range(0, len(keys), MAX_GROUP)]
    return [{key: layers[key] for key in chunk} for chunk in chunks]


def frame(module: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """The module between neighbours: pointwise convolutions and ReLUs, or ReLUs alone where it has no convolution."""
    convolution = first_convolution(module)
    if convolution is None:
        return nn.Sequential(nn.ReLU(), module, nn.ReLU())
    kind, factory = CONVOLUTIONS[len(input_shape) - 2], {"device": "meta", "dtype": dtype_of(module)}
    num_in, num_out = input_shape[0], output_shape(module, input_shape)[0]
    before, after = kind(num_in, num_in, 1, **factory), kind(num_out, num_out, 1, **factory)
    return nn.Sequential(before, nn.ReLU(), module, nn.ReLU(), after)


def pointwise(module: nn.Module, input_shape: tuple[int, ...]) -> nn.Module | None:
    """A pointwise convolution from the module's input shape to about its output shape; None without convolutions."""
    if first_convolution(module) is None:
        return None
    num_out, *sizes = output_shape(module, input_shape)
    steps = [max(1, round(size / made)) for size, made in zip(input_shape[1:], sizes, strict=True)]
    kind = CONVOLUTIONS[len(input_shape) - 2]
    return kind(input_shape[0], num_out, 1, tuple(steps), device="meta", dtype=dtype_of(module))


def output_shape(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the batch axis, worked out on the meta device; raises LightenError where the module refuses the input."""
    try:
        with torch.no_grad():
            x = torch.empty(1, *input_shape, device="meta", dtype=dtype_of(module))
            return tuple(copy.deepcopy(module).to("meta")(x).shape[1:])
    except (RuntimeError, ValueError) as error:
        raise LightenError(f"can't time {spec(module)} on an input of shape {input_shape}: {error}") from error


def with_values(module: nn.Module) -> nn.Module:
    """A copy whose weights on the meta device are random ones of the usual scale; parameters aren't trained."""
    made = copy.deepcopy(module)
    for seed, part in enumerate(made.modules()):
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.is_meta:
                setattr(part, name, nn.Parameter(random_like(parameter, seed), requires_grad=False))
    return made


def first_convolution(module: nn.Module) -> nn.Module | None:
    """The first convolution in the module, or None."""
    return next((part for part in module.modules() if isinstance(part, CONVOLUTIONS)), None)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of the module's parameters; float32 where it has none."""
    return next((p.dtype for p in module.parameters()), torch.float32)


def default_path() -> Path:
    """The cache file of this user."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lighten" / "latency.json"


def read_times(path: Path) -> dict[str, float]:
    """Times that were kept; raises LightenError where the file is no cache of ours."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT:
            raise ValueError("its format is another one")
        return {str(key): float(value) for key, value in kept["times_ms"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        message = f"the latency cache '{path}' can't be read; delete it and the layers are timed anew"
        raise LightenError(message) from error


def write_times(path: Path, times_ms: dict[str, float]) -> dict[str, float]:
    """Keep the times, and those that another process has kept meanwhile; the file is replaced as a whole."""
    merged = read_times(path) | times_ms
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps({"format": FORMAT, "times_ms": merged}, indent=0, ensure_ascii=False), "utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return merged
