"""Separable convolutions: sizes, published counts, the dense convolution that each equals, biases, penalty, export."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lighten.errors import LightenError
from lighten.export.onnx import export_onnx
from lighten.export.parity import check_parity
from lighten.layers.conv_norm import ConvNorm
from lighten.layers.separable import (
    BlueprintS,
    BlueprintU,
    DepthwiseSeparable,
    SpatialSeparable,
    orthonormal_penalty,
)
from lighten.network.trace import trace
from lighten.recover.composed import dense_weight

BLOCKS = (DepthwiseSeparable, BlueprintU, BlueprintS, SpatialSeparable)
LINEAR = (
    (DepthwiseSeparable, {"between": False}),
    (DepthwiseSeparable, {"between": False, "multiplier": 3}),
    (BlueprintU, {}),
    (BlueprintS, {"ratio": 0.9}),
    (SpatialSeparable, {"mid_channels": 4}),
    (SpatialSeparable, {"order": "horizontal"}),
)


def costs(module: nn.Module, size: tuple[int, int, int]) -> list[tuple[int, int]]:
    """(parameters, MACs) of each convolution."""
    sites = trace(module, torch.zeros(1, *size)).sites
    return [(site.cost.params, site.cost.macs) for site in sites if site.kind == "conv2d"]


def without_padding(block: nn.Module) -> nn.Module:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.padding = (0, 0)
    return block


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
def test_every_block_keeps_the_size_divided_by_the_stride(block, kernel):
    for stride in (1, 2, 3):
        for dilation in (1, 2):
            made = block(6, 5, kernel, stride, dilation=dilation).eval()
            assert made(torch.randn(2, 6, 13, 10)).shape == (2, 5, math.ceil(13 / stride), math.ceil(10 / stride))


@pytest.mark.parametrize("block", [ConvNorm, *BLOCKS])
def test_norm_and_activation_follow_by_the_same_call_as_a_dense_convolution(block):
    layers = list(block(6, 5, 3, 2, norm=nn.InstanceNorm2d, activation=nn.Tanh).modules())
    assert isinstance(layers[-2], nn.InstanceNorm2d) and layers[-2].num_features == 5
    assert isinstance(layers[-1], nn.Tanh)
    plain = block(6, 5, norm=None, activation=None).modules()
    assert all(isinstance(module, (nn.Sequential, nn.Conv2d)) for module in plain)


def test_zeros_of_odd_number_go_to_the_right_and_the_bottom():
    layer = ConvNorm(1, 1, (2, 4), norm=None, activation=None)
    with torch.no_grad():
        layer.conv.weight.fill_(1)
        layer.conv.bias.zero_()
    assert torch.equal(
        layer(torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])), torch.tensor([[[[21.0, 21, 16], [15, 15, 11]]]])
    )


def test_counts_of_a_3x3_convolution_of_3_to_32_channels():
    assert costs(ConvNorm(3, 32), (3, 16, 16)) == [(864, 221_184)]
    depthwise, pointwise = costs(DepthwiseSeparable(3, 32), (3, 16, 16))
    assert depthwise == (27, 6_912) and pointwise == (96, 24_576)
    assert round(864 / (depthwise[0] + pointwise[0]), 2) == 7.02


@pytest.mark.parametrize("outputs", [1, 64])
def test_counts_of_a_valid_5x5_depthwise_separable_convolution(outputs):
    block = without_padding(DepthwiseSeparable(3, outputs, 5))
    assert costs(block, (3, 12, 12)) == [(75, 4_800), (3 * outputs, 192 * outputs)]


def test_counts_of_a_valid_5x1_then_1x5_convolution():
    block = without_padding(SpatialSeparable(3, 1, 5))
    assert costs(block, (3, 12, 12)) == [(15, 1_440), (5, 320)]


@pytest.mark.parametrize("kernel", [3, 5])
def test_counts_by_formula(kernel):
    """On 8×8 at stride 2: weights times the 16 positions after it, or the 64 before it."""
    m, n, taps = 12, 20, kernel**2

    def counts(block: type, **options: object) -> list[tuple[int, int]]:
        return costs(block(m, n, kernel, 2, **options), (m, 8, 8))

    assert counts(DepthwiseSeparable) == [(taps * m, taps * m * 16), (m * n, m * n * 16)]
    assert counts(DepthwiseSeparable, multiplier=2) == [(taps * 2 * m, taps * 2 * m * 16), (2 * m * n, 2 * m * n * 16)]
    assert counts(BlueprintU) == [(m * n, m * n * 64), (taps * n, taps * n * 16)]
    assert counts(BlueprintS, ratio=0.5) == [(m * 6, m * 6 * 64), (6 * n, 6 * n * 64), (taps * n, taps * n * 16)]
    assert counts(SpatialSeparable) == [(kernel * m * n, kernel * m * n * 32), (kernel * n * n, kernel * n * n * 16)]
    assert counts(SpatialSeparable, mid_channels=7)[1] == (kernel * 7 * n, kernel * 7 * n * 16)


@pytest.mark.parametrize(("block", "options"), LINEAR)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 2, 3)])
def test_a_linear_block_is_a_dense_convolution_of_the_same_geometry(block, options, kernel, stride, dilation):
    made = block(6, 8, kernel, stride, dilation=dilation, norm=None, activation=None, **options).double()
    biases = [p for name, p in made.named_parameters() if name.endswith("bias")]
    assert len(biases) == 1
    x = torch.randn(2, 6, 14, 11, dtype=torch.float64)
    convolutions = nn.Sequential(*(module for module in made.modules() if isinstance(module, nn.Conv2d)))
    weight = dense_weight(convolutions, biases[0], 6)
    assert weight.shape == (8, 6, kernel, kernel)
    expected = F.conv2d(x, weight, biases[0], stride, dilation * (kernel // 2), dilation)
    torch.testing.assert_close(made(x), expected, rtol=1e-10, atol=1e-10)


def biased(block: nn.Module) -> list[bool]:
    return [module.bias is not None for module in block.modules() if isinstance(module, nn.Conv2d)]


def test_a_bias_stands_only_where_it_does_something_of_its_own():
    assert biased(DepthwiseSeparable(4, 4)) == [False, False]
    assert biased(DepthwiseSeparable(4, 4, norm=None)) == [True, True]
    assert biased(DepthwiseSeparable(4, 4, norm=None, between=False)) == [False, True]
    assert biased(BlueprintU(4, 4, norm=None)) == [False, True]
    assert biased(BlueprintS(4, 4, norm_between=True)) == [False, False, False]
    assert biased(SpatialSeparable(4, 4, norm=None)) == [False, True]
    assert biased(SpatialSeparable(4, 4, norm=None, between=True)) == [True, True]


def kinds(block: nn.Module) -> str:
    """The layers in order: c, n, a for convolution, norm and activation."""
    names = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.ReLU: "a"}
    return "".join(names.get(type(module), "") for module in block.modules())


def test_what_stands_between():
    assert kinds(DepthwiseSeparable(4, 4)) == "cnacna"
    assert kinds(DepthwiseSeparable(4, 4, between=False)) == "ccna"
    assert kinds(BlueprintU(4, 4)) == "ccna"
    assert kinds(BlueprintU(4, 4, norm_between=True)) == "cncna"
    assert kinds(BlueprintS(4, 4)) == "cccna"
    assert kinds(BlueprintS(4, 4, norm_between=True)) == "cncncna"
    assert kinds(SpatialSeparable(4, 4)) == "ccna"
    assert kinds(SpatialSeparable(4, 4, between=True)) == "cnacna"


def test_order_of_the_axes():
    windows = [m.kernel_size for m in SpatialSeparable(4, 4, 5, order="horizontal").modules() if hasattr(m, "stride")]
    assert windows == [(1, 5), (5, 1)]


@pytest.mark.parametrize(
    ("inputs", "ratio", "subspace"), [(64, 0.25, 16), (30, 0.25, 8), (100, 0.07, 7), (12, 1 / 6, 4), (3, 0.5, 3)]
)
def test_channels_of_the_subspace(inputs, ratio, subspace):
    block = BlueprintS(inputs, 8, ratio=ratio)
    assert (block.projection.conv.out_channels, block.blueprint.pointwise.conv.in_channels) == (subspace, subspace)


def test_the_penalty_is_zero_for_orthonormal_rows_and_counts_every_block():
    block = BlueprintS(16, 8)
    nn.init.eye_(block.projection.conv.weight.data.flatten(1))
    assert orthonormal_penalty(block).item() == 0
    block.projection.conv.weight.data *= 2
    # ‖4 I − I‖_F = 3 √4, weighted by 0.1
    assert orthonormal_penalty(block).item() == pytest.approx(0.6)
    two = nn.Sequential(block, nn.Sequential(BlueprintS(16, 8)))
    two[1][0].load_state_dict(block.state_dict())
    assert orthonormal_penalty(two, weight=1).item() == pytest.approx(12)
    assert orthonormal_penalty(BlueprintU(16, 8)).item() == 0


def test_the_penalty_can_be_trained():
    block = BlueprintS(16, 8)
    optimizer = torch.optim.SGD(block.parameters(), 0.1)
    start = orthonormal_penalty(block).item()
    for _ in range(100):
        optimizer.zero_grad()
        orthonormal_penalty(block, weight=1).backward()
        optimizer.step()
    assert start > 0.1 and orthonormal_penalty(block).item() < start / 2


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (DepthwiseSeparable, {"multiplier": 0}, r"needs numbers of at least 1, not 4 to 0 channels, kernel \(3, 3\)"),
        (SpatialSeparable, {"mid_channels": 0}, "needs numbers of at least 1, not 4 to 0 channels"),
        (BlueprintU, {"kernel": 0}, r"needs numbers of at least 1, not 8 to 8 channels, kernel \(0, 0\)"),
        (BlueprintU, {"stride": 0}, r"stride \(0, 0\), dilation 1"),
        (BlueprintS, {"ratio": 0}, "needs a subspace ratio in 0…1, not 0"),
        (BlueprintS, {"ratio": 1.5}, "needs a subspace ratio in 0…1, not 1.5"),
        (SpatialSeparable, {"order": "diagonal"}, "has the order vertical or horizontal, not diagonal"),
    ],
)
def test_options_that_make_no_convolution(block, options, message):
    with pytest.raises(LightenError, match=message):
        block(4, 8, **options)


@pytest.mark.parametrize("block", BLOCKS)
def test_export_agrees(block, tmp_path):
    model = nn.Sequential(block(6, 8, 3, 2), block(8, 4, 4, norm=None, dilation=2))
    path = tmp_path / "block.onnx"
    export_onnx(model, torch.randn(1, 6, 12, 9), path)
    assert check_parity(model, path, torch.randn(3, 6, 12, 9)).agrees
