"""What one forward pass costs, by closed formulas; costs add."""

import math
from dataclasses import dataclass

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
    activation_bytes: the outputs of every layer, written once.
    """

    macs: int = 0
    params: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.activation_bytes + other.activation_bytes,
            self.weight_bytes + other.weight_bytes,
        )


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
