"""The "flops" of fvcore 0.1.5: multiply-accumulates of matrices, with norms and a few poolings and resizings."""

import math

from torch import nn

from lighten.network.counters.amounts import Amounts, is_adaptive_average, of_operators
from lighten.network.record import OperatorCall, Record

RULES = {  # {beginning of a kind: how it counts}
    "": "MACs",
    **dict.fromkeys(("batchnorm", "native_batch"), "2 per element, 1 without scale and shift"),
    **dict.fromkeys(("layernorm", "groupnorm", "instancenorm", "native_"), "5 per element, 4 without scale and shift"),
    **dict.fromkeys(("adaptiveavgpool", "_adaptive", "mean"), "1 per element of the input"),
    **dict.fromkeys(("upsampl", "grid_sampler"), "1 per element of the output, or 4 if bilinear"),
}
PRODUCTS = {"mm", "addmm", "bmm", "linear"}
NORMS = {"native_layer_norm", "native_group_norm"}
RESIZINGS = {"upsample_nearest2d": 1, "upsample_bilinear2d": 4, "grid_sampler_2d": 4, "grid_sampler_3d": 4}


def fvcore(found: Record) -> Amounts:
    """Of `FlopCountAnalysis(model, inputs).total()` in evaluation mode.

    Convolutions and products of matrices count as MACs, whoever runs them; recurrent layers, attention as one function,
    `baddbmm` and a convolution whose padding is a word ("same") have no rule and count 0. A norm counts 5 per element,
    4 without scale and shift; BatchNorm with running statistics 2 and 1. Adaptive average pooling in two dimensions
    counts 1 per input, nearest resizing 1 and bilinear resizing 4 per output, sampling on a grid 4.

    It differs where the operators of a pass don't show what the tool sees in its trace: it rounds most of `einsum` to
    four digits, leaves out what `tensordot` and the like do inside, counts `x @ y` without the batch axes that only `y`
    has, and no mean with `keepdim=True` (which is how PyTorch pools to one place). It fails on the product of a matrix
    and a vector, and where a norm has one axis or more than five.
    """
    return of_operators(found, amount)


def amount(call: OperatorCall) -> int:
    """Of one operator."""
    match call.operator:
        case "convolution":
            return 0 if has_named_padding(call.module) else call.macs or 0
        case name if name in PRODUCTS:
            return call.macs or 0
        case "native_batch_norm":
            return math.prod(call.inputs[0]) * batch_norm_factor(call)
        case name if name in NORMS:
            return math.prod(call.inputs[0]) * (4 if len(call.inputs) == 1 else 5)
        case name if name in RESIZINGS:
            return math.prod(call.outputs[0]) * RESIZINGS[name]
    is_other = isinstance(call.module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool3d))
    if is_adaptive_average(call) and len(call.inputs[0]) == 4 and not is_other:
        return math.prod(call.inputs[0])
    return 0


def has_named_padding(module: nn.Module) -> bool:
    """Whether a layer leaves its padding to an operator that the tool doesn't know."""
    return isinstance(getattr(module, "padding", 0), str) and module.padding_mode == "zeros"


def batch_norm_factor(call: OperatorCall) -> int:
    """Per element. The operator reads scale, shift, mean and variance as far as there are any; x comes first."""
    is_affine, has_statistics = len(call.inputs) == 5, len(call.inputs) > 1
    if len(call.inputs) == 3:
        has_statistics = getattr(call.module, "running_mean", None) is not None
        is_affine = not has_statistics
    if isinstance(call.module, nn.modules.instancenorm._InstanceNorm) or not has_statistics:
        return 5 if is_affine else 4
    return 2 if is_affine else 1
