"""VGG-16-BN for small images."""

import pytest
import torch
from torchvision import models as torchvision_models

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.models.vgg import vgg16_bn
from lighten.network.trace import trace


def test_counts():
    """Li et al. 2017, table 1: 1.5·10⁷ parameters, 3.13·10⁸ MACs."""
    cost = trace(vgg16_bn(), torch.zeros(1, 3, 32, 32)).cost
    assert (cost.params, cost.macs) == (14_728_266, 313_201_664)


def test_features_are_named_as_in_torchvision():
    with torch.device("meta"):
        own = vgg16_bn().features.state_dict()
        published = torchvision_models.vgg16_bn(init_weights=False).features.state_dict()
    assert {n: t.shape for n, t in own.items()} == {n: t.shape for n, t in published.items()}


def test_initialisation_keeps_the_scale_of_gradients():
    conv = vgg16_bn().features[7]
    assert conv.weight.detach().std().item() == pytest.approx((2 / (9 * conv.out_channels)) ** 0.5, rel=0.02)


def test_larger_images_and_other_channels():
    model = vgg16_bn(num_classes=7, in_channels=1).eval()
    assert model(torch.randn(2, 1, 32, 40)).shape == (2, 7)


def test_image_that_is_too_small():
    with pytest.raises(LightenError, match="halves images five times and needs 32×32 pixels at least, not 31×32"):
        vgg16_bn()(torch.zeros(1, 3, 31, 32))


def test_parity_of_the_file(tmp_path):
    model = vgg16_bn()
    export_onnx(model, torch.randn(1, 3, 32, 32), tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", torch.randn(3, 3, 32, 32)).max_relative_error < 1e-4
