"""What a convention gives: amounts of the modules and operators that it counts, by name and kind."""

import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator

from torch import nn

from lighten.network.record import ModuleCall, OperatorCall, Record
from lighten.network.trace import is_layer, kind_of

Amounts = dict[tuple[str, str], int]  # {(name of the module, kind): amount}


def of_modules(found: Record, amount: Callable[[ModuleCall], int]) -> Counter[tuple[str, str]]:
    """What a tool counts that hooks modules and looks at the first tensor in and out; calls without tensors are 0."""
    amounts: Counter[tuple[str, str]] = Counter()
    for call in found.modules:
        if call.inputs and call.outputs:
            amounts[call.name, kind_of(call.module)] += amount(call)
    return amounts


def of_operators(found: Record, amount: Callable[[OperatorCall], int]) -> Counter[tuple[str, str]]:
    """What a tool counts that watches operators; those inside recurrent layers and parametrizations are 0."""
    amounts: Counter[tuple[str, str]] = Counter()
    of_attention = products_of_attention(found)
    for index, call in enumerate(found.operators):
        if not call.is_inside and index not in of_attention:
            kind = kind_of(call.module) if is_layer(call.module) else call.kind or call.operator
            amounts[call.name, kind] += amount(call)
    return amounts


def products_of_attention(found: Record) -> set[int]:
    """Indices of what `scaled_dot_product_attention` runs where it has no fused operator, and tools don't see.

    They are the product before and the product after a softmax of a kind that nothing else uses.
    """
    products = [index for index, call in enumerate(found.operators) if call.operator in ("mm", "bmm")]
    softmaxes = [index for index, call in enumerate(found.operators) if call.operator == "_safe_softmax"]
    places = [bisect(products, index) for index in softmaxes]
    return {index for place in places for index in products[max(place - 1, 0) : place + 1]}


def met(module: nn.Module, is_end: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    """The modules that a tool meets which walks down the tree: one with two parents comes twice, below an end none."""
    yield module
    if not is_end(module):
        for child in module.children():
            yield from met(child, is_end)


def is_adaptive_average(call: OperatorCall) -> bool:
    """Whether an operator is adaptive average pooling; to a single place PyTorch runs it as a mean.

    The same mean, taken with `keepdim=True`, can't be told from it.
    """
    if call.operator in ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"):
        return True
    given, made = call.inputs, call.outputs
    is_kept = call.operator == "mean" and len(given[0]) == len(made[0]) > 3
    return is_kept and made[0][:2] == given[0][:2] and math.prod(made[0][2:]) == 1
