"""The proof that an exported file does what PyTorch does, at any batch size."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.export.onnx import evaluating
from lighten.runtimes.onnxruntime import OnnxRuntime, Session

TOLERANCE = 1e-4
MAX_SINGLES = 8  # samples that run alone too: enough to show that the batch axis is free


@dataclass(frozen=True, slots=True)
class Parity:
    """A file against PyTorch; max_relative_error: largest difference over the largest magnitude of the output."""

    max_relative_error: float
    num_samples: int
    agrees: bool


def check_parity(
    model: nn.Module, path: Path, inputs: Tensor, tolerance: float = TOLERANCE, threads: int = 1
) -> Parity:
    """Run the file in ONNX Runtime on all inputs (N, …) at once and on some alone, and compare with PyTorch.

    Raises LightenError where the file doesn't run at one of the two batch sizes.
    """
    session = OnnxRuntime().session(Path(path), threads)
    with evaluating(model), torch.no_grad():
        expected = model(inputs)
    singles = min(len(inputs), MAX_SINGLES)
    runs = [(inputs, expected)] + [(inputs[i : i + 1], expected[i : i + 1]) for i in range(singles)]
    scale = expected.abs().max().item()
    error = max(difference(run_file(session, path, x), y) for x, y in runs) / (scale or 1.0)
    return Parity(error, len(inputs), error <= tolerance)


def run_file(session: Session, path: Path, inputs: Tensor) -> Tensor:
    """What the file makes of the inputs."""
    try:
        return torch.from_numpy(session(inputs.numpy(force=True)))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise LightenError(f"'{path}' doesn't run on an input of shape {tuple(inputs.shape)}: {reason}") from error


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; infinite where shapes differ or a value is no number."""
    if got.shape != expected.shape:
        return math.inf
    largest = (got - expected.to(got)).abs().max().item()
    return math.inf if math.isnan(largest) else largest
