"""Convolutions that train as several and run as one, and stacks of small ones in place of a large one.

They are made by the call that `lighten.layers.separable` describes; `lighten.layers.fold` makes one of several.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from lighten.errors import LightenError
from lighten.layers.conv_norm import Activation, ConvNorm, Norm
from lighten.layers.parallel import Sum


class Branches(Sum):
    """A sum that `fold` writes as one convolution.

    A branch is a convolution and batch norms after it, or batch norms alone, or the identity; the convolutions share
    stride, dilation and groups, and keep the size at stride 1.
    """


class AsymmetricConv(nn.Sequential):
    """k×k + 1×k + k×1, each with its norm, then the activation: ACNet's block (Ding et al. 2019, section 3.2).

    Raises LightenError for a kernel that has no middle.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
    ):
        check_odd(kernel, "an asymmetric convolution")
        windows = ((kernel, kernel), (1, kernel), (kernel, 1))
        branches = branches_of(windows, in_channels, out_channels, stride, dilation, groups, norm)
        super().__init__(then(branches, activation))


class RepVggConv(nn.Sequential):
    """k×k + 1×1 + identity, each with its norm, then the activation: RepVGG's block (Ding et al. 2021, section 3.2).

    The identity is there at stride 1 where the channels don't change. groups = in_channels makes it depthwise.
    Raises LightenError for a kernel that has no middle.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation | None = nn.ReLU,
    ):
        check_odd(kernel, "a re-parameterised convolution")
        windows = ((kernel, kernel), (1, 1))
        branches = branches_of(windows, in_channels, out_channels, stride, dilation, groups, norm)
        if in_channels == out_channels and stride == 1:
            branches.append(nn.Identity() if norm is None else norm(in_channels))
        super().__init__(then(branches, activation))


class StackedConv(nn.Sequential):
    """(k − 1)/2 convolutions of 3×3 that see what one of k×k sees (Simonyan & Zisserman 2015, section 2.3).

    Norm and activation follow each. The last one has the stride, so that the outputs look at the same places.
    Raises LightenError for a kernel that 3×3 can't make up.
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
    ):
        check_odd(kernel, "a stack of 3×3 convolutions")
        num_layers = (kernel - 1) // 2
        super().__init__(
            *(
                ConvNorm(
                    in_channels if i == 0 else out_channels,
                    out_channels,
                    stride=stride if i == num_layers - 1 else 1,
                    norm=norm,
                    activation=activation,
                    dilation=dilation,
                )
                for i in range(num_layers)
            )
        )


def branches_of(
    windows: Sequence[tuple[int, int]],
    in_channels: int,
    out_channels: int,
    stride: int,
    dilation: int,
    groups: int,
    norm: Norm | None,
) -> Branches:
    """A convolution with its norm for each window."""
    return Branches(
        ConvNorm(in_channels, out_channels, window, stride, groups, norm, None, dilation=dilation) for window in windows
    )


def then(branches: Branches, activation: Activation | None) -> OrderedDict[str, nn.Module]:
    """The layers of a block: the sum and, where there is one, the activation after it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(branches=branches)
    if activation is not None:
        layers["activation"] = activation()
    return layers


def check_odd(kernel: int, what: str) -> None:
    """Raise LightenError unless the kernel is 3, 5, 7, …"""
    if kernel < 3 or kernel % 2 == 0:
        raise LightenError(f"{what} needs an odd kernel of at least 3, not {kernel}")
