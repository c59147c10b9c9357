"""Whole networks as ONNX files of one input, one output and a free batch axis."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.layers import OPSET, is_known, layer_model
from lighten.files import write_with


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write `model` to one file, weights included: "input" (batch, …) → "output" (batch, …).

    The file appears whole or not at all. Raises LightenError where the exporter fails or fixes the batch.
    """
    content = export_bytes(model, example)
    write_with(path, lambda temporary: temporary.write_bytes(content))


def model_bytes(model: nn.Module, example: Tensor) -> bytes:
    """ONNX of a network for timing: of known layers at once, with the batch of the example; else by the exporter."""
    if is_known(model):
        return layer_model(model, tuple(example.shape[1:]), len(example)).SerializeToString()
    return export_bytes(model, example)


def export_bytes(model: nn.Module, example: Tensor) -> bytes:
    """ONNX of a whole network by PyTorch's exporter; the batch axis is free, the model left as it was."""
    pair = torch.cat([example[:1], example[:1]])  # the exporter would fix an axis of size 1
    try:
        with evaluating(model), quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                (pair,),
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=["input"],
                output_names=["output"],
                opset_version=OPSET,
                verbose=False,
            )
            made = program.model_proto
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LightenError(f"can't export a {type(model).__name__} to ONNX: {reason}") from error
    if len(made.graph.output) != 1:
        raise LightenError(f"can't export a {type(model).__name__} to ONNX: it must return one tensor")
    batch_axes = [value.type.tensor_type.shape.dim[0].dim_param for value in (*made.graph.input, *made.graph.output)]
    if not all(batch_axes):
        raise LightenError(f"can't export a {type(model).__name__} to ONNX with a free batch axis: its code fixes it")
    strip(made)
    return made.SerializeToString()


def strip(made: onnx.ModelProto) -> None:
    """Drop the exporter's notes, which name files of the machine that it ran on."""
    del made.metadata_props[:]
    graphs = [made.graph, *made.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for value in graph.value_info:
            del value.metadata_props[:]
    for value in (*made.graph.input, *made.graph.output, *made.graph.initializer):
        del value.metadata_props[:]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own training flag back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No prints, warnings or log lines of the exporter: standard output may be a JSON document."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
