"""What a rewrite is: a refusal with a reason, or factors whose product comes near a trained kernel.

Axes of kernels: B groups of the convolution, O outputs and I inputs *of one group*, K taps (height × width).
A layer of one group has B = 1; a linear layer is a convolution with K = 1.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lighten.network.cost import CONVOLUTIONS

Options = dict[str, int | str]
Factors = tuple[Tensor, ...]
Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@dataclass(frozen=True, slots=True)
class Shape:
    """A kernel's axes: groups, outputs and inputs per group, and the size of its window."""

    num_groups: int
    num_outputs: int
    num_inputs: int
    window: tuple[int, ...]

    @property
    def num_taps(self) -> int:
        """Taps of the window: the K axis."""
        return torch.Size(self.window).numel()


class Rewrite(Protocol):
    """One way to write a trained layer with less work; `options` are JSON values and rebuild the structure alone."""

    name: str

    def refuse(self, shape: Shape) -> str | None:
        """Why this kernel can't be written so, or None."""

    def grid(self, shape: Shape) -> list[Options]:
        """The ranks worth trying, from light to heavy."""

    def forms(self, shape: Shape, options: Options) -> list[str]:
        """Ways to lay the same factors out as layers; the first is the simplest."""

    def check(self, shape: Shape, options: Options) -> str | None:
        """What is wrong with options that a hand-edited plan may hold, or None."""

    def start(self, w_BOIK: Tensor, shape: Shape, options: Options, c_BPP: Tensor, g_BOO: Tensor) -> Factors:
        """Factors near the best ones in the norm of the moments, in closed form; P = I·K."""

    def kernel(self, factors: Factors, shape: Shape, options: Options) -> Tensor:
        """w_BOIK: the equivalent kernel, linear in each factor."""

    def build(self, layer: Layer, options: Options, factors: Factors | None = None) -> nn.Module:
        """The layers that replace `layer`; empty weights where no factors are given. `options` include the form."""


def shape_of(layer: Layer) -> Shape:
    """The kernel axes of a convolution or linear layer."""
    if isinstance(layer, nn.Linear):
        return Shape(1, layer.out_features, layer.in_features, (1,))
    groups = layer.groups
    return Shape(groups, layer.out_channels // groups, layer.in_channels // groups, tuple(layer.kernel_size))


def kernel_of(layer: Layer) -> Tensor:
    """w_BOIK of a trained layer, in float32."""
    shape = shape_of(layer)
    return layer.weight.detach().float().reshape(shape.num_groups, shape.num_outputs, shape.num_inputs, -1)


def convolution(
    layer: Layer, in_channels: int, out_channels: int, groups: int = 1, axes: Collection[int] = (), bias: bool = False
) -> nn.Module:
    """A layer of the same type, dtype and device; the spatial `axes` carry the old window, stride, padding, dilation.

    The other axes have a window of 1. in_channels and out_channels are of the whole layer.
    """
    factory = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Linear(in_channels, out_channels, bias=bias, **factory)

    def carried(values: tuple[int, ...], neutral: int) -> tuple[int, ...]:
        return tuple(v if axis in axes else neutral for axis, v in enumerate(values))

    text = isinstance(layer.padding, str)
    padding = (layer.padding if axes else 0) if text else carried(layer.padding, 0)
    pads = padding == "same" or (not isinstance(padding, str) and any((padding,) if padding == 0 else padding))
    return type(layer)(
        in_channels,
        out_channels,
        carried(layer.kernel_size, 1),
        carried(layer.stride, 1),
        padding,
        carried(layer.dilation, 1),
        groups,
        bias,
        layer.padding_mode if pads else "zeros",
        **factory,
    )


def all_axes(layer: Layer) -> range:
    """Every spatial axis of the layer."""
    return range(0 if isinstance(layer, nn.Linear) else len(layer.kernel_size))


@torch.no_grad()
def fill(layer: nn.Module, weight: Tensor | None, bias: Tensor | None = None) -> None:
    """Copy a factor, of any shape with the right number of elements, into a layer's weight; and a bias."""
    if weight is not None:
        layer.weight.copy_(weight.reshape(layer.weight.shape))
    if bias is not None:
        layer.bias.copy_(bias)


def is_rewritable(layer: nn.Module) -> bool:
    """Whether rewrites know this type of layer at all."""
    return isinstance(layer, (*CONVOLUTIONS, nn.Linear))


def rank_grid(largest: int, count: int = 8) -> list[int]:
    """About `count` ranks up to `largest`; from 16 on multiples of 8 only, which runtimes are fast at."""
    even = {max(1, round(largest * k / count)) for k in range(1, count + 1)}
    return sorted({min(largest, max(8, round(r / 8) * 8)) if r >= 16 else r for r in even})
