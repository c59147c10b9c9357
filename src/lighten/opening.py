"""What `MODEL` means on the command line: a built-in name, `package.module:callable`, or a lightened folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lighten.data import Data, load_data
from lighten.data.lines import FORMATS
from lighten.errors import LightenError
from lighten.folder import PLAN, load
from lighten.models import parse_model
from lighten.models.weights import load_weights
from lighten.network.record import Example
from lighten.plan.plan import load_plan
from lighten.references import split_options


@dataclass(frozen=True, slots=True)
class Opened:
    """A network. text: what rebuilds it, or its original; input_shape: None where unknown."""

    model: nn.Module
    title: str
    text: str | None
    input_shape: tuple[int, ...] | None
    is_lightened: bool = False

    def example(self, shape_text: str | None, batch: int = 1) -> Tensor:
        """Zeros of `--input`, or of the network's own input shape; raises LightenError without either."""
        shape = parse_shape(shape_text) if shape_text else self.input_shape
        if shape is None:
            raise LightenError(
                f"the input shape of '{self.title}' isn't known: give it, for example --input 1x3x224x224"
            )
        return torch.zeros(batch, *shape)

    def example_of(self, texts: Sequence[str]) -> Example:
        """What `--input` describes: one tensor, or several in their order or by name; without it the usual one."""
        parts = [parse_input(text) for text in texts]
        if not parts:
            return self.example(None)
        named = {name: value for name, value in parts if name}
        if named and len(named) < len(parts):
            raise LightenError("name all inputs or none, and each but once: --input ids=1x128:int64 --input mask=1x128")
        return named or (parts[0][1] if len(parts) == 1 else tuple(value for _, value in parts))


def open_model(text: str, weights: str | None = None) -> Opened:
    """The network that `text` names, in evaluation mode.

    A folder is one that `shrink` or `train` made. Raises LightenError where there is none, or the weights don't fit.
    """
    folder = Path(text)
    if (folder / PLAN).is_file():
        if weights:
            raise LightenError(f"'{text}' has weights of its own: leave --weights out")
        plan = load_plan(folder / PLAN)
        return Opened(load(folder), folder.resolve().name, plan.model, plan.input_shape, bool(plan.choices))
    if folder.is_dir():
        raise LightenError(f"the folder '{text}' holds no network of ours: {PLAN} is missing")
    spec = parse_model(text)
    model = spec.build()
    if weights:
        load_weights(model, weights)
    return Opened(model.eval(), spec.text, spec.text, spec.input_shape)


def open_to_train(text: str, weights: str | None, num_classes: int) -> Opened:
    """The network that `text` names, with that many classes if it is a built-in one that isn't told otherwise.

    weights: may be of other classes; the last layer keeps its fresh weights then.
    """
    if (Path(text) / PLAN).is_file():
        return open_model(text, weights)
    spec = parse_model(text)
    if spec.input_shape is not None and "num_classes" not in spec.options:
        spec = parse_model(text, num_classes=num_classes)
    model = spec.build()
    if weights:
        load_weights(model, weights, new_head=True)
    return Opened(model, spec.text, spec.text, spec.input_shape)


def data_for(model_text: str, data_text: str) -> Data:
    """The data that `data_text` names; lines of text are prepared as the network reads them, unless it tells how."""
    folder = Path(model_text)
    network = load_plan(folder / PLAN).model if (folder / PLAN).is_file() else model_text
    name = split_options(network or "")[0]
    is_plain = data_text.startswith("lines:") and "reader" not in split_options(data_text)[1]
    return load_data(data_text, **({"reader": name} if is_plain and name in FORMATS else {}))


def parse_input(text: str) -> tuple[str, Tensor]:
    """Name, or nothing, and zeros, from `NAME=1x3x224x224:DTYPE` with both ends optional; raises LightenError."""
    head, _, dtype_name = text.partition(":")
    name, _, shape = head.rpartition("=")
    dtype = getattr(torch, dtype_name or "float32", None)
    if not isinstance(dtype, torch.dtype):
        raise LightenError(f"in the input '{text}', '{dtype_name}' is no type of torch: write for example int64")
    return name.strip(), torch.zeros(parse_sizes(shape), dtype=dtype)


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one sample from `NxCxHxW`, whose first number is the batch; raises LightenError."""
    return parse_sizes(text)[1:]


def parse_sizes(text: str) -> tuple[int, ...]:
    """The sizes of `NxCxHxW`, at least two; raises LightenError."""
    try:
        sizes = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise LightenError(f"cannot read the input shape '{text}': write it as 1x3x32x32, batch first")
    return sizes
