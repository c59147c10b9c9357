"""A made-up clock, no slow export, and one finished job for the tests of the main job."""

import copy
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from lighten import Lightened, Recipe, planning, shrink
from lighten.data.batches import Data
from lighten.export.parity import Parity
from lighten.measure.latency import Timing
from lighten.measure.latency_table import LatencyTable
from lighten.network.trace import trace
from lighten.plan import variants
from lighten.recover import repair

module = import_module("lighten.shrink")  # the name in the package is the function
NONE = Recipe(epochs=0)
OPTIMISM = 0.7  # of the made-up layer clock: the sum of the layers promises more than the whole network keeps


def macs_as_ms(model: nn.Module, shape: tuple[int, ...]) -> float:
    example = torch.empty(1, *shape, device="meta")
    return trace(copy.deepcopy(model).to("meta"), example).cost.macs / 1e5


def counting_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks take 1 ms per 100,000 MACs; layers seem to take less once they are rewritten. Fits are short."""

    def networks(networks, runtime, threads, batch) -> dict[str, Timing]:
        times = {name: macs_as_ms(model, example.shape[1:]) for name, (model, example) in networks.items()}
        return {name: Timing(ms, ms, ms, 5) for name, ms in times.items()}

    def beside(original, example, *place):
        return lambda network: macs_as_ms(network, example.shape[1:]) / macs_as_ms(original, example.shape[1:])

    def layers(self, layers, progress=None) -> list[float]:
        return [macs_as_ms(m, shape) * (OPTIMISM if any(m.children()) else 1) for m, shape in layers]

    monkeypatch.setattr(module, "time_networks", networks)
    monkeypatch.setattr(planning, "time_networks", networks)
    monkeypatch.setattr(planning, "clock_beside", beside)
    monkeypatch.setattr(LatencyTable, "measure", layers)
    monkeypatch.setattr(variants, "NUM_ITERATIONS", 2)
    monkeypatch.setattr(repair, "NUM_ITERATIONS", 5)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up clock, and no export but that of `finished`: PyTorch's takes seconds."""
    counting_clock(monkeypatch)
    monkeypatch.setattr(module, "export_onnx", lambda model, example, path: path.write_bytes(b"onnx"))
    monkeypatch.setattr(module, "check_parity", lambda model, path, inputs: Parity(0.0, len(inputs), True))


@pytest.fixture(scope="module")
def finished(trained_once: nn.Module, small_data: Data, tmp_path_factory: pytest.TempPathFactory):
    """Half the MACs without a gradient step, exported for real; and the folder that holds the result's folder."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))
        counting_clock(monkeypatch)
        model = copy.deepcopy(trained_once)
        return shrink(model, small_data, "macs<=0.5x", out=place / "net", weights="w.pt", recipe=NONE), place


@pytest.fixture
def done(finished: tuple[Lightened, Path], tmp_path: Path) -> Lightened:
    """The finished job, its folder copied to `tmp_path / "net"`."""
    job, place = finished
    assert [path.name for path in place.iterdir()] == ["net"]
    shutil.copytree(place / "net", tmp_path / "net")
    return job
