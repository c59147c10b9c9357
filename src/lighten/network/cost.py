"""What one forward pass costs, by closed formulas; costs add."""

import math
from dataclasses import dataclass, fields
from operator import add, attrgetter

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one forward pass on one sample; costs add.

    macs: multiply-accumulates of convolution, linear, matmul and recurrent gates; no bias, no norm.
    activation_bytes: the outputs of every layer, written once; activations: their elements; input_bytes: what the
    layers read. effective_macs, effective_params: without the weights that are zero.
    """

    macs: int = 0
    params: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0
    activations: int = 0
    input_bytes: int = 0
    trainable_params: int = 0
    effective_macs: int = 0
    effective_params: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*map(add, AMOUNTS(self), AMOUNTS(other)))

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations per byte moved, 2 for each MAC (Williams et al. 2009); 0 where none move."""
        moved = self.input_bytes + self.activation_bytes + self.weight_bytes
        return 2 * self.macs / moved if moved else 0.0


AMOUNTS = attrgetter(*(field.name for field in fields(Cost)))


def count_macs(layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int | None:
    """MACs of one call on one sample; None where `lighten` has no formula for a layer with weights of its own.

    input_shape, output_shape: without the batch axis; of a recurrent layer (time, features).
    """
    match layer:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            taps = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
            return math.prod(output_shape) * taps
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            taps = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            return math.prod(input_shape) * taps
        case nn.Linear():
            return math.prod(output_shape) * layer.in_features
        case nn.RNN() | nn.GRU() | nn.LSTM():
            return math.prod(input_shape[:-1]) * sum(w.numel() for n, w in layer.named_parameters() if "weight" in n)
    if isinstance(layer, (*NORMS, nn.PReLU, nn.Embedding)):
        return 0
    return None if any(True for _ in layer.parameters(recurse=False)) else 0
