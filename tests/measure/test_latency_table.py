"""Layers are timed once, in a frame whose own time is taken off, and kept in a file that survives."""

import json

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.layers.parallel import Sum
from lighten.measure import latency_table
from lighten.measure.latency import Timing
from lighten.measure.latency_table import (
    SHORTEST_MS,
    LatencyTable,
    default_path,
    frame,
    groups_by_shape,
    output_shape,
    pointwise,
    with_values,
)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the calls of each group that was timed; framed layers take 5 ms, the frame 1 + 1 per pointwise."""
    groups = []

    def fake(calls: dict, seconds: float) -> dict[str, Timing]:
        groups.append(list(calls))
        for call in calls.values():
            call()
        medians = {"once": 2.0, "twice": 3.0}
        return {name: Timing(medians.get(name, 5.0), 0, 0, 1) for name in calls}

    monkeypatch.setattr(latency_table, "time_alternating", fake)
    return groups


def conv(*args, **kwargs) -> nn.Module:
    return nn.Conv2d(*args, **kwargs)


def test_the_time_of_the_frame_is_taken_off(tmp_path, timed):
    table = LatencyTable(tmp_path / "t.json")
    assert table.measure([(conv(4, 6, 3), (4, 8, 8)), (nn.Linear(4, 5), (4,))]) == [5.0 - (2 * 2.0 - 3.0), 5.0 - 2.0]
    assert [group[1:] for group in timed] == [["once", "twice"], ["once"]]


def test_equal_layers_are_timed_once_and_never_again(tmp_path, timed):
    path, layers = tmp_path / "t.json", [(conv(4, 4, 3, padding=1), (4, 8, 8)), (conv(4, 4, 1), (4, 8, 8))]
    first = LatencyTable(path).measure(layers * 2 + [(conv(4, 4, 3, padding=1), (4, 8, 8))])
    assert len(first) == 5 and len(timed) == 1 and len(timed[0]) == 2 + 2
    assert LatencyTable(path).measure(layers) == first[:2] and len(timed) == 1


def test_all_that_changes_a_time_changes_the_key(tmp_path):
    path, layer = tmp_path / "t.json", conv(4, 4, 3)
    keys = {LatencyTable(path).key(layer, (4, 8, 8)), LatencyTable(path).key(layer, (4, 8, 9))}
    keys |= {LatencyTable(path, threads=2).key(layer, (4, 8, 8)), LatencyTable(path, batch=2).key(layer, (4, 8, 8))}
    keys |= {LatencyTable(path, runtime=name).key(layer, (4, 8, 8)) for name in ("openvino", "pytorch")}
    table = LatencyTable(path)
    others = [conv(4, 4, 3, padding_mode="reflect"), conv(4, 4, 3, bias=False), conv(4, 4, 3, dilation=2)]
    others += [conv(4, 4, 3, groups=2), conv(4, 4, 3, stride=2), conv(4, 4, 3).double(), nn.Sequential(layer)]
    keys |= {table.key(other, (4, 8, 8)) for other in others}
    assert len(keys) == 6 + len(others)
    assert table.key(conv(4, 4, 3), (4, 8, 8)) == table.key(layer, (4, 8, 8))


def test_an_interrupted_run_keeps_the_groups_that_were_done(tmp_path, timed, monkeypatch: pytest.MonkeyPatch):
    path, told = tmp_path / "deep" / "t.json", []
    layers = [(conv(4, 4, 3), (4, 8, 8)), (conv(4, 4, 3), (4, 9, 9))]

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LatencyTable(path).measure(layers, progress=stop)
    assert told == [(1, 2)] and len(json.loads(path.read_text())["times_ms"]) == 1
    LatencyTable(path).measure(layers)
    assert len(timed) == 2 and [file.name for file in path.parent.iterdir()] == ["t.json"]


def test_what_another_process_kept_meanwhile_stays(tmp_path, timed):
    path = tmp_path / "t.json"
    one, other = LatencyTable(path), LatencyTable(path)
    one.measure([(conv(4, 4, 3), (4, 8, 8))])
    other.measure([(conv(4, 4, 1), (4, 8, 8))])
    assert len(LatencyTable(path).times_ms) == 2


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"format": 0, "times_ms": {}}', '{"format": 1, "times_ms": {"a": "b"}}', "\xff"]
)
def test_a_corrupt_cache_is_named(tmp_path, content: str):
    path = tmp_path / "t.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(LightenError, match=r"the latency cache '.*t.json' can't be read; delete it"):
        LatencyTable(path)


def test_the_cache_is_in_the_users_cache_folder(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert LatencyTable().path == tmp_path / "lighten" / "latency.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_path() == tmp_path / "home" / ".cache" / "lighten" / "latency.json"


def test_a_layer_lost_in_the_noise_is_not_free(tmp_path, monkeypatch: pytest.MonkeyPatch):
    same = {"median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0, "num_runs": 1}
    monkeypatch.setattr(
        latency_table, "time_alternating", lambda calls, seconds: {name: Timing(**same) for name in calls}
    )
    assert LatencyTable(tmp_path / "t.json").measure([(nn.Identity(), (4,))]) == [SHORTEST_MS]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "pytorch"])
def test_every_kind_of_layer_is_timed_for_real(tmp_path, runtime: str):
    table = LatencyTable(tmp_path / "t.json", runtime, batch=2)
    table.seconds = 0.0
    layers = [
        (nn.Conv1d(4, 8, 3, 2), (4, 9)),
        (conv(4, 8, 3, 2, 1, device="meta"), (4, 8, 8)),
        (Sum([conv(4, 8, 3, 2, 1), conv(4, 8, 1, 2)]), (4, 8, 8)),
        (nn.Conv3d(4, 8, 2), (4, 4, 4, 4)),
        (nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 5)), (6,)),
    ]
    times_ms = table.measure(layers)
    assert len(times_ms) == 5 and all(SHORTEST_MS <= time_ms < 1000 for time_ms in times_ms)


def test_the_frame_fits_the_layer():
    layer = conv(4, 6, 3, stride=2, padding=1)
    framed = frame(layer, (4, 9, 8))
    assert output_shape(framed, (4, 9, 8)) == output_shape(layer, (4, 9, 8)) == (6, 5, 4)
    assert output_shape(pointwise(layer, (4, 9, 8)), (4, 9, 8)) == (6, 5, 4)
    assert pointwise(nn.Linear(3, 4), (3,)) is None


def test_variants_of_one_layer_share_a_group_and_large_groups_are_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(latency_table, "MAX_GROUP", 2)
    same = {f"same {i}": (conv(4, 4, 3, padding=1), (4, 8, 8)) for i in range(3)}
    groups = groups_by_shape(same | {"narrower": (conv(4, 2, 3, padding=1), (4, 8, 8))})
    assert [list(group) for group in groups] == [["same 0", "same 1"], ["same 2"], ["narrower"]]


def test_random_values_differ_from_layer_to_layer_and_real_ones_stay():
    real = conv(4, 4, 1)
    made = with_values(nn.Sequential(conv(4, 4, 1, device="meta"), conv(4, 4, 1, device="meta"), real))
    assert not any(p.is_meta for p in made.parameters())
    assert not torch.equal(made[0].weight, made[1].weight) and torch.equal(made[2].weight, real.weight)


def test_a_layer_that_refuses_its_input_is_named(tmp_path):
    with pytest.raises(LightenError, match=r"can't time Conv2d\(4, 6.* on an input of shape \(3, 8, 8\)"):
        LatencyTable(tmp_path / "t.json").measure([(conv(4, 6, 3), (3, 8, 8))])
