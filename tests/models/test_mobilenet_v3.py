"""MobileNet V3, both: torchvision's weights and outputs, counts as published, bad input."""

import runpy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from lighten.models.weights import load_weights
from lighten.network.trace import trace

TABLES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "mobilenet_tables.py"))
BOTH = pytest.mark.parametrize("build", [mobilenet_v3_large, mobilenet_v3_small])


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@BOTH
@pytest.mark.parametrize(("alpha", "suffix"), [(0.35, ".pth"), (0.75, ".safetensors"), (1.0, ".pth")])
def test_torchvisions_weights_give_torchvisions_outputs(tmp_path, build, alpha, suffix):
    theirs = getattr(torchvision.models, build.__name__)(width_mult=alpha, num_classes=10).eval()
    randomise_norms(theirs)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
    ours = build(alpha=alpha, num_classes=10).eval()
    load_weights(ours, path)
    x = torch.randn(2, 3, 64, 40)
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("build", "params", "macs"),
    [(mobilenet_v3_large, 5_483_032, 216_589_760), (mobilenet_v3_small, 2_542_856, 56_510_400)],
)
def test_counts_of_the_whole_network(build, params, macs):
    cost = trace(build(), torch.zeros(1, 3, 224, 224)).cost
    assert (cost.params, cost.macs) == (params, macs)


@pytest.mark.parametrize("row", TABLES["V3"], ids=str)
def test_published_tables(row):
    assert TABLES["agrees"](row) or row.note in TABLES["NOTES"]


@BOTH
def test_options(build):
    model = build(alpha=0.5, num_classes=7, in_channels=1, dropout=0.4, stem_stride=1).eval()
    assert model(torch.randn(2, 1, 16, 17)).shape == (2, 7)
    assert model.classifier[2].p == 0.4
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}


@BOTH
def test_refusals(build):
    with pytest.raises(LightenError, match="alpha=0.05 leaves no channels of a layer that has 16"):
        build(alpha=0.05)
    with pytest.raises(LightenError, match="an input of 31×31 is too small: the strides make 32"):
        build(alpha=0.35)(torch.zeros(1, 3, 31, 31))


@BOTH
def test_export_agrees(tmp_path, build):
    model = build(alpha=0.35, num_classes=10)
    randomise_norms(model)
    x = torch.randn(3, 3, 32, 40)
    export_onnx(model, x, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", x).agrees
