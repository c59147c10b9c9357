"""The roofline by hand, and the table that joins times, work and limits; no times are asserted."""

import json

import pytest
import torch
from rich.console import Console
from torch import nn

from lighten.measure import roofline
from lighten.measure.layer_times import LayerTimes
from lighten.measure.roofline import Roof, best_ns, measure_roof, table_of, text, time_table
from lighten.network.cost import Cost
from lighten.network.trace import Site, trace

ROOF = Roof(threads=2, peak_gflops=100.0, bandwidth_gbps=10.0)  # the ridge lies at 10 operations per byte


def site(name: str, kind: str, **cost: int) -> Site:
    return Site(name, kind, (), (), 1, (), Cost(**cost))


SITES = (
    site("conv", "conv2d", macs=50_000_000, input_bytes=600_000, weight_bytes=400_000),
    site("thin", "linear", macs=50_000, weight_bytes=100_000),
    site("relu", "relu", input_bytes=500_000, activation_bytes=500_000),
    site("norm", "batchnorm2d", input_bytes=1_000),
)
PYTORCH = LayerTimes("pytorch", 2, 9.0, {"conv": 4.0, "thin": 0.5, "relu": 2.0, "norm": 1.0}, {"between layers": 1.5})
ONNXRUNTIME = LayerTimes("onnxruntime", 2, 5.5, {"conv": 2.0, "thin": 0.1, "relu": 0.4}, {"ReorderOutput": 2.5})


@pytest.mark.parametrize(
    ("intensity", "attainable"), [(0.0, 0.0), (1.0, 10.0), (9.9, 99.0), (10.0, 100.0), (1000.0, 100.0)]
)
def test_the_roof(intensity: float, attainable: float):
    assert ROOF.attainable_gflops(intensity) == pytest.approx(attainable)


def test_limits_of_layers():
    assert [ROOF.limit(s.cost) for s in SITES] == ["compute", "memory", "memory", "memory"]
    assert ROOF.least_ms(SITES[0].cost) == pytest.approx(1.0)  # 10⁸ operations at 10¹¹ per second
    assert ROOF.least_ms(SITES[1].cost) == pytest.approx(0.01)  # 10⁵ bytes at 10¹⁰ per second
    assert ROOF.least_ms(SITES[2].cost) == pytest.approx(0.1)
    assert ROOF.least_ms(Cost()) == 0


def test_the_least_time_is_that_of_the_attainable_rate():
    for found in trace(nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 1)), torch.zeros(1, 3, 9, 9)).sites:
        rate = ROOF.attainable_gflops(found.cost.intensity)
        assert ROOF.least_ms(found.cost) == pytest.approx(2 * found.cost.macs / rate / 1e6)


def test_rows_join_by_name():
    table = table_of("net", SITES, PYTORCH, ONNXRUNTIME, ROOF)
    conv, thin, relu, norm = table.rows
    assert (conv.name, conv.kind, conv.pytorch_ms, conv.onnxruntime_ms) == ("conv", "conv2d", 4.0, 2.0)
    assert conv.share_of_time == pytest.approx(0.4) and conv.share_of_macs == pytest.approx(1000 / 1001)
    assert conv.gflops == pytest.approx(50.0) and conv.share_of_limit == pytest.approx(0.5)
    assert thin.gflops == pytest.approx(1.0) and thin.share_of_limit == pytest.approx(0.1)
    assert relu.gflops is None and relu.share_of_limit == pytest.approx(0.25)
    assert norm.pytorch_ms == 1.0 and norm.onnxruntime_ms is norm.share_of_time is norm.share_of_limit is None
    shares = sum(row.share_of_time or 0 for row in table.rows) + 2.5 / 5.0
    assert shares == pytest.approx(1.0)


def test_plain_values_for_json():
    values = json.loads(json.dumps(table_of("net", SITES, PYTORCH, ONNXRUNTIME, ROOF).as_dict()))
    assert values["roof"] == {"threads": 2, "peak_gflops": 100.0, "bandwidth_gbps": 10.0}
    assert values["rows"][3]["onnxruntime_ms"] is None and values["rows"][0]["limit"] == "compute"
    assert values["onnxruntime_others_ms"] == {"ReorderOutput": 2.5} and values["machine"]["threads"] == 2


def test_the_table_shows_all_that_was_timed(capsys: pytest.CaptureFixture):
    Console(width=150).print(table_of("net", SITES, PYTORCH, ONNXRUNTIME, ROOF))
    shown = capsys.readouterr().out
    names = ("conv", "thin", "relu", "norm")
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip().startswith(names)}
    assert tuple(lines) == names
    assert all(cell in lines["conv"] for cell in ("4.000", "2.000", "40.0%", "99.9%", "50.0", "compute", "50%"))
    assert lines["norm"].count("–") == 4
    for said in ("9.000 ms in PyTorch, 5.500 ms", "PyTorch: between layers, 1.500 ms", "ReorderOutput, 2.500 ms"):
        assert said in shown
    assert "measured limits (threads: 2): 100.0 GFLOP/s, 10.0 GB/s" in shown


def test_a_missing_number_is_a_dash():
    assert text(None, "{:.1f}") == "–" and text(0.0, "{:.1f}") == "0.0"


def test_the_best_run_counts_and_the_first_only_warms_up(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0, 50, 50, 70, 70, 130])
    monkeypatch.setattr(roofline, "NUM_TRIES", 3)
    monkeypatch.setattr(roofline.time, "perf_counter_ns", lambda: next(ticks))
    calls = []
    assert best_ns(lambda: calls.append(1)) == 20 and len(calls) == 4


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays, and a cache of its own."""
    monkeypatch.setattr(roofline, "MATRIX_SIZES", (16,))
    monkeypatch.setattr(roofline, "IMAGE", (1, 4, 8, 8))
    monkeypatch.setattr(roofline, "TRIAD_NUMEL", 1024)
    measure_roof.cache_clear()
    yield
    measure_roof.cache_clear()


def test_the_roof_is_measured_once_per_thread_count(small: None, monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(roofline, "peak_gflops", lambda: used.append(torch.get_num_threads()) or 1.0)
    before = torch.get_num_threads()
    assert measure_roof(2) is measure_roof(2) and measure_roof(1).threads == 1
    assert used == [2, 1] and torch.get_num_threads() == before


def test_operations_and_bytes_of_the_measured_kernels(small: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "best_ns", lambda call: (call(), 1000)[1])
    assert roofline.bandwidth_gbps() == pytest.approx(3 * 4 * 1024 / 1000)
    assert roofline.peak_gflops() == pytest.approx(max(2 * 16**3, 2 * 4 * 4 * 9 * 64) / 1000)


def test_a_network_from_end_to_end(small: None):
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))
    table = time_table(model, torch.zeros(2, 3, 8, 8), threads=1, runs=1, title="small")
    assert [row.name for row in table.rows] == ["0", "1", "2", "3"] and table.title == "small"
    assert sum(row.share_of_macs for row in table.rows) == pytest.approx(1.0)
    assert all(row.pytorch_ms is not None for row in table.rows)
    assert table.rows[0].onnxruntime_ms is not None and table.rows[3].onnxruntime_ms is not None
    assert table.rows[1].onnxruntime_ms is None and table.roof.bandwidth_gbps > 0
