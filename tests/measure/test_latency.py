"""The clock is read fairly: alternating, several runs per sample, garbage collection off and on again."""

import gc
import itertools

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.measure import latency
from lighten.measure.latency import Timing, machine, sample_ns, summary, time_alternating, time_networks


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that says every call takes a millisecond, so that each sample is one call."""
    ticks = itertools.count(0, 1_000_000)
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(ticks))


def test_calls_alternate(slow_clock: None):
    met = []
    timings = time_alternating({name: lambda name=name: met.append(name) for name in "abc"}, 4, seconds=0)
    assert met[6:] == list("aabbcc") * 4  # after two calls of each to find the number of repeats; untimed, timed
    assert all(timing == Timing(1.0, 1.0, 1.0, 4) for timing in timings.values())


def test_a_fast_call_runs_several_times_per_sample(monkeypatch: pytest.MonkeyPatch):
    now = [0]
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: now[0])
    counts = {"fast": 0, "slow": 0}

    def taking(name: str, ns: int) -> None:
        counts[name] += 1
        now[0] += ns

    calls = {"fast": lambda: taking("fast", 10_000), "slow": lambda: taking("slow", 900_000)}
    timings = time_alternating(calls, min_rounds=3, seconds=0)
    assert counts == {"fast": 2 + 3 * (1 + 20), "slow": 2 + 3 * (1 + 1)}
    assert timings["fast"].median_ms == pytest.approx(0.01) and timings["slow"].median_ms == pytest.approx(0.9)


def test_time_is_taken_per_call_until_it_is_used_up(monkeypatch: pytest.MonkeyPatch):
    now = [0]
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: now[0])

    def millisecond() -> None:
        now[0] += 1_000_000

    timings = time_alternating({"a": millisecond, "b": millisecond}, min_rounds=1, seconds=0.01)
    assert timings["a"].num_runs == timings["b"].num_runs == 5  # each after an untimed call


def test_only_the_second_of_two_calls_is_timed(monkeypatch: pytest.MonkeyPatch):
    now, last = [0], [""]
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: now[0])

    def slow_when_cold(name: str) -> None:
        now[0] += 1_000_000 if last[0] == name else 3_000_000
        last[0] = name

    timings = time_alternating({name: lambda name=name: slow_when_cold(name) for name in "ab"}, 4, seconds=0)
    assert timings["a"].high_ms == timings["b"].high_ms == 1.0


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_while_timing_and_as_before_after(enabled: bool):
    before = gc.isenabled()
    seen = []

    def fail_late() -> None:
        seen.append(gc.isenabled())
        if len(seen) > 5:
            raise RuntimeError("stop")

    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(RuntimeError, match="stop"):
            time_alternating({"a": fail_late}, min_rounds=10, seconds=0)
        assert seen[-1] is False and gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_percentiles():
    assert summary([float(v) for v in range(100, -1, -1)]) == Timing(50.0, 10.0, 90.0, 101)
    assert summary([3.0]) == Timing(3.0, 3.0, 3.0, 1)


def test_a_sample_is_per_call(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([100, 500])
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(ticks))
    assert sample_ns(lambda: None, 4) == 100


def test_networks_are_timed_at_the_batch_asked_for():
    shapes = set()

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shapes.add(tuple(x.shape))
            return x

    networks = {"a": (Watch(), torch.zeros(2, 5, 4)), "b": (Watch(), torch.zeros(1, 7))}
    timings = time_networks(networks, "pytorch", threads=1, batch=3, seconds=0)
    assert shapes == {(3, 5, 4), (3, 7)} and list(timings) == ["a", "b"]
    assert all(timing.low_ms <= timing.median_ms <= timing.high_ms for timing in timings.values())
    with pytest.raises(LightenError, match="unknown runtime 'tpu'"):
        time_networks(networks, "tpu")


def test_a_clock_makes_the_original_ready_once(monkeypatch):
    made = []

    class Place:
        def prepare(self, model, inputs, threads):
            made.append((model, tuple(inputs.shape), threads))
            return model

    monkeypatch.setattr(latency, "find_runtime", lambda name: Place())
    monkeypatch.setattr(
        latency,
        "time_alternating",
        lambda calls, seconds: {name: Timing(call.out_features, 0, 0, 1) for name, call in calls.items()},
    )
    original, half = nn.Linear(3, 8), nn.Linear(3, 4)
    ratio_of = latency.clock_beside(original, torch.zeros(5, 3), "any", 2, 4)
    assert (ratio_of(half), ratio_of(original)) == (0.5, 1.0)
    assert made == [(original, (4, 3), 2), (half, (4, 3), 2), (original, (4, 3), 2)]


def test_the_machine_is_described_without_names_of_hosts():
    import platform

    facts = machine(threads=2)
    assert facts["threads"] == 2 and facts["cores"] >= 1 and facts["torch"] == torch.__version__.split("+")[0]
    assert facts["cpu"] and facts["onnxruntime"]
    assert platform.node() not in facts.values() and not any("/home" in str(value) for value in facts.values())
