"""Every runtime runs the same network to the same output, and a missing one says how to get it."""

import sys

import pytest
import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.layers import layer_model
from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.runtimes import RUNTIMES, find_runtime

LAYERS = {
    "strided": lambda: nn.Conv2d(6, 8, 3, 2, 1),
    "same": lambda: nn.Conv2d(6, 8, 4, padding="same", dilation=(1, 2)),
    "reflect": lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate", groups=6),
    "parallel": lambda: Sum([nn.Conv2d(6, 8, 1), nn.Sequential(Repeat(2), nn.Conv2d(12, 8, 1, groups=4))]),
    "concat": lambda: Concat([nn.Conv2d(6, 2, 1), nn.Identity()]),
    "unknown": lambda: nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LAYERS)
def test_all_runtimes_give_the_same_output(runtime: str, name: str):
    torch.manual_seed(0)
    model, x = LAYERS[name](), torch.randn(3, 6, 9, 8)
    with torch.no_grad():
        expected = model.eval()(x)
    model.train()
    got = torch.as_tensor(RUNTIMES[runtime].prepare(model, x, threads=1)())
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert model.training


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_prepared_call_keeps_the_weights_it_was_made_with(name: str):
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    run = RUNTIMES[name].prepare(model, x, threads=1)
    before = torch.as_tensor(run()).clone()
    nn.init.zeros_(model.weight)
    assert torch.equal(torch.as_tensor(run()), before)


def test_names_and_versions():
    assert list(RUNTIMES) == ["onnxruntime", "openvino", "pytorch"]
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name and runtime.version()[0].isdigit()
    assert RUNTIMES["pytorch"].version() == torch.__version__
    with pytest.raises(LightenError, match="unknown runtime 'tvm'; there are onnxruntime, openvino, pytorch"):
        find_runtime("tvm")


def test_pytorch_sets_threads_only_while_it_runs():
    seen = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    other = 1 if before != 1 else 2
    for threads in (other, before):
        RUNTIMES["pytorch"].prepare(Watch(), torch.zeros(1), threads)()
        assert seen.pop() == threads and torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LightenError, match=rf"isn't installed; install it with: pip install 'lighten\[{name}\]'"):
        RUNTIMES[name].version()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_model_is_named(name: str, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(LightenError, match="can't load '.*model.onnx'"):
        RUNTIMES[name].session(path, 1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_sessions_open_files_too(name: str, tmp_path):
    layer, path, x = nn.Linear(4, 3), tmp_path / "layer.onnx", torch.randn(2, 4)
    path.write_bytes(layer_model(layer, (4,), batch=2).SerializeToString())
    got = torch.from_numpy(RUNTIMES[name].session(path, 1)(x.numpy()).copy())
    assert torch.allclose(got, layer(x), atol=1e-5)
