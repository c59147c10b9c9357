"""How near each layer comes to what this machine can do: the roofline model (Williams, Waterman & Patterson 2009).

A layer is bound by arithmetic or by memory: attainable FLOP/s = min(peak FLOP/s, intensity × bandwidth). Both limits
are measured here, with PyTorch's own kernels.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich import box
from rich.table import Table
from torch import Tensor, nn

from lighten.measure.latency import machine
from lighten.measure.layer_times import LayerTimes, layer_times, pinned
from lighten.network.cost import Cost
from lighten.network.trace import Site, trace

MATRIX_SIZES = (256, 512, 1024)
IMAGE = (1, 128, 56, 56)
TRIAD_NUMEL = 2**25  # 128 MiB per array: four times a large cache (McCalpin 1995)
NUM_TRIES = 10


@dataclass(frozen=True, slots=True)
class Roof:
    """What this machine reaches on `threads` threads in float32: 10⁹ operations, and 10⁹ bytes, per second."""

    threads: int
    peak_gflops: float
    bandwidth_gbps: float

    def attainable_gflops(self, intensity: float) -> float:
        """intensity: operations per byte."""
        return min(self.peak_gflops, intensity * self.bandwidth_gbps)

    def least_ms(self, cost: Cost) -> float:
        """The time that a layer can't beat; `2 · macs / attainable`, and of one without MACs what its bytes take."""
        moved = cost.input_bytes + cost.activation_bytes + cost.weight_bytes
        return max(2 * cost.macs / self.peak_gflops, moved / self.bandwidth_gbps) / 1e6

    def limit(self, cost: Cost) -> str:
        """What bounds a layer: `compute` or `memory`."""
        return "compute" if cost.intensity * self.bandwidth_gbps >= self.peak_gflops else "memory"


@functools.cache
def measure_roof(threads: int = 1) -> Roof:
    """The roof of this machine; takes about a second and 400 MB, once in a process for each thread count."""
    with pinned(threads), torch.inference_mode():
        return Roof(threads, peak_gflops(), bandwidth_gbps())


def peak_gflops() -> float:
    """The best of several runs of matrix products and of a convolution."""
    image, weight = torch.ones(IMAGE), torch.ones(IMAGE[1], IMAGE[1], 3, 3)
    num_operations = 2 * image.numel() * IMAGE[1] * 9
    found = [num_operations / best_ns(lambda: F.conv2d(image, weight, padding=1))]
    for size in MATRIX_SIZES:
        a, b, out = (torch.ones(size, size) for _ in range(3))
        found.append(2 * size**3 / best_ns(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))
    return max(found)


def bandwidth_gbps() -> float:
    """The triad a = b + s·c, which moves three arrays (McCalpin 1995)."""
    a, b, c = (torch.ones(TRIAD_NUMEL) for _ in range(3))
    return 3 * a.nbytes / best_ns(lambda: torch.add(b, c, alpha=2.0, out=a))


def best_ns(call: Callable[[], object]) -> int:
    """The shortest of several runs, after one that warms up."""
    call()
    found = []
    for _ in range(NUM_TRIES):
        start = time.perf_counter_ns()
        call()
        found.append(time.perf_counter_ns() - start)
    return min(found)


@dataclass(frozen=True, slots=True)
class TimeRow:
    """A layer's time beside its work. The shares are of the whole network, the last one of the layer's own limit.

    share_of_time, gflops, share_of_limit: in ONNX Runtime; None where it has no time, being fused into another.
    share_of_limit is above 1 where the data stay in the caches, or where a norm or activation is fused away.
    """

    name: str
    kind: str
    pytorch_ms: float | None
    onnxruntime_ms: float | None
    share_of_time: float | None
    share_of_macs: float
    gflops: float | None
    limit: str
    share_of_limit: float | None


@dataclass(frozen=True, slots=True)
class TimeTable:
    """All layers of a network on one machine. pytorch_others_ms, onnxruntime_others_ms: {what is no layer: ms}."""

    title: str
    rows: tuple[TimeRow, ...]
    pytorch_ms: float
    onnxruntime_ms: float
    pytorch_others_ms: dict[str, float]
    onnxruntime_others_ms: dict[str, float]
    roof: Roof
    machine: dict[str, str | int]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)

    def __rich__(self) -> Table:
        table = Table(
            title=self.title, caption=self.caption(), caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("layer", overflow="fold", min_width=14)
        table.add_column("kind")
        for name in ("PyTorch\nms", "ONNX\nRuntime\nms", "share\nof time", "share\nof MACs", "GFLOP/s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("limit", no_wrap=True)
        table.add_column("share\nof limit", justify="right", no_wrap=True)
        for row in self.rows:
            times = (row.pytorch_ms, row.onnxruntime_ms)
            table.add_row(
                *(row.name or "(whole)", row.kind, *(text(ms, "{:.3f}") for ms in times)),
                *(text(row.share_of_time, "{:.1%}"), f"{row.share_of_macs:.1%}"),
                *(text(row.gflops, "{:.1f}"), row.limit, text(row.share_of_limit, "{:.0%}")),
            )
        return table

    def caption(self) -> str:
        """The totals, what belongs to no layer, and the machine's limits."""
        others = [(self.pytorch_others_ms, "PyTorch"), (self.onnxruntime_others_ms, "ONNX Runtime")]
        lines = [f"whole pass: {self.pytorch_ms:.3f} ms in PyTorch, {self.onnxruntime_ms:.3f} ms in ONNX Runtime"]
        for found, runtime in others:
            lines += [f"no layer, {runtime}: {what}, {ms:.3f} ms" for what, ms in found.items()]
        roof = self.roof
        lines.append(
            f"measured limits (threads: {roof.threads}): {roof.peak_gflops:.1f} GFLOP/s, {roof.bandwidth_gbps:.1f} GB/s"
        )
        return "\n".join(lines)


def text(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else form.format(value)


def time_table(
    model: nn.Module, example: Tensor, threads: int = 1, runs: int = 20, title: str | None = None
) -> TimeTable:
    """Time of each layer in PyTorch and in ONNX Runtime, beside its MACs and its limit, on one sample of (N, …).

    Raises LightenError where the model fails or can't be exported.
    """
    sites = trace(model, example).sites
    pytorch, onnxruntime = (layer_times(model, example, name, threads, runs) for name in ("pytorch", "onnxruntime"))
    return table_of(title or type(model).__name__, sites, pytorch, onnxruntime, measure_roof(threads))


def table_of(
    title: str, sites: tuple[Site, ...], pytorch: LayerTimes, onnxruntime: LayerTimes, roof: Roof
) -> TimeTable:
    """What was measured, joined by the layers' names. A layer whose type isn't timed on its own has no times."""
    all_macs = sum(site.cost.macs for site in sites) or 1
    all_ms = sum(onnxruntime.layers_ms.values()) + sum(onnxruntime.others_ms.values())
    rows = []
    for site in sites:
        ms = onnxruntime.layers_ms.get(site.name)
        rows.append(
            TimeRow(
                site.name,
                site.kind,
                pytorch.layers_ms.get(site.name),
                ms,
                ms / all_ms if ms is not None else None,
                site.cost.macs / all_macs,
                2 * site.cost.macs / ms / 1e6 if ms and site.cost.macs else None,
                roof.limit(site.cost),
                roof.least_ms(site.cost) / ms if ms else None,
            )
        )
    return TimeTable(
        title,
        tuple(rows),
        pytorch.total_ms,
        onnxruntime.total_ms,
        pytorch.others_ms,
        onnxruntime.others_ms,
        roof,
        machine(roof.threads),
    )
