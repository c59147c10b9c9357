"""Replacement layers as small ONNX models, written node by node: milliseconds where the exporter takes a second."""

import math
from collections.abc import Iterable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.network.cost import CONVOLUTIONS

OPSET = 20
IR_VERSION = 10
ELEMENTS = {torch.float32: TensorProto.FLOAT, torch.float64: TensorProto.DOUBLE, torch.float16: TensorProto.FLOAT16}
PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
CONTAINERS = (nn.Sequential, Sum, Concat)
KNOWN = (*CONVOLUTIONS, nn.Linear, nn.Identity, nn.ReLU, Repeat, *CONTAINERS)


def layer_model(module: nn.Module, input_shape: tuple[int, ...], batch: int = 1) -> onnx.ModelProto:
    """A model of one tensor "input" (batch, *input_shape) and one "output"; the batch is fixed.

    Weights on the meta device become random ones. Raises LightenError for a type of module that isn't known here.
    """
    graph = Graph(num_axes=1 + len(input_shape))
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    if dtype not in ELEMENTS:
        raise LightenError(f"can't write a layer of {dtype} to ONNX; float32, float64 or float16 is needed")
    graph.add("Identity", [emit(graph, module, "input")], output="output")
    made = helper.make_graph(
        graph.nodes,
        "layer",
        [helper.make_tensor_value_info("input", ELEMENTS[dtype], (batch, *input_shape))],
        [helper.make_tensor_value_info("output", ELEMENTS[dtype], (batch, *[None] * len(input_shape)))],
        graph.weights,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def is_known(module: nn.Module) -> bool:
    """Whether `layer_model` can write this module and all in it: these exact types, not subclasses of them."""
    return type(module) in KNOWN and all(map(is_known, module.children()))


class Graph:
    """Nodes and weights in the order of their making; every value gets a name of its own."""

    def __init__(self, num_axes: int):
        self.num_axes = num_axes
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, inputs: Iterable[str], output: str | None = None, **attributes: object) -> str:
        """A node with one output; the name of that output."""
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Tensor | np.ndarray) -> str:
        """The name of a tensor that is stored in the model; random where it has no values, of the usual scale."""
        if isinstance(values, Tensor):
            values = (random_like(values) if values.is_meta else values.detach().cpu()).numpy()
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def random_like(weight: Tensor, seed: int = 0) -> Tensor:
    """Random weights (O, …) that keep the scale of what passes through."""
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return (drawn / math.sqrt(max(1, weight[:1].numel()))).to(weight.dtype)


def emit(graph: Graph, module: nn.Module, value: str) -> str:
    """Write `module` behind `value`; the name of what comes out."""
    match module:
        case _ if type(module) not in KNOWN:
            known = ", ".join(kind.__name__ for kind in KNOWN)
            raise LightenError(f"can't write a {type(module).__name__} to ONNX as a layer; known are {known}")
        case nn.Identity():
            return value
        case nn.ReLU():
            return graph.add("Relu", [value])
        case nn.Linear():
            return emit_linear(graph, module, value)
        case nn.Sequential():
            for child in module:
                value = emit(graph, child, value)
            return value
        case Sum():
            first, *others = [emit(graph, branch, value) for branch in module]
            for other in others:
                first = graph.add("Add", [first, other])
            return first
        case Concat():
            return graph.add("Concat", [emit(graph, branch, value) for branch in module], axis=1)
        case Repeat():
            return graph.add("Concat", [value] * module.times, axis=1)
    return emit_convolution(graph, module, value)


def emit_linear(graph: Graph, layer: nn.Linear, value: str) -> str:
    """(N, I) by one Gemm; (N, …, I) by MatMul and Add."""
    biases = [] if layer.bias is None else [graph.constant(layer.bias)]
    if graph.num_axes == 2:
        return graph.add("Gemm", [value, graph.constant(layer.weight), *biases], transB=1)
    weight = random_like(layer.weight) if layer.weight.is_meta else layer.weight
    product = graph.add("MatMul", [value, graph.constant(weight.T)])
    return graph.add("Add", [product, *biases]) if biases else product


def emit_convolution(graph: Graph, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, value: str) -> str:
    """Zeros are padded by Conv itself, all else by a Pad before it."""
    before, after = padding(layer)
    if layer.padding_mode != "zeros" and any(before + after):
        widths = np.array([0, 0, *before, 0, 0, *after], dtype=np.int64)
        value = graph.add("Pad", [value, graph.constant(widths)], mode=PAD_MODES[layer.padding_mode])
        before = after = [0] * len(before)
    biases = [] if layer.bias is None else [graph.constant(layer.bias)]
    return graph.add(
        "Conv",
        [value, graph.constant(layer.weight), *biases],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        dilations=layer.dilation,
        group=layer.groups,
        pads=[*before, *after],
    )


def padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[list[int], list[int]]:
    """Samples padded before and after each axis; of an odd sum, 'same' puts the larger half after."""
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size), [0] * len(layer.kernel_size)
    if layer.padding == "same":
        sums = [gap * (size - 1) for gap, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [total // 2 for total in sums], [total - total // 2 for total in sums]
    return list(layer.padding), list(layer.padding)
