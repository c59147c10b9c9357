"""What the tests of rewrites share: a comparer relative to the output's scale, and fits in a random norm."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lighten.rewrites import REWRITES
from lighten.rewrites.base import Factors, Layer, Options, kernel_of, shape_of


@pytest.fixture(scope="session")
def close() -> Callable[..., bool]:
    """Whether two tensors agree to a fraction of the largest value of the second."""

    def compare(found: Tensor, wanted: Tensor, tolerance: float = 1e-3) -> bool:
        found, wanted = found.detach(), wanted.detach()
        same_kind = found.shape == wanted.shape and found.dtype == wanted.dtype
        return same_kind and float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())

    return compare


@pytest.fixture(scope="session")
def fit() -> Callable[[str, Layer, Options], Factors]:
    """Factors of a layer in the norm of random moments, before any refinement."""

    def random_moment(num_groups: int, size: int) -> Tensor:
        root = torch.randn(num_groups, size, size + 4)
        return root @ root.mT / size

    def start(name: str, layer: Layer, options: Options) -> Factors:
        shape = shape_of(layer)
        c_BPP = random_moment(shape.num_groups, shape.num_inputs * shape.num_taps)
        g_BOO = random_moment(shape.num_groups, shape.num_outputs)
        return REWRITES[name].start(kernel_of(layer), shape, options, c_BPP, g_BOO)

    return start
