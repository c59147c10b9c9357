"""PyTorch itself, eager: what a network costs that is never exported."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class PyTorch:
    """A copy of the network in inference mode; the process's thread count is changed only while it runs."""

    name = "pytorch"

    def version(self) -> str:
        return torch.__version__

    def prepare(self, model: nn.Module, example: Tensor, threads: int) -> Callable[[], Tensor]:
        model = copy.deepcopy(model).eval()

        def run() -> Tensor:
            before = torch.get_num_threads()
            if before == threads:
                with torch.inference_mode():
                    return model(example)
            torch.set_num_threads(threads)
            try:
                with torch.inference_mode():
                    return model(example)
            finally:
                torch.set_num_threads(before)

        return run
