"""Muon: momentum whose step is the same size in every direction of a weight.

A product of small factors learns at very different speeds in different directions; steps of equal size even that out.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration in Jordan et al. 2024, "Muon", which gives ≈ U Vᵀ
NUM_ITERATIONS = 5
RMS = 0.2  # of a step at learning rate 1, as AdamW's is (Liu et al. 2025, equation 4)


class Muon(Optimizer):
    """Jordan et al. 2024, for weights of any number of axes, taken as matrices (outputs, all else); Adam for vectors.

    torch.optim.Muon takes matrices alone, and one at a time. weight_decay: of the weights themselves, times the
    learning rate, as AdamW's; vectors don't decay.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step for every parameter that has a gradient."""
        for group in self.param_groups:
            matrices: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim < 2:
                    self.step_adam(parameter, group)
                else:
                    matrices[parameter.flatten(1).shape].append(parameter)
            for parameters in matrices.values():
                self.step_matrices(parameters, group)

    def step_matrices(self, parameters: list[nn.Parameter], group: dict) -> None:
        """Weights of one shape together."""
        wanted = []
        for parameter in parameters:
            state = self.state[parameter]
            mean = state.setdefault("mean", torch.zeros_like(parameter))
            mean.mul_(group["momentum"]).add_(parameter.grad)
            wanted.append((parameter.grad + group["momentum"] * mean).flatten(1))  # Nesterov's
        steps = orthogonalised(torch.stack(wanted))
        size = RMS * max(steps.shape[1:]) ** 0.5
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(step.view_as(parameter), alpha=-group["lr"] * size)

    def step_adam(self, parameter: nn.Parameter, group: dict) -> None:
        """A vector (Kingma & Ba 2015, algorithm 1)."""
        state, (beta, beta_square) = self.state[parameter], group["betas"]
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        count = state["count"] = state.get("count", 0) + 1
        mean.lerp_(parameter.grad, 1 - beta)
        square.lerp_(parameter.grad.square(), 1 - beta_square)
        scale = (square / (1 - beta_square**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean / (1 - beta**count), scale, value=-group["lr"])


def orthogonalised(x_BMN: Tensor) -> Tensor:
    """≈ U Vᵀ of each matrix U S Vᵀ of a batch: singular values between 0.7 and 1.2 where they weren't tiny."""
    a, b, c = COEFFICIENTS
    is_tall = x_BMN.shape[1] > x_BMN.shape[2]
    x = x_BMN.mT if is_tall else x_BMN
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
