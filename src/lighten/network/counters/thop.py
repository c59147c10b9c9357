"""The "MACs" of thop 0.1.1: layers of known types, with norms, average pooling, softmax and resizing."""

import math
from collections import Counter
from collections.abc import Callable

from torch import nn

from lighten.network.cost import CONVOLUTIONS, TRANSPOSED, count_macs
from lighten.network.counters.amounts import Amounts, met, of_modules
from lighten.network.record import ModuleCall, Record, Shape

RULES = {  # {beginning of a kind: how it counts}
    "": "MACs",
    "convtranspose": "products of a plain convolution of its output",
    **dict.fromkeys(("batchnorm", "layernorm", "instancenorm"), "4 per element, 2 without scale and shift"),
    "prelu": "1 per element",
    "softmax": "3 per element, less 1 per row",
    "avgpool": "1 per element of the output",
    "adaptiveavgpool": "the size of the window and 1, per element of the output",
    "upsampl": "1, 5, 11 or 259 per element of the output, by mode",
    **dict.fromkeys(("rnn", "lstm", "gru"), "MACs, biases and products of gates"),
}
RESIZINGS = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}  # others count nothing
Amount = Callable[[nn.Module, Shape, Shape], int]  # of the module, and the shapes of its input and output


def thop(found: Record) -> Amounts:
    """Of `profile(model, inputs)`, exactly, but for packed sequences.

    Only modules of the very types in COUNTED count: no subclass, no GroupNorm or attention, no function. Biases don't
    count, but those of recurrent layers do; a transposed convolution counts as a plain one would that made its output.
    LSTM projections are overlooked. A module with n parents is hooked n times and added up n times: it counts n² fold.
    """
    places = Counter(met(found.model, lambda module: type(module) in COUNTED))

    def amount(call: ModuleCall) -> int:
        formula = COUNTED.get(type(call.module))
        if not formula:
            return 0
        return places[call.module] ** 2 * formula(call.module, call.inputs[0], call.outputs[0])

    return of_modules(found, amount)


def convolution(module: nn.Module, given: Shape, made: Shape) -> int:
    """Every output as many products as the kernel has taps over the input channels of a group."""
    return math.prod(made) * (given[1] // module.groups) * math.prod(module.kernel_size)


def norm(module: nn.Module, given: Shape, made: Shape) -> int:
    """BatchNorm and InstanceNorm say `affine`, LayerNorm `elementwise_affine`."""
    is_affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return math.prod(given) * (4 if is_affine else 2)


def softmax(module: nn.Module, given: Shape, made: Shape) -> int:
    """An exponential and a division per element, and the sum of each row."""
    row = given[module.dim]
    return math.prod(given) // row * (3 * row - 1)


def adaptive_average(module: nn.Module, given: Shape, made: Shape) -> int:
    """Sum and division; the window is a fraction where the sizes don't divide."""
    window = math.prod(before / after for before, after in zip(given[2:], made[2:], strict=True))
    return int((window + 1) * math.prod(made))


def resizing(module: nn.Module, given: Shape, made: Shape) -> int:
    """By mode."""
    return RESIZINGS.get(module.mode, 0) * math.prod(made)


def cell(module: nn.Module, num_inputs: int) -> int:
    """One step of one layer in one direction, for one sample."""
    width = module.hidden_size
    gate = width * (num_inputs + width) + width + (2 * width if module.bias else 0)
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return 4 * gate + 4 * width
    return 3 * gate + 4 * width if isinstance(module, (nn.GRU, nn.GRUCell)) else gate


def recurrent(module: nn.Module, given: Shape, made: Shape) -> int:
    """All layers and directions, for every step of every sample."""
    directions = 2 if module.bidirectional else 1
    deeper = (module.num_layers - 1) * cell(module, directions * module.hidden_size)
    return math.prod(given[:2]) * directions * (cell(module, module.input_size) + deeper)


COUNTED: dict[type[nn.Module], Amount] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED), convolution),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm), norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), norm),
    nn.Linear: lambda module, given, made: count_macs(module, given, made) or 0,
    nn.PReLU: lambda module, given, made: math.prod(given),
    nn.Softmax: softmax,
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), lambda module, given, made: math.prod(made)),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), adaptive_average),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d), resizing),
    **dict.fromkeys((nn.RNN, nn.GRU, nn.LSTM), recurrent),
    **dict.fromkeys(
        (nn.RNNCell, nn.GRUCell, nn.LSTMCell),
        lambda module, given, made: given[0] * cell(module, module.input_size),
    ),
}
