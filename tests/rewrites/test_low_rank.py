"""The window to few channels, then pointwise: refusals, ranks and cost; also for pointwise and linear layers."""

import pytest
import torch
from torch import nn

from lighten.network.trace import trace
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Shape, kernel_of, shape_of

LOW_RANK = REWRITES["low-rank"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 3, 64, (3, 3)), "it has too few channels for a lower rank to pay"),
        (Shape(1, 64, 3, (1, 1)), "it has too few channels for a lower rank to pay"),
        (Shape(8, 1, 1, (3, 3)), "it has too few channels for a lower rank to pay"),
        (Shape(1, 64, 1, (2, 2)), None),
        (Shape(1, 4, 4, (1,)), None),
    ],
)
def test_refusals(shape, reason):
    assert LOW_RANK.refuse(shape) == reason


@pytest.mark.parametrize(("shape", "largest"), [(Shape(1, 8, 2, (3, 3)), 8), (Shape(2, 64, 5, (1,)), 5)])
def test_wrong_ranks(shape, largest):
    assert LOW_RANK.check(shape, {"rank": largest}) is None
    for rank in (0, largest + 1):
        assert LOW_RANK.check(shape, {"rank": rank}) == f"rank must be 1…{largest}"


@pytest.mark.parametrize("shape", [Shape(1, 64, 64, (3, 3)), Shape(1, 64, 64, (1,)), Shape(1, 4, 4, (1,))])
def test_ranks_on_offer_all_pay(shape):
    inputs = shape.num_inputs * shape.num_taps
    ranks = [options["rank"] for options in LOW_RANK.grid(shape)]
    assert all(rank * (inputs + shape.num_outputs) < inputs * shape.num_outputs for rank in ranks)
    assert LOW_RANK.forms(shape, {"rank": 2}) == ["plain"]


def test_cost_is_the_formula():
    """k² M R + R N weights, all at the output's resolution (Zhang et al. 2015, section 3.1)."""
    layer = nn.Conv2d(16, 32, 3, 2, 1)
    cost = trace(LOW_RANK.build(layer, {"rank": 5}), torch.randn(1, 16, 8, 8)).cost
    weights = 5 * (9 * 16 + 32)
    assert (cost.params, cost.macs) == (weights + 32, weights * 16)


def test_cost_of_grouped_and_linear_layers():
    cost = trace(LOW_RANK.build(nn.Conv2d(16, 32, 3, groups=2, bias=False), {"rank": 5}), torch.randn(1, 16, 5, 5)).cost
    weights = 2 * 5 * (9 * 8 + 16)
    assert (cost.params, cost.macs) == (weights, weights * 9)
    cost = trace(LOW_RANK.build(nn.Linear(432, 64), {"rank": 7}), torch.randn(1, 432)).cost
    assert (cost.params, cost.macs) == (7 * (432 + 64) + 64, 7 * (432 + 64))


def test_a_linear_layer_stays_linear(fit):
    layer = nn.Linear(9, 6)
    first, second = LOW_RANK.build(layer, {"rank": 3}, fit("low-rank", layer, {"rank": 3}))
    assert type(first) is type(second) is nn.Linear
    assert first.bias is None and torch.equal(second.bias, layer.bias) and second.bias is not layer.bias


def test_a_kernel_of_low_rank_is_found(close, fit):
    layer = nn.Conv2d(6, 7, 3, groups=1)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("or,rixy->oixy", torch.randn(7, 2), torch.randn(2, 6, 3, 3)))
    factors = fit("low-rank", layer, {"rank": 2})
    assert close(LOW_RANK.kernel(factors, shape_of(layer), {"rank": 2}), kernel_of(layer))
