"""Channels weighed by what the whole map holds: squeeze-and-excitation, with the hard sigmoid of MobileNet V3."""

import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Each channel times a gate in [0, 1] that two 1×1 convolutions find from the mean of every channel.

    x: (N, channels, H, W) → the same shape. ReLU between the convolutions and hard sigmoid after them
    (Howard et al. 2019, sections 5.2 and 5.3; Hu et al. 2018 have a sigmoid).
    """

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)
