"""A learning rate that doesn't throw away the fitted start: the largest one that a short trial survives."""

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.training.run import Run

NUM_STEPS, NUM_COMPARED = 24, 8


def gentle_rate(run: Run, rates: Sequence[float]) -> float:
    """The largest of `rates` (falling) that lowers the training loss within NUM_STEPS steps; the run stays as it is.

    A rate that is too high raises the loss at once: it undoes the fit, and a short recovery only wins back what it
    has lost. The last NUM_COMPARED steps are compared with the losses of the same batches before any step.
    """
    torch.manual_seed(run.schedule.seed)
    batches = list(islice(run.data.train, NUM_STEPS))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.network.train()

    def trial(step: Callable[[Tensor, Tensor], float]) -> float:
        try:
            losses = [step(*batch) for batch in batches]
        except LightenError:  # not finite any more
            return float("inf")
        finally:
            restore(run.model, before)
            run.optimizer.state.clear()
        return sum(losses[-NUM_COMPARED:]) / len(losses[-NUM_COMPARED:])

    with torch.no_grad():
        untouched = trial(lambda *batch: float(run.loss(*batch)))
    for rate in rates:
        run.set_rate(rate)
        if trial(run.update) <= untouched:
            return rate
    return rates[-1]


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    """The weights and running statistics as they were, and no gradients."""
    model.load_state_dict(state)
    model.zero_grad(set_to_none=True)
