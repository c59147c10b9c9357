"""Rounded widths, squeeze-excite, and the blocks of MobileNet V2, V3 and V4."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lighten.errors import LightenError
from lighten.layers.inverted import InvertedResidual, UniversalInvertedBottleneck
from lighten.layers.squeeze_excite import SqueezeExcite
from lighten.layers.width import divisible, scaled


def num_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_widths_are_multiples_of_8_and_at_most_a_tenth_down():
    for channels in range(1, 2000):
        width = divisible(channels)
        assert width % 8 == 0 and width >= max(8, 0.9 * channels)
        assert width - channels <= 4 or width == 8 or width - 8 < 0.9 * channels


@pytest.mark.parametrize(
    ("channels", "alpha", "width"),
    [(32, 1, 32), (32, 0.25, 8), (24, 0.75, 24), (32, 0.35, 16), (16, 0.1, 8), (96, 1.4, 136), (1280, 1.4, 1792)],
)
def test_scaled_widths(channels, alpha, width):
    assert scaled(channels, alpha) == width


@pytest.mark.parametrize("alpha", [0, -1, 0.03, math.inf, math.nan])
def test_alpha_that_leaves_no_channels(alpha):
    expected = f"alpha={alpha} leaves no channels of a layer that has 32; it must be a number from 0.03125 on"
    with pytest.raises(LightenError, match=expected):
        scaled(32, alpha)


def test_squeeze_excite_weighs_channels_by_the_mean_of_the_map():
    layer, x = SqueezeExcite(6, 4), torch.randn(3, 6, 5, 7)
    gate = F.linear(x.mean((2, 3)), layer.squeeze.weight[:, :, 0, 0], layer.squeeze.bias).relu()
    gate = F.linear(gate, layer.excite.weight[:, :, 0, 0], layer.excite.bias)
    gate = ((gate + 3) / 6).clamp(0, 1)
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


@pytest.mark.parametrize(("bias", "gate"), [(-3.0, 0.0), (0.0, 0.5), (3.0, 1.0)])
def test_the_gate_is_a_hard_sigmoid(bias, gate):
    layer, x = SqueezeExcite(4, 2), torch.randn(1, 4, 3, 3)
    nn.init.zeros_(layer.excite.weight)
    nn.init.constant_(layer.excite.bias, bias)
    torch.testing.assert_close(layer(x), gate * x)


@pytest.mark.parametrize(("out_channels", "stride", "has_shortcut"), [(8, 1, True), (16, 1, False), (8, 2, False)])
def test_the_shortcut_stands_where_the_shape_is_kept(out_channels, stride, has_shortcut):
    block, x = InvertedResidual(8, 48, out_channels, stride=stride).eval(), torch.randn(2, 8, 9, 10)
    with torch.no_grad():
        assert block(x).shape == (2, out_channels, -(-9 // stride), -(-10 // stride))
        assert block(x).min() < 0, "the bottleneck is linear"
        nn.init.zeros_(block.project.norm.weight)
        assert torch.equal(block(x), x if has_shortcut else torch.zeros_like(block(x)))


def test_parameters_of_an_inverted_residual():
    norms = 2 * (48 + 48 + 16)
    assert num_params(InvertedResidual(8, 48, 16)) == 8 * 48 + 9 * 48 + 48 * 16 + norms
    gates = 48 * 16 + 16 + 16 * 48 + 48  # 48 // 4 = 12, made 16
    assert num_params(InvertedResidual(8, 48, 16, kernel=5, squeeze_excite=True)) == (
        8 * 48 + 25 * 48 + 48 * 16 + norms + gates
    )


def test_without_expansion_there_is_no_convolution_in_front():
    block = InvertedResidual(8, 8, 16, squeeze_excite=True, activation=nn.Hardswish)
    assert [name for name, _ in block.named_children()] == ["depthwise", "squeeze_excite", "project"]
    assert isinstance(block.depthwise.activation, nn.Hardswish)


FORMS = [  # start_kernel, kernel; Qin et al. 2024, figure 4
    ("extra depthwise", 3, 5, ["start", "expand", "depthwise", "project"]),
    ("inverted bottleneck", 0, 3, ["expand", "depthwise", "project"]),
    ("ConvNext-like", 7, 0, ["start", "expand", "project"]),
    ("feed-forward", 0, 0, ["expand", "project"]),
]


@pytest.mark.parametrize(("form", "start_kernel", "kernel", "names"), FORMS)
def test_the_four_forms_of_the_universal_bottleneck(form, start_kernel, kernel, names):
    block = UniversalInvertedBottleneck(8, 8, expand=4, start_kernel=start_kernel, kernel=kernel).eval()
    assert [name for name, _ in block.named_children()] == names, form
    expected = 2 * 8 * 32 + 2 * (32 + 8)
    expected += (start_kernel**2 + 2) * 8 if start_kernel else 0
    expected += (kernel**2 + 2) * 32 if kernel else 0
    assert num_params(block) == expected
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        assert block(x).shape == x.shape
        nn.init.zeros_(block.project.norm.weight)
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("start_kernel", "kernel", "strided"), [(3, 5, "depthwise"), (0, 3, "depthwise"), (7, 0, "start")]
)
def test_one_depthwise_convolution_has_the_stride(start_kernel, kernel, strided):
    block = UniversalInvertedBottleneck(8, 16, start_kernel=start_kernel, kernel=kernel, stride=2)
    found = [name for name, layer in block.named_children() if layer.conv.stride == (2, 2)]
    assert found == [strided]
    assert block(torch.randn(2, 8, 9, 10)).shape == (2, 16, 5, 5)


def test_only_the_first_depthwise_and_the_last_convolution_are_linear():
    block = UniversalInvertedBottleneck(8, 8, start_kernel=3)
    linear = [name for name, layer in block.named_children() if not hasattr(layer, "activation")]
    assert linear == ["start", "project"]


def test_a_stride_needs_a_depthwise_convolution():
    with pytest.raises(LightenError, match="without a depthwise convolution can't have stride 2, only 1"):
        UniversalInvertedBottleneck(8, 8, kernel=0, stride=2)
