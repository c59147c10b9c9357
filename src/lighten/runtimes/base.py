"""What a runtime is: it makes a module ready to run on one example, with a fixed number of threads."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn


class Runtime(Protocol):
    """One way to run a network. `prepare` does all that isn't inference: copy, export, compile."""

    name: str

    def version(self) -> str:
        """The version of the installed package; raises LightenError where it isn't installed."""

    def prepare(self, model: nn.Module, example: Tensor, threads: int) -> Callable[[], object]:
        """A call that runs `model` as it is now, in evaluation mode, on `example` and returns the output array."""
