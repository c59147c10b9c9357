"""The "mult-adds" of torchinfo 1.8.0: parameters, times the places at which they are used."""

import math

import torch

from lighten.network.counters.amounts import Amounts, of_modules
from lighten.network.record import ModuleCall, Record

RULES = {  # {beginning of a kind: how it counts}
    "": "parameters, once for the sample",
    "conv": "weight and bias, times output places",
    "linear": "weight and bias, once for the sample",
    "batchnorm": "its scale and shift, once for the sample",
    "embedding": "the whole table, once for the sample",
    **dict.fromkeys(("rnn", "lstm", "gru"), "weights and biases, at every step"),
}


def torchinfo(found: Record) -> Amounts:
    """Of `summary(model, input_data=…).total_mult_adds`, exactly, but for packed sequences and scripted modules.

    Only modules without parts count, each call of them. `weight` and `bias` count once for each place of the output in
    a class with "Conv" in its name (a transposed one too, where the places of its input would be right), and once for
    each sample in any other: so a linear layer over a sequence counts one step of it, a norm its parameters, and an
    embedding its whole table. Other parameters with "weight" or "bias" in their name, those of recurrent layers, count
    once for each entry of both first axes of the output. Masked weights count where the mask is 1. Functions, and
    layers with parametrizations (which are parts), count nothing.
    """
    return of_modules(found, amount)


def amount(call: ModuleCall) -> int:
    """Of one call."""
    module, made = call.module, call.outputs[0]
    if any(module.children()):  # parts that are empty containers are false, so that they don't count as parts
        return 0
    places = math.prod(made[:1] + made[2:]) if "Conv" in type(module).__name__ else made[0] if made else 1
    found = 0
    for name, parameter in module.named_parameters():
        size, kept = parameter.numel(), name.removesuffix("_orig")
        if kept != name and hasattr(module, f"{kept}_mask"):
            name, size = kept, int(torch.sum(getattr(module, f"{kept}_mask")))
        if name in ("weight", "bias"):
            found += size * places
        elif "weight" in name or "bias" in name:
            found += size * math.prod(made[:2])
    return found
