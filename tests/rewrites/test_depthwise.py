"""Depthwise, then pointwise: refusals, ranks, forms and cost."""

import pytest
import torch
from torch import nn

from lighten.layers.parallel import Concat, Repeat, Sum
from lighten.network.trace import trace
from lighten.rewrites import REWRITES
from lighten.rewrites.algebra import quadratic_loss
from lighten.rewrites.base import Shape, kernel_of, shape_of
from lighten.rewrites.depthwise import best_pointwise

DEPTHWISE = REWRITES["depthwise"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 8, 8, (1, 1)), "its kernel is 1×1: there is nothing to separate"),
        (Shape(1, 8, 8, (1,)), "its kernel is 1×1: there is nothing to separate"),
        (Shape(8, 1, 1, (3, 3)), "it is depthwise already"),
        (Shape(8, 2, 1, (3, 3)), "it is depthwise already"),
        (
            Shape(1, 8, 1, (3, 3)),
            "it has one input channel: every output map would be a multiple of one filtered image",
        ),
        (Shape(1, 8, 2, (3, 3)), None),
        (Shape(4, 8, 2, (1, 3)), None),
    ],
)
def test_refusals(shape, reason):
    assert DEPTHWISE.refuse(shape) == reason


@pytest.mark.parametrize(("outputs", "window", "largest"), [(16, (3, 3), 9), (5, (3, 3), 5), (16, (3,), 3)])
def test_wrong_ranks(outputs, window, largest):
    shape = Shape(1, outputs, 4, window)
    assert DEPTHWISE.check(shape, {"rank": largest}) is None
    assert DEPTHWISE.check(shape, {"rank": 0}) == f"rank must be 1…{largest}"
    assert DEPTHWISE.check(shape, {"rank": largest + 1}) == f"rank must be 1…{largest}"


def test_ranks_and_forms_on_offer():
    assert DEPTHWISE.grid(Shape(1, 16, 8, (3, 3))) == [{"rank": r} for r in (1, 2, 3, 4)]
    assert DEPTHWISE.grid(Shape(1, 2, 8, (3, 3))) == [{"rank": 1}, {"rank": 2}]
    assert DEPTHWISE.forms(Shape(1, 16, 8, (3, 3)), {"rank": 1}) == ["plain"]
    assert DEPTHWISE.forms(Shape(1, 16, 8, (3, 3)), {"rank": 2}) == ["parallel", "multiplier", "concat", "repeat"]
    assert DEPTHWISE.forms(Shape(2, 16, 8, (3, 3)), {"rank": 2}) == ["parallel", "multiplier"]


def test_the_layers_of_each_form():
    layer = nn.Conv2d(8, 16, 3, 2, 1, bias=True)
    plain = DEPTHWISE.build(layer, {"rank": 1, "form": "plain"})
    assert [m.groups for m in plain] == [8, 1] and [m.bias is None for m in plain] == [True, False]
    assert [m.stride for m in plain] == [(2, 2), (1, 1)] and [m.padding for m in plain] == [(1, 1), (0, 0)]
    parallel = DEPTHWISE.build(layer, {"rank": 3, "form": "parallel"})
    assert isinstance(parallel, Sum) and [b[1].bias is None for b in parallel] == [False, True, True]
    multiplier = DEPTHWISE.build(layer, {"rank": 3, "form": "multiplier"})
    assert (multiplier[0].groups, multiplier[0].out_channels) == (8, 24)
    assert isinstance(DEPTHWISE.build(layer, {"rank": 3, "form": "concat"})[0], Concat)
    assert isinstance(DEPTHWISE.build(layer, {"rank": 3, "form": "repeat"})[0], Repeat)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_cost_is_the_formula(rank):
    """T (k² M + M N) weights and as many MACs per output position (Howard et al. 2017, section 3.1)."""
    layer = nn.Conv2d(16, 32, 3, 2, 1, bias=False)
    weights = rank * (9 * 16 + 16 * 32)
    for form in DEPTHWISE.forms(shape_of(layer), {"rank": rank}):
        cost = trace(DEPTHWISE.build(layer, {"rank": rank, "form": form}), torch.randn(1, 16, 8, 8)).cost
        assert (cost.params, cost.macs) == (weights, weights * 4 * 4)


def test_cost_of_a_grouped_layer_with_bias():
    layer = nn.Conv2d(16, 32, 3, padding=1, groups=4)
    cost = trace(DEPTHWISE.build(layer, {"rank": 2}), torch.randn(1, 16, 8, 8)).cost
    weights = 2 * (9 * 16 + 4 * 4 * 8)
    assert (cost.params, cost.macs) == (weights + 32, weights * 64)


def test_a_separable_kernel_is_found_at_rank_one(close, fit):
    layer = nn.Conv2d(5, 6, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("oi,ixy->oixy", torch.randn(6, 5), torch.randn(5, 3, 3)))
    factors = fit("depthwise", layer, {"rank": 1})
    assert close(DEPTHWISE.kernel(factors, shape_of(layer), {"rank": 1}), kernel_of(layer))


def test_the_pointwise_layer_is_the_best_one_for_its_filters():
    w, d = torch.randn(2, 5, 3, 4), torch.randn(2, 3, 2, 4)
    root = torch.randn(2, 12, 20)
    c, g = root @ root.mT / 12, torch.eye(5).expand(2, -1, -1)

    def loss(p: torch.Tensor) -> float:
        return float(quadratic_loss((torch.einsum("boir,birk->boik", p, d) - w).flatten(2), c, g))

    p = best_pointwise(w, d, c)
    for scale in (0.1, 1.0):
        assert all(loss(p) < loss(p + scale * torch.randn_like(p)) for _ in range(20))
