"""What PyTorch's own operators cost, whoever calls them: a layer, a function, or `@`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

Arguments = tuple[Any, ...]


def convolution(args: Arguments, output: Tensor) -> int:
    """Every output, of a transposed one every input, takes part in as many products as its kernel has taps."""
    inputs, weight, is_transposed = args[0], args[1], len(args) > 6 and args[6]
    places = inputs if is_transposed else output
    return places.numel() * math.prod(weight.shape[1:])


def product(first: int) -> Callable[[Arguments, Tensor], int]:
    """Of a matrix product whose factors are the arguments `first` and the next; batched, or with a vector, too."""

    def macs(args: Arguments, output: Tensor) -> int:
        left, right = args[first], args[first + 1]
        return left.numel() * (right.shape[-1] if right.ndim > 1 else 1)

    return macs


def linear(args: Arguments, output: Tensor) -> int:
    """x (…, I), weight (O, I)."""
    return args[0].numel() * args[1].shape[0]


def attention(args: Arguments, output: Any) -> int:
    """q (…, L, E), k (…, S, E), v (…, S, V): both products of softmax(q kᵀ) v (Vaswani et al. 2017, equation 1)."""
    query, keys, values = args[:3]
    return math.prod(query.shape[:-1]) * keys.shape[-2] * (query.shape[-1] + values.shape[-1])


FORMULAS: dict[str, tuple[str, Callable[[Arguments, Any], int]]] = {  # {operator: (what it is called here, its MACs)}
    "convolution": ("convolution", convolution),
    "_convolution": ("convolution", convolution),
    "mm": ("matmul", product(0)),
    "bmm": ("matmul", product(0)),
    "mv": ("matmul", product(0)),
    "dot": ("matmul", product(0)),
    "vdot": ("matmul", product(0)),
    "addmm": ("matmul", product(1)),
    "baddbmm": ("matmul", product(1)),
    "addbmm": ("matmul", product(1)),
    "addmv": ("matmul", product(1)),
    "linear": ("linear", linear),
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", attention),
    "_scaled_dot_product_flash_attention": ("attention", attention),
    "_scaled_dot_product_efficient_attention": ("attention", attention),
    "_scaled_dot_product_cudnn_attention": ("attention", attention),
    "_scaled_dot_product_fused_attention_overrideable": ("attention", attention),
}

DECISIONS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}

FREE = {  # of multiply-accumulates of matrices, by our convention; beside views and what works point by point
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
    *("native_layer_norm", "native_group_norm", "_fused_rms_norm", "native_instance_norm"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"),
    *("adaptive_max_pool3d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("mean", "sum", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "std", "var", "var_mean"),
    *("linalg_vector_norm", "norm", "cumsum", "logsumexp", "topk", "sort", "median", "mode", "nonzero", "_unique2"),
    *(
        "_softmax",
        "_log_softmax",
        "_safe_softmax",
        "hardswish",
        "native_dropout",
        "embedding",
        "_embedding_bag",
        "_pack_padded_sequence",
    ),
    *("cat", "stack", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d"),
    *("replication_pad1d", "replication_pad2d", "replication_pad3d", "roll", "flip", "rot90", "repeat", "tril", "triu"),
    *("index", "index_select", "index_put", "gather", "scatter", "scatter_add", "masked_select", "masked_scatter"),
    *("slice_scatter", "select_scatter", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *(
        "upsample_linear1d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_trilinear3d",
        "_upsample_bilinear2d_aa",
    ),
    *("_upsample_bicubic2d_aa", "im2col", "pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle"),
    *("clone", "copy", "_to_copy", "contiguous", "lift_fresh", "lift_fresh_copy", "_local_scalar_dense", "equal"),
    *("fill", "zero", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like"),
    *("ones", "ones_like", "full", "full_like", "new_zeros", "new_ones", "new_full", "arange", "linspace", "eye"),
    *("scalar_tensor", "rand", "rand_like", "randn", "randn_like", "randint", "randperm", "bernoulli", "normal"),
    *("uniform", "random", "resize", "set", "_unsafe_view", "_reshape_alias", "_reshape_copy", "view_copy"),
    *("as_strided", "col2im", "glu", "std_mean", "aminmax", "cumprod", "argsort", "grid_sampler_2d", "grid_sampler_3d"),
    "_prelu_kernel",
}


def name_of(operator: OpOverload) -> str:
    """Without namespace and overload, and without the mark of writing in place."""
    name = operator._schema.name.partition("::")[2]
    return name.removesuffix("_") if not name.startswith("__") else name


def is_free(operator: OpOverload) -> bool:
    """Whether it is known to do no multiply-accumulates that count."""
    return operator.is_view or torch.Tag.pointwise in operator.tags or name_of(operator) in FREE


def stand_in(operator: OpOverload, args: Arguments) -> Any:
    """The output on the meta device of a frequent operator that gives its input's shape; None where PyTorch must say.

    PyTorch works these shapes out in Python, which takes most of the time of a pass.
    """
    first = args[0]
    if operator is torch.ops.aten.relu_.default:
        return first
    if operator is torch.ops.aten.relu.default:
        return torch.empty_like(first)
    if operator is torch.ops.aten.native_batch_norm.default:
        per_channel = [value for value in args[1:5] if value is not None]
        if first.ndim > 1 and all(value.shape == first.shape[1:2] for value in per_channel):
            return torch.empty_like(first), first.new_empty(0), first.new_empty(0)
    return None
