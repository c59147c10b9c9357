"""Trained weights from a file into a network, checked before anything is changed."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.references import first_line

NESTED = ("state_dict", "model_state_dict", "model")  # under which training scripts store the weights
PREFIX = "module."  # left by DataParallel


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill `model` from a `.safetensors`, `.pt` or `.pth` file; dtypes are converted to the model's.

    A state dict nested in a checkpoint and the prefix of DataParallel are accepted, absent batch counters of
    batch norm too. Raises LightenError, and leaves the model as it was, where the file can't be read, where keys or
    shapes differ, or where a value isn't finite.
    """
    source = Path(path)
    weights = read_weights(source)
    check_match(model.state_dict(), weights, source)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise LightenError(f"the weights '{source}' hold NaN or infinity in '{name}'")
    model.load_state_dict(weights, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that a file holds, prefix removed; pickled code is never run."""
    if not path.is_file():
        raise LightenError(f"there is no weights file '{path}'")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise LightenError(f"cannot read the weights '{path}': the name must end in .safetensors, .pt or .pth")
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) and "GLOBAL" in str(error):
            raise LightenError(f"'{path}' holds pickled code; save the model's state_dict() instead") from error
        raise LightenError(f"cannot read the weights '{path}', the file is damaged: {first_line(error)}") from error
    return state_dict_in(stored, path)


def state_dict_in(stored: object, path: Path) -> dict[str, Tensor]:
    """The state dict itself or nested under one of the usual names."""
    for key in NESTED:
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
            break
    if not isinstance(stored, dict) or not stored or not all(isinstance(v, Tensor) for v in stored.values()):
        raise LightenError(f"'{path}' holds no state dict: neither tensors by name nor such under {', '.join(NESTED)}")
    if all(name.startswith(PREFIX) for name in stored):
        return {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    return dict(stored)


def check_match(wanted: dict[str, Tensor], given: dict[str, Tensor], path: Path) -> None:
    """Raise one LightenError that counts missing, unknown and misshapen tensors and names up to three of each."""
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    unknown = [n for n in given if n not in wanted]
    misshapen = [
        f"{n} {tuple(given[n].shape)} for {tuple(wanted[n].shape)}"
        for n in wanted
        if n in given and given[n].shape != wanted[n].shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
    problems = [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds if names]
    if problems:
        raise LightenError(f"the weights '{path}' are not this model's: {'; '.join(problems)}")


def some(names: list[str]) -> str:
    """Up to three of the names."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
