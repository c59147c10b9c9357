"""MobileNet V2: torchvision's weights and outputs, counts as published, bad input."""

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
from lighten.models.mobilenet_v2 import mobilenet_v2
from lighten.models.weights import load_weights
from lighten.network.trace import trace

TABLES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "mobilenet_tables.py"))


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@pytest.mark.parametrize("alpha", [0.35, 0.75, 1.0, 1.4])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_weights_give_torchvisions_outputs(tmp_path, alpha, suffix):
    theirs = torchvision.models.mobilenet_v2(width_mult=alpha, num_classes=10).eval()
    randomise_norms(theirs)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
    ours = mobilenet_v2(alpha=alpha, num_classes=10).eval()
    load_weights(ours, path)
    x = torch.randn(2, 3, 64, 40)
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_counts_of_the_whole_network():
    cost = trace(mobilenet_v2(), torch.zeros(1, 3, 224, 224)).cost
    assert (cost.params, cost.macs) == (3_504_872, 300_774_272)


@pytest.mark.parametrize("row", TABLES["V2"], ids=str)
def test_published_tables(row):
    assert TABLES["agrees"](row) or row.note in TABLES["NOTES"]


@pytest.mark.parametrize(
    ("alpha", "printed"), [(1.4, 6.06), (1.3, 5.34), (1.0, 3.47), (0.75, 2.61), (0.5, 1.95), (0.35, 1.66)]
)
def test_the_authors_page_counts_no_parameters_of_norms(alpha, printed):
    with torch.device("meta"):
        model = mobilenet_v2(alpha=alpha)
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    counted = sum(p.numel() for p in model.parameters()) - norms
    assert counted / 1e6 == pytest.approx(printed, abs=0.01)


def test_options():
    model = mobilenet_v2(alpha=0.35, num_classes=7, in_channels=1, dropout=0.4, stem_stride=1).eval()
    assert model(torch.randn(2, 1, 16, 17)).shape == (2, 7)
    assert model.classifier[0].p == 0.4
    assert model.classifier[1].in_features == 1280, "the last convolution is not made narrower"


def test_refusals():
    with pytest.raises(LightenError, match="alpha=0.05 leaves no channels of a layer that has 16"):
        mobilenet_v2(alpha=0.05)
    with pytest.raises(LightenError, match="an input of 64×31 is too small: the strides make 32"):
        mobilenet_v2(alpha=0.35)(torch.zeros(1, 3, 64, 31))


def test_export_agrees(tmp_path):
    model = mobilenet_v2(alpha=0.35, num_classes=10)
    randomise_norms(model)
    x = torch.randn(3, 3, 32, 40)
    export_onnx(model, x, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", x).agrees
