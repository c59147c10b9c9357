"""The "MACs" of ptflops 0.7.5 with its default backend, which hooks modules and replaces functions of PyTorch."""

import math
from collections import Counter
from collections.abc import Callable

from torch import nn

from lighten.network.cost import CONVOLUTIONS, TRANSPOSED, count_macs
from lighten.network.counters.amounts import Amounts, is_adaptive_average, met, of_modules, of_operators
from lighten.network.record import ModuleCall, OperatorCall, Record, Shape

RULES = {  # {beginning of a kind: how it counts}
    "": "the functions that it calls",
    **dict.fromkeys(("conv", "linear"), "MACs, and 1 per output for the bias"),
    "matmul": "MACs",
    **dict.fromkeys(("batchnorm", "instancenorm", "groupnorm"), "2 per element, 1 without scale and shift"),
    **dict.fromkeys(("layernorm", "leakyrelu", "relu6", "silu", "softmax"), "1 per element"),
    **dict.fromkeys(("relu", "prelu", "elu", "gelu"), "1 per element as a module and 1 as a function"),
    **dict.fromkeys(
        ("maxpool", "avgpool", "adaptivemax", "adaptiveavg"),
        "1 per element of the input as a module and 1 as a function",
    ),
    "upsample": "1 per element of the output as a module and 1 as a function",
    **dict.fromkeys(("rnn", "lstm", "gru"), "MACs, biases and products of gates"),
    "multiheadattention": "projections with biases, both products, scaling and softmax",
    "attention": "both products, scaling and softmax, without the projections",
}
TIMM_ATTENTION = "timm.layers.attention.Attention"
FUNCTIONS = {  # per element of the input; whoever calls them, modules as well
    *("relu", "_prelu_kernel", "elu", "gelu", "silu", "hardtanh", "_softmax", "avg_pool2d", "avg_pool3d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d"),
}
UNREPLACED = (  # call other functions, or keep theirs from before they are replaced
    *(nn.Hardtanh, nn.SELU, nn.CELU, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
Amount = Callable[[nn.Module, tuple[Shape, ...], Shape], int]  # of the module, and the shapes of its inputs and output


def ptflops(found: Record) -> Amounts:
    """Of `get_model_complexity_info(model, shape, as_strings=False)`, whose batch has one sample.

    Modules of the very types in COUNTED count, and besides them the functions of activations, pooling, resizing,
    softmax and products of matrices. Since modules call those functions, ReLU, ELU, PReLU, GELU, pooling and upsampling
    count twice, but ReLU6, LeakyReLU and the norms once, and SiLU and Softmax once as functions. Convolution and linear
    as functions count nothing, nor do fused attention, `+`, `*` and most other activations. Nothing inside a counted
    module is added up, so that timm's Attention loses its projections. A module with n parents counts n fold.

    It differs where the operators of a pass don't show which function was called: it counts `torch.add` and `torch.mul`
    (here they are 0), but not `x @ y`, `x.softmax()` and `einsum` (here products and softmax count), nor a mean with
    `keepdim=True` (which is how PyTorch pools to one place). Resizing by a fraction counts fractions of places there.
    It fails on packed sequences.
    """
    places = Counter(met(found.model, lambda module: formula_of(module) is not None))

    def amount(call: ModuleCall) -> int:
        formula = formula_of(call.module)
        return places[call.module] * formula(call.module, call.inputs, call.outputs[0]) if formula else 0

    return of_modules(found, amount) + of_operators(found, amount_of_function)


def amount_of_function(call: OperatorCall) -> int:
    """Of one operator, as far as a function that is replaced calls it."""
    if call.operator in FUNCTIONS or is_adaptive_average(call):
        return 0 if isinstance(call.module, UNREPLACED) else math.prod(call.inputs[0])
    if call.operator.startswith("upsample_"):
        return math.prod(call.outputs[0])
    if call.operator in ("bmm", "baddbmm"):
        return (call.macs or 0) + (math.prod(call.inputs[0]) if call.operator == "baddbmm" else 0)
    is_layer = type(call.module).__module__.startswith("torch.nn.")  # which multiplies by F.linear
    return (call.macs or 0) if call.operator == "mm" and not is_layer else 0


def formula_of(module: nn.Module) -> Amount | None:
    """How a module counts, if it does."""
    kind = type(module)
    return timm_attention if f"{kind.__module__}.{kind.__qualname__}" == TIMM_ATTENTION else COUNTED.get(kind)


def weighted(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """MACs, and an addition per output for the bias."""
    return (count_macs(module, given[0], made) or 0) + (0 if module.bias is None else math.prod(made))


def norm(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """LayerNorm has no attribute of this name, and counts 1 for each element."""
    return math.prod(given[0]) * (2 if getattr(module, "affine", False) else 1)


def of_input(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """1 per element."""
    return math.prod(given[0])


def of_output(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """1 per element."""
    return math.prod(made)


def cell(module: nn.Module, suffix: str = "") -> int:
    """One step of one layer, of which only the forward direction is looked at; a bias is counted on both sides."""
    gates = {nn.RNN: 1, nn.RNNCell: 1, nn.GRU: 7, nn.GRUCell: 7, nn.LSTM: 10, nn.LSTMCell: 10}[type(module)]
    names = [f"weight_ih{suffix}", f"weight_hh{suffix}"]
    names += [f"bias_ih{suffix}", f"bias_hh{suffix}"] if module.bias else []
    return sum(getattr(module, name).numel() for name in names) + gates * module.hidden_size


def recurrent(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """All layers, for every step of every sample."""
    steps = math.prod(given[0][:2]) * (2 if module.bidirectional else 1)
    return steps * sum(cell(module, f"_l{i}") for i in range(module.num_layers))


def multihead(module: nn.MultiheadAttention, given: tuple[Shape, ...], made: Shape) -> int:
    """Scaling, projections as wide as their inputs, then for each head both products and the softmax."""
    (num_queries, num_keys, num_values) = (shape[1 if module.batch_first else 0] for shape in given[:3])
    (width, key_width, value_width) = (shape[2] for shape in given[:3])
    head, value_head = width // module.num_heads, value_width // module.num_heads
    found = num_queries * width * (1 + width) + num_keys * key_width**2 + num_values * value_width**2
    if module.in_proj_bias is not None:
        found += (num_queries + num_keys + num_values) * width
    found += module.num_heads * num_queries * num_keys * (head + 1 + value_head)
    found += num_queries * value_width * (value_width + 1)
    return found * given[0][0 if module.batch_first else 1]


def timm_attention(module: nn.Module, given: tuple[Shape, ...], made: Shape) -> int:
    """Scaling, both products and the softmax of each head."""
    batch, places, _ = given[0]
    return batch * places * module.num_heads * (module.head_dim + places * (2 * module.head_dim + 1))


COUNTED: dict[type[nn.Module], Amount] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED, nn.Linear), weighted),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm), norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), norm),
    **dict.fromkeys((nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU), of_input),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), of_input),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), of_input),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), of_input),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), of_input),
    nn.Upsample: of_output,
    **dict.fromkeys((nn.RNN, nn.GRU, nn.LSTM), recurrent),
    **dict.fromkeys(
        (nn.RNNCell, nn.GRUCell, nn.LSTMCell), lambda module, given, made: math.prod(given[0][:1]) * cell(module)
    ),
    nn.MultiheadAttention: multihead,
}
