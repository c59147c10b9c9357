"""Whole networks become files that run at any batch, silently, and the parity checker can say no."""

import logging

import onnx
import pytest
import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.onnx import export_bytes, export_onnx, model_bytes, strip
from lighten.export.parity import check_parity, difference
from lighten.models.resnet_cifar import ResNetCifar


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = ResNetCifar(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory):
    made = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, torch.randn(1, 3, 32, 32), made)
    return made


@pytest.mark.parametrize("batch", [1, 7])
def test_a_resnet_with_padded_shortcuts_runs_at_any_batch(network: nn.Module, path, batch: int):
    parity = check_parity(network, path, torch.randn(batch, 3, 32, 32))
    assert parity.agrees and parity.num_samples == batch and parity.max_relative_error < 1e-4


def test_the_file_stands_alone_with_the_promised_names(path):
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(path, load_external_data=False).graph
    assert [v.name for v in graph.input] == ["input"] and [v.name for v in graph.output] == ["output"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(weight.external_data for weight in graph.initializer)


def test_others_may_read_the_file(path):
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    plain.unlink()


def test_the_file_names_no_paths_of_this_machine(path):
    content = path.read_bytes()
    assert b"site-packages" not in content and b"stack_trace" not in content


def test_notes_are_dropped_from_nodes_and_values(path):
    made = onnx.load(path)
    for owner in (made, made.graph, made.graph.node[0], made.graph.input[0], made.graph.initializer[0]):
        entry = owner.metadata_props.add()
        entry.key, entry.value = "stack", "/home/somebody"
    strip(made)
    assert b"somebody" not in made.SerializeToString()


def test_parity_fails_on_a_file_that_is_twice_as_large(network: nn.Module, path, tmp_path):
    made = onnx.load(path)
    for weight in made.graph.initializer:
        if list(weight.dims) in ([10, 64], [64, 10], [10]):
            values = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values * 2, weight.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(made, wrong)
    parity = check_parity(network, wrong, torch.randn(3, 3, 32, 32))
    assert not parity.agrees and parity.max_relative_error == pytest.approx(1, rel=0.01)


def test_parity_is_relative_to_the_scale_of_the_output(tmp_path):
    layer, path = nn.Linear(4, 4, bias=False), tmp_path / "scaled.onnx"
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4) * 1e6)
    export_onnx(layer, torch.randn(2, 4), path)
    with torch.no_grad():
        layer.weight *= 1 + 1e-5
    assert check_parity(layer, path, torch.randn(5, 4)).agrees
    assert not check_parity(layer, path, torch.randn(5, 4), tolerance=1e-6).agrees


def test_wrong_shapes_and_missing_numbers_are_infinitely_wrong():
    assert difference(torch.zeros(2, 3), torch.zeros(2, 4)) == float("inf")
    assert difference(torch.tensor([float("nan")]), torch.zeros(1)) == float("inf")
    assert difference(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])) == 2.0


def test_a_file_with_a_fixed_batch_is_named(tmp_path):
    layer, path = nn.Linear(4, 3), tmp_path / "fixed.onnx"
    path.write_bytes(model_bytes(layer, torch.randn(2, 4)))
    with pytest.raises(LightenError, match=r"fixed.onnx' doesn't run on an input of shape \(1, 4\)"):
        check_parity(layer, path, torch.randn(2, 4))


def test_known_layers_skip_the_exporter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("the exporter was called"))
    assert model_bytes(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.randn(1, 3, 4, 4))


class Loud(nn.Module):
    """Prints, warns and logs when it runs, and has a layer that is frozen in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.layer, self.frozen = nn.Linear(4, 3), nn.BatchNorm1d(3).eval()

    def forward(self, x: Tensor) -> Tensor:
        print("running")  # noqa: T201  the exporter must swallow it
        logging.getLogger("torch.onnx").error("running")
        return self.frozen(self.layer(x))


def test_export_is_silent_and_leaves_the_training_flags(
    tmp_path, capfd: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
):
    model = Loud().train()
    model.frozen.eval()
    export_onnx(model, torch.randn(2, 4), tmp_path / "loud.onnx")
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert model.training and model.layer.training and not model.frozen.training


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(tmp_path):
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no way")

    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(LightenError, match="can't export a Broken to ONNX"):
        export_onnx(Broken(), torch.randn(2, 4), path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_two_outputs_and_a_fixed_batch_are_refused():
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x + 2

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(2, 4)

    with pytest.raises(LightenError, match="it must return one tensor"):
        export_bytes(Two(), torch.randn(2, 4))
    with pytest.raises(LightenError, match="Fixed to ONNX"):
        export_bytes(Fixed(), torch.randn(2, 4))
