"""The CRNNs against their published layer tables, their heads, and what they refuse."""

import pytest
import torch
from torch import nn

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.models.crnn import crnn, crnn_separable
from lighten.models.sequence import HEADS
from lighten.network.trace import trace

DENSE = [640, 73_856, 295_168, 512, 590_080, 1_180_160, 1_024, 2_359_808, 1_049_088, 1_024]
SEPARABLE = [
    *(10, 128, 640, 8_320, 1_280, 33_024, 512, 2_560, 65_792, 2_560, 131_584, 1_024),
    *(5_120, 262_656, 2_560, 262_656, 1_024),
]


@pytest.mark.parametrize(
    ("constructor", "table", "params", "macs"),
    [(crnn, DENSE, 5_551_360, 1_992_425_472), (crnn_separable, SEPARABLE, 781_450, 239_361_024)],
)
def test_convolutions(constructor, table, params, macs):
    """Parameters layer by layer in the published order, and the MACs of a line of 32 × 320."""
    found = trace(constructor().features, torch.zeros(1, 1, 32, 320))
    assert [site.cost.params for site in found.sites if site.cost.params] == table
    assert (found.cost.params, found.cost.macs) == (params, macs)
    assert found.sites[-1].output_shape == (512, 1, 81)


def test_head():
    found = trace(crnn().head, torch.zeros(1, 81, 512)).cost
    assert (found.params, found.macs) == (2_779_941, 224_487_936)


def test_whole_network():
    found = trace(crnn(), torch.zeros(1, 1, 32, 320))
    assert (found.cost.params, found.cost.macs) == (8_331_301, 2_216_913_408)
    assert not found.uncounted


def test_dense_stem():
    stem, published = (crnn_separable(dense_stem=chosen).features for chosen in (True, False))
    assert (stem[0].groups, stem[0].weight.shape) == (1, (64, 1, 3, 3))
    assert count(stem) - count(published) == 640 - 138


def test_norm_between():
    features = crnn_separable(in_channels=3, norm_between=True).features
    assert [type(layer) for layer in features[:4]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    added = 2 * (3 + 64 + 128 + 256 + 256 + 512 + 512)
    assert count(features) == count(crnn_separable(in_channels=3).features) + added


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_heads(head, tmp_path):
    """Any alphabet, width and batch; the file agrees."""
    model = crnn_separable(num_classes=11, in_channels=3, head=head, hidden=16).eval()
    inputs = torch.randn(3, 3, 32, 23)
    assert model(inputs).shape == (3, 6, 11)
    assert model(torch.randn(1, 3, 32, 4)).shape == (1, 2, 11)
    export_onnx(model, inputs, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", inputs).max_relative_error < 1e-4


def test_parity_of_the_dense_network(tmp_path):
    model = crnn()
    export_onnx(model, torch.randn(1, 1, 32, 48), tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", torch.randn(3, 1, 32, 48)).max_relative_error < 1e-4


@pytest.mark.parametrize("head", HEADS)
def test_heads_look_both_ways(head):
    """The middle step depends on steps before and after it; the logits are no probabilities."""
    model = HEADS[head](6, 8, 4).eval()
    x = torch.randn(1, 9, 6, requires_grad=True)
    logits = model(x)
    logits[0, 4].square().sum().backward()
    assert x.grad[0, 2].any() and x.grad[0, 6].any()
    assert not torch.allclose(logits.sum(-1), torch.ones(1, 9))


@pytest.mark.parametrize("height", [16, 48, 64])
def test_other_heights(height):
    expected = rf"a CRNN reads lines of height 32, not {height}: of the multiples of 16, only 32 leaves one row"
    with pytest.raises(LightenError, match=expected):
        crnn_separable()(torch.zeros(1, 1, height, 100))


def test_too_narrow():
    with pytest.raises(LightenError, match="a CRNN reads lines of width 4 at least, not 3"):
        crnn_separable()(torch.zeros(1, 1, 32, 3))


def test_unknown_head():
    with pytest.raises(LightenError, match="there is no head 'lstm'; there are bilstm, gru, conv"):
        crnn(head="lstm")
