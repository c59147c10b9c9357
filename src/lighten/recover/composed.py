"""Training through the equivalent dense kernel: the same factors, one convolution instead of several.

Small separable layers are slow to train layer by layer: their work is little, their overhead and stored activations
are not. The kernel that the factors compose to costs next to nothing to work out, and the gradients reach the same
parameters, so the network that is trained is the same one.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.network.cost import CONVOLUTIONS


@contextmanager
def composed(lighter: nn.Module, original: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, the named convolutions of `lighter` run as one dense convolution each, where that is possible."""
    changed = []
    for name in names:
        layer, module = original.get_submodule(name), lighter.get_submodule(name)
        if isinstance(layer, CONVOLUTIONS) and layer.groups == 1:
            module.forward = dense_forward(layer, module)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def dense_forward(layer: nn.Module, module: nn.Module):
    """What `module` computes, as one convolution with the stride, padding and dilation of `layer`."""
    biases = [parameter for name, parameter in module.named_parameters() if name.endswith("bias")]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = dense_weight(module, next(module.parameters()), layer.in_channels).reshape(layer.weight.shape)
        return layer._conv_forward(x, weight, sum(biases) if biases else None)

    return forward


def dense_weight(module: nn.Module, like: Tensor, in_channels: int) -> Tensor:
    """w (outputs, inputs, window…) of the one convolution without groups that does what these layers do together.

    like: any of their weights, for the number of axes, dtype and device.
    """
    match module:
        case nn.Sequential():
            weight = dense_weight(module[0], like, in_channels)
            for layer in module[1:]:
                weight = chain(weight, dense_weight(layer, like, weight.shape[0]))
            return weight
        case Sum():
            return sum(dense_weight(branch, like, in_channels) for branch in module)
        case Concat():
            return torch.cat([dense_weight(branch, like, in_channels) for branch in module])
        case Repeat():
            copies = torch.eye(in_channels, dtype=like.dtype, device=like.device).repeat(module.times, 1)
            return copies[(..., *[None] * (like.ndim - 2))]
    return without_groups(module)


def chain(first: Tensor, second: Tensor) -> Tensor:
    """The kernel of two convolutions in a row, of which along each axis of the window at most one is wider than 1."""
    window = [max(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    product = second.flatten(2).permute(2, 0, 1)[:, None] @ first.flatten(2).permute(2, 0, 1)[None]
    if math.prod(first.shape[2:]) == 1 or math.prod(second.shape[2:]) == 1:
        return product.flatten(0, 1).permute(1, 2, 0).unflatten(2, window)
    taps = product.view(*second.shape[2:], *first.shape[2:], *product.shape[2:])
    num_axes = len(window)
    order = [axis for pair in zip(range(num_axes), range(num_axes, 2 * num_axes), strict=True) for axis in pair]
    return taps.permute(*order, -2, -1).reshape(*window, *product.shape[2:]).movedim((-2, -1), (0, 1))


def without_groups(layer: nn.Module) -> Tensor:
    """The weight of a convolution, with zeros where its groups don't mix."""
    weight, groups = layer.weight, layer.groups
    if groups == 1:
        return weight
    w_BOI = weight.unflatten(0, (groups, -1))
    blocks = torch.eye(groups, dtype=weight.dtype, device=weight.device).view(
        groups, 1, groups, 1, *[1] * (weight.ndim - 2)
    )
    return (blocks * w_BOI[:, :, None]).flatten(2, 3).flatten(0, 1)
