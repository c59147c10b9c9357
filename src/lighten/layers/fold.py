"""The inference form of a network: every sum of branches as one convolution, norms folded in.

In evaluation mode a batch norm is y = (x − μ)·γ/√(σ² + ε) + β per channel, a narrow kernel is a wide one with zeros
around it, the identity is a kernel with a one in its middle, and kernels of the same stride and dilation add
(Ding et al. 2021, section 3.3).
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.layers.branches import Branches


def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in which each `Branches` is one `nn.Conv2d` that gives the same as it does in evaluation mode.

    The original is left as it was, and a block in several places stays one block. The rest of the network is only
    copied. Raises LightenError, with the name of the block and the reason, where branches don't add up to one
    convolution.
    """
    folded = copy.deepcopy(model)
    made: dict[nn.Module, nn.Conv2d] = {}
    for name, module in list(folded.named_modules(remove_duplicate=False)):
        if not isinstance(module, Branches):
            continue
        if module not in made:
            made[module] = fold_branches(module, name or type(model).__name__)
        if not name:
            return made[module]
        parent, _, child = name.rpartition(".")
        setattr(folded.get_submodule(parent), child, made[module])
    return folded


@torch.no_grad()
def fold_branches(branches: Branches, name: str) -> nn.Conv2d:
    """One convolution in place of all branches; worked out in float64."""
    lists = [layers_of(branch) for branch in branches]
    convs = [layers[0] for layers in lists if layers and isinstance(layers[0], nn.Conv2d)]
    reason = refuse(lists, convs)
    if reason is not None:
        raise LightenError(f"cannot fold '{name}': {reason}")
    like = convs[0]
    window = tuple(max(conv.kernel_size[axis] for conv in convs) for axis in (0, 1))
    parts = [kernel_and_bias(layers, like, window) for layers in lists]
    one = nn.utils.skip_init(
        nn.Conv2d,
        *(like.in_channels, like.out_channels, window, like.stride),
        padding=tuple(centred(taps, d) for taps, d in zip(window, like.dilation, strict=True)),
        dilation=like.dilation,
        groups=like.groups,
        padding_mode=like.padding_mode,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    one.weight.copy_(sum(weight for weight, _ in parts))
    one.bias.copy_(sum(bias for _, bias in parts))
    return one.train(branches.training)


def layers_of(branch: nn.Module) -> list[nn.Module]:
    """The layers of a branch one after the other, without those that do nothing."""
    if isinstance(branch, nn.Sequential):
        return [layer for child in branch for layer in layers_of(child)]
    return [] if isinstance(branch, nn.Identity) else [branch]


def refuse(lists: list[list[nn.Module]], convs: list[nn.Conv2d]) -> str | None:
    """Why these branches are not one convolution, or None."""
    for i, layers in enumerate(lists):
        for layer in layers[1:] if layers and layers[0] in convs else layers:
            if not isinstance(layer, nn.BatchNorm2d):
                kind = type(layer).__name__
                return f"its branch {i} has a {kind}; a branch may have one Conv2d and after it BatchNorm2d only"
            if layer.running_mean is None:
                return f"a norm of its branch {i} keeps no running statistics"
    if not convs:
        return "none of its branches has a convolution"
    if len({(c.in_channels, c.out_channels, c.stride, c.dilation, c.groups, c.padding_mode) for c in convs}) > 1:
        return "its convolutions differ in channels, stride, dilation, groups or padding mode"
    first = convs[0]
    for conv in convs:
        middles = tuple(centred(taps, d) for taps, d in zip(conv.kernel_size, conv.dilation, strict=True))
        if conv.padding != middles or not all(taps % 2 for taps in conv.kernel_size):
            return "its convolutions must have odd kernels, padded so that they keep the size at stride 1"
    if len(convs) < len(lists) and (first.stride != (1, 1) or first.in_channels != first.out_channels):
        return "a branch without convolution needs stride 1 and as many outputs as inputs beside it"
    return None


def centred(taps: int, dilation: int) -> int:
    """The padding on each side that keeps the size."""
    return dilation * (taps - 1) // 2


def kernel_and_bias(layers: list[nn.Module], like: nn.Conv2d, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """w (O, I of one group, window), b (O), in float64, of the one convolution that does what a branch does."""
    if layers and isinstance(layers[0], nn.Conv2d):
        conv, *norms = layers
        weight = conv.weight.double()
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.double()
    else:
        norms, per_group = layers, like.in_channels // like.groups
        eye = torch.eye(per_group, dtype=torch.float64, device=like.weight.device)
        weight = eye.repeat(like.groups, 1)[..., None, None]
        bias = torch.zeros_like(weight[:, 0, 0, 0])
    height, width = ((to - taps) // 2 for to, taps in zip(window, weight.shape[2:], strict=True))
    weight = F.pad(weight, (width, width, height, height))
    for norm in norms:
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.double()
        weight = weight * scale[:, None, None, None]
        bias = (bias - norm.running_mean.double()) * scale
        if norm.affine:
            bias = bias + norm.bias.double()
    return weight, bias
