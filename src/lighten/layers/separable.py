"""Convolutions made of smaller ones, each made by the same call, to stand where a dense `ConvNorm` stands.

`Block(in_channels, out_channels, kernel, stride, dilation=…, norm=…, activation=…)` maps (N, in_channels, H, W) to
(N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉). Norm and activation, of which each may be None, follow the whole block.
All raise LightenError for options that make no convolution.
"""

import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.layers.conv_norm import Activation, ConvNorm, Norm, Pair

MIN_SUBSPACE = 4  # channels, as in the authors' implementation of BSConv-S


class DepthwiseSeparable(nn.Sequential):
    """Depthwise, then pointwise (Howard et al. 2017, section 3.1): k²·M·m + m·M·N weights.

    M, N: input and output channels. multiplier m: depthwise filters per input channel. between: norm and activation
    follow the depthwise convolution too, as in MobileNet V1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
        between: bool = True,
        multiplier: int = 1,
    ):
        mid_channels = in_channels * multiplier
        depthwise = inner(
            *(in_channels, mid_channels, kernel, stride, in_channels),
            norm=norm if between else None,
            activation=activation if between else None,
            dilation=dilation,
        )
        pointwise = ConvNorm(mid_channels, out_channels, 1, norm=norm, activation=activation)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


class BlueprintU(nn.Sequential):
    """Pointwise, then depthwise: BSConv-U (Haase & Amthor 2020, section 3), M·N + k²·N weights.

    norm_between: a norm, never an activation, follows the pointwise convolution too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
        norm_between: bool = False,
    ):
        pointwise = inner(in_channels, out_channels, 1, norm=norm if norm_between else None)
        depthwise = ConvNorm(
            *(out_channels, out_channels, kernel, stride, out_channels, norm, activation), dilation=dilation
        )
        super().__init__(OrderedDict(pointwise=pointwise, depthwise=depthwise))


class BlueprintS(nn.Sequential):
    """Two pointwise convolutions, then depthwise: BSConv-S (Haase & Amthor 2020, section 3), M·S + S·N + k²·N weights.

    ratio p: the first pointwise convolution maps to a subspace of S = ⌈p·M⌉ channels, but at least 4 and at most M.
    norm_between: a norm, never an activation, follows both pointwise convolutions too. Train with
    `orthonormal_penalty`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
        norm_between: bool = False,
        ratio: float = 0.25,
    ):
        if not 0 < ratio <= 1:
            raise LightenError(f"a blueprint separable convolution needs a subspace ratio in 0…1, not {ratio}")
        subspace = min(in_channels, max(MIN_SUBSPACE, math.ceil(round(ratio * in_channels, 6))))
        blueprint = BlueprintU(
            *(subspace, out_channels, kernel, stride),
            dilation=dilation,
            norm=norm,
            activation=activation,
            norm_between=norm_between,
        )
        projection = inner(in_channels, subspace, 1, norm=norm if norm_between else None)
        super().__init__(OrderedDict(projection=projection, blueprint=blueprint))


def orthonormal_penalty(model: nn.Module, weight: float = 0.1) -> Tensor:
    """weight · Σ ‖W Wᵀ − I‖_F over all BSConv-S layers of `model`, to be added to the loss; 0 where it has none.

    W (S, M): the projection onto the subspace, whose rows shall stay orthonormal (Haase & Amthor 2020, section 3).
    """
    penalty = torch.zeros(())
    for module in model.modules():
        if isinstance(module, BlueprintS):
            w_SM = module.projection.conv.weight.flatten(1)
            eye = torch.eye(len(w_SM), dtype=w_SM.dtype, device=w_SM.device)
            penalty = penalty.to(w_SM) + torch.linalg.norm(w_SM @ w_SM.T - eye)
    return weight * penalty


class SpatialSeparable(nn.Sequential):
    """k×1, then 1×k, in series (Jaderberg et al. 2014, scheme 2): k·M·R + k·R·N weights.

    order: which axis comes first. mid_channels R: N unless given. between: norm and activation follow the first
    convolution too, as in Inception V3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
        between: bool = False,
        mid_channels: int | None = None,
        order: Literal["vertical", "horizontal"] = "vertical",
    ):
        axes = {"vertical": ((kernel, 1), (stride, 1)), "horizontal": ((1, kernel), (1, stride))}
        if order not in axes:
            raise LightenError(f"a spatially separable convolution has the order vertical or horizontal, not {order}")
        then = "horizontal" if order == "vertical" else "vertical"
        mid_channels = out_channels if mid_channels is None else mid_channels
        first = inner(
            *(in_channels, mid_channels, *axes[order]),
            norm=norm if between else None,
            activation=activation if between else None,
            dilation=dilation,
        )
        second = ConvNorm(
            *(mid_channels, out_channels, *axes[then]), norm=norm, activation=activation, dilation=dilation
        )
        super().__init__(OrderedDict([(order, first), (then, second)]))


def inner(
    in_channels: int,
    out_channels: int,
    kernel: Pair,
    stride: Pair = 1,
    groups: int = 1,
    *,
    norm: Norm | None = None,
    activation: Activation | None = None,
    dilation: int = 1,
) -> ConvNorm:
    """A convolution that another follows: it has no bias where that one follows at once and makes up for it."""
    bias = None if activation is not None else False
    return ConvNorm(
        *(in_channels, out_channels, kernel, stride, groups, norm, activation), dilation=dilation, bias=bias
    )
