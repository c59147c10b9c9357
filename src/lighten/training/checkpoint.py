"""The state of a run on disk: written to a temporary name and renamed, read without pickled code."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lighten.errors import LightenError
from lighten.files import write_with


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights now and at the best epoch, the optimizer's state, the progress as JSON values, the moving average."""

    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict
    progress: dict
    average: dict[str, Tensor] | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before stays intact until the new one is whole."""
    content = io.BytesIO()  # PyTorch's own writer doesn't say why it fails
    torch.save(asdict(checkpoint), content)
    write_with(path, lambda temporary: temporary.write_bytes(content.getbuffer()))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises LightenError where it is missing or damaged."""
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the reader meets damage with errors of many types
        raise LightenError(f"cannot resume from '{path}': it is missing or damaged") from error
