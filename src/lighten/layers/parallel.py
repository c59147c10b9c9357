"""The few ways in which layers stand beside one another instead of after one another."""

from functools import reduce
from operator import add

import torch
from torch import Tensor, nn


class Sum(nn.ModuleList):
    """The sum of what all branches make of the same input."""

    def forward(self, x: Tensor) -> Tensor:
        return reduce(add, [branch(x) for branch in self])


class Concat(nn.ModuleList):
    """What all branches make of the same input (N, C, …), one after the other along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


class Repeat(nn.Module):
    """The input (N, C, …) `times` over along the channels: channel t·C + c is input channel c."""

    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.times, dim=1)

    def extra_repr(self) -> str:
        return f"times={self.times}"
