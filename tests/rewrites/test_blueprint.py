"""Pointwise, then depthwise: refusals, ranks, forms and cost."""

import pytest
import torch
from torch import nn

from lighten.layers.parallel import Sum
from lighten.network.trace import trace
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Shape, kernel_of, shape_of

BLUEPRINT = REWRITES["blueprint"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 8, 8, (1, 1)), "its kernel is 1×1: there is nothing to separate"),
        (Shape(8, 1, 1, (3, 3)), "it is depthwise already"),
        (Shape(1, 8, 1, (3, 3)), "it has one input channel: the pointwise layer would only copy it"),
        (Shape(2, 8, 4, (3,)), None),
    ],
)
def test_refusals(shape, reason):
    assert BLUEPRINT.refuse(shape) == reason


@pytest.mark.parametrize(("inputs", "window", "largest"), [(16, (3, 3), 9), (5, (3, 3), 5), (16, (3,), 3)])
def test_wrong_ranks(inputs, window, largest):
    shape = Shape(1, 4, inputs, window)
    assert BLUEPRINT.check(shape, {"rank": largest}) is None
    assert BLUEPRINT.check(shape, {"rank": 0}) == f"rank must be 1…{largest}"
    assert BLUEPRINT.check(shape, {"rank": largest + 1}) == f"rank must be 1…{largest}"


def test_ranks_and_forms_on_offer():
    assert BLUEPRINT.grid(Shape(1, 2, 16, (3, 3))) == [{"rank": r} for r in (1, 2, 3, 4)]
    assert BLUEPRINT.grid(Shape(1, 16, 2, (3, 3))) == [{"rank": 1}, {"rank": 2}]
    assert BLUEPRINT.forms(Shape(1, 16, 8, (3, 3)), {"rank": 1}) == ["plain"]
    assert BLUEPRINT.forms(Shape(2, 16, 8, (3, 3)), {"rank": 2}) == ["parallel", "grouped"]


def test_the_layers_of_each_form():
    layer = nn.Conv2d(8, 16, 3, 2, 1, padding_mode="replicate")
    plain = BLUEPRINT.build(layer, {"rank": 1, "form": "plain"})
    assert [m.groups for m in plain] == [1, 16] and [m.bias is None for m in plain] == [True, False]
    assert [m.padding_mode for m in plain] == ["zeros", "replicate"]
    assert isinstance(BLUEPRINT.build(layer, {"rank": 2, "form": "parallel"}), Sum)
    grouped = BLUEPRINT.build(layer, {"rank": 2, "form": "grouped"})
    assert (grouped[0].out_channels, grouped[1].groups, grouped[1].out_channels) == (32, 16, 16)


@pytest.mark.parametrize("rank", [1, 3])
def test_cost_is_the_formula(rank):
    """T (M N + k² N) weights; the pointwise layer works at the resolution of the input (BSConv, table 1)."""
    layer = nn.Conv2d(16, 32, 3, 2, 1, bias=True)
    for form in BLUEPRINT.forms(shape_of(layer), {"rank": rank}):
        cost = trace(BLUEPRINT.build(layer, {"rank": rank, "form": form}), torch.randn(1, 16, 8, 8)).cost
        assert cost.params == rank * (16 * 32 + 9 * 32) + 32
        assert cost.macs == rank * (16 * 32 * 8 * 8 + 9 * 32 * 4 * 4)


def test_a_blueprint_kernel_is_found_at_rank_one(close, fit):
    layer = nn.Conv2d(6, 8, 3, groups=2)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("oi,oxy->oixy", torch.randn(8, 3), torch.randn(8, 3, 3)))
    factors = fit("blueprint", layer, {"rank": 1})
    assert close(BLUEPRINT.kernel(factors, shape_of(layer), {"rank": 1}), kernel_of(layer))
