"""Time on this machine's clock: whole networks side by side, and layers in their place, kept in a cache file."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import Tensor, nn

from lighten.runtimes import find_runtime

Call = Callable[[], object]
SHORTEST_SAMPLE_NS = 200_000  # shorter ones measure the clock and the interpreter


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one call; low_ms and high_ms are the 10th and 90th percentile of num_runs samples."""

    median_ms: float
    low_ms: float
    high_ms: float
    num_runs: int


def time_alternating(calls: Mapping[str, Call], min_rounds: int = 5, seconds: float = 0.5) -> dict[str, Timing]:
    """Time calls side by side: warm up, then rounds A, B, A, B …, so that a slower minute hits all alike.

    seconds: per call, warm-up included. A fast call runs several times within one sample. Before each sample the call
    runs once untimed: the others have taken the processor's caches, which adds up to half to a network of 0.2 ms, the
    more the more calls alternate. Garbage is collected before, not during.
    """
    for call in calls.values():
        call()
    repeats = {name: max(1, round(SHORTEST_SAMPLE_NS / max(1, sample_ns(call, 1)))) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter_ns() + seconds * 1e9 * len(calls)
        num_rounds = 0
        while num_rounds < min_rounds or time.perf_counter_ns() < end:
            num_rounds += 1
            for name, call in calls.items():
                call()
                samples[name].append(sample_ns(call, repeats[name]) / 1e6)
    finally:
        if collected:
            gc.enable()
    return {name: summary(values) for name, values in samples.items()}


def sample_ns(call: Call, repeats: int) -> float:
    """Nanoseconds per call over `repeats` calls."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) / repeats


def summary(samples_ms: list[float]) -> Timing:
    """Median and the nearest-rank percentiles."""
    ordered = sorted(samples_ms)
    last = len(ordered) - 1
    return Timing(statistics.median(ordered), ordered[round(last * 0.1)], ordered[round(last * 0.9)], len(ordered))


def time_networks(
    networks: Mapping[str, tuple[nn.Module, Tensor]],
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    seconds: float = 2.0,
) -> dict[str, Timing]:
    """Whole networks side by side, each on its first example `batch` times over; seconds: per network."""
    calls = {name: ready(*network, runtime, threads, batch) for name, network in networks.items()}
    return time_alternating(calls, seconds=seconds)


def clock_beside(
    original: nn.Module, example: Tensor, runtime: str, threads: int, batch: int, seconds: float = 2.0
) -> Callable[[nn.Module], float]:
    """A clock for networks with the input of `original`: their time as a multiple of its, timed side by side.

    The original is made ready once, which takes longer than timing it.
    """
    beside = ready(original, example, runtime, threads, batch)

    def ratio_of(network: nn.Module) -> float:
        calls = {"original": beside, "network": ready(network, example, runtime, threads, batch)}
        times = time_alternating(calls, seconds=seconds)
        return times["network"].median_ms / times["original"].median_ms

    return ratio_of


def ready(model: nn.Module, example: Tensor, runtime: str, threads: int, batch: int) -> Call:
    """A network in a runtime, to be called on its first example `batch` times over."""
    inputs = example[:1].repeat(batch, *[1] * (example.dim() - 1))
    return find_runtime(runtime).prepare(model, inputs, threads)


def machine(threads: int = 1) -> dict[str, str | int]:
    """What figures must be read with: processor, cores, threads used, versions; no names of hosts or paths."""
    facts: dict[str, str | int] = {"cpu": cpu_model(), "cores": os.cpu_count() or 1, "threads": threads}
    facts["python"] = platform.python_version()
    for package in ("torch", "onnxruntime", "openvino"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def cpu_model() -> str:
    """The processor's own name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
