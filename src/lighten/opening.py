"""What `MODEL` means on the command line: a built-in name, `package.module:callable`, or a lightened folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.folder import PLAN, load
from lighten.models import parse_model
from lighten.models.weights import load_weights
from lighten.plan.plan import load_plan


@dataclass(frozen=True, slots=True)
class Opened:
    """A network in evaluation mode. text: what rebuilds it, None for a folder; input_shape: None where unknown."""

    model: nn.Module
    title: str
    text: str | None
    input_shape: tuple[int, ...] | None

    def example(self, shape_text: str | None, batch: int = 1) -> Tensor:
        """Zeros of `--input`, or of the network's own input shape; raises LightenError without either."""
        shape = parse_shape(shape_text) if shape_text else self.input_shape
        if shape is None:
            raise LightenError(
                f"the input shape of '{self.title}' isn't known: give it, for example --input 1x3x224x224"
            )
        return torch.zeros(batch, *shape)


def open_model(text: str, weights: str | None = None) -> Opened:
    """The network that `text` names; raises LightenError where it doesn't exist or the weights don't fit."""
    folder = Path(text)
    if (folder / PLAN).is_file():
        if weights:
            raise LightenError(f"'{text}' has weights of its own: leave --weights out")
        return Opened(load(folder), folder.resolve().name, None, load_plan(folder / PLAN).input_shape)
    if folder.is_dir():
        raise LightenError(f"the folder '{text}' holds no lightened network: {PLAN} is missing")
    spec = parse_model(text)
    model = spec.build()
    if weights:
        load_weights(model, weights)
    return Opened(model.eval(), spec.text, spec.text, spec.input_shape)


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one sample from `NxCxHxW`, whose first number is the batch; raises LightenError."""
    try:
        sizes = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise LightenError(f"cannot read the input shape '{text}': write it as 1x3x32x32, batch first")
    return sizes[1:]
