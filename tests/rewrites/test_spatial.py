"""One axis of the window, then the other: refusals, ranks, orders and cost."""

import pytest
import torch
from torch import nn

from lighten.network.trace import trace
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Shape, kernel_of, shape_of
from lighten.rewrites.spatial import largest_paying_rank

SPATIAL = REWRITES["spatial"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 8, 8, (3,)), "its window has no two axes to separate"),
        (Shape(1, 8, 8, (3, 3, 3)), "its window has no two axes to separate"),
        (Shape(1, 8, 8, (1, 1)), "its window is one tap wide: there is nothing to separate"),
        (Shape(1, 8, 8, (3, 1)), "its window is one tap wide: there is nothing to separate"),
        (Shape(1, 8, 8, (1, 3)), "its window is one tap wide: there is nothing to separate"),
        (Shape(1, 8, 1, (3, 3)), None),
        (Shape(8, 1, 1, (2, 3)), None),
    ],
)
def test_refusals(shape, reason):
    assert SPATIAL.refuse(shape) == reason


def test_wrong_options():
    shape = Shape(1, 10, 3, (2, 5))
    for order, largest in (("vertical", 3 * 2), ("horizontal", 3 * 5)):
        assert SPATIAL.check(shape, {"rank": largest, "order": order}) is None
        assert SPATIAL.check(shape, {"rank": largest + 1, "order": order}) == f"rank must be 1…{largest}"
        assert SPATIAL.check(shape, {"rank": 0, "order": order}) == f"rank must be 1…{largest}"
    assert SPATIAL.check(shape, {"rank": 1, "order": "diagonal"}) == "order must be 'vertical' or 'horizontal'"
    assert SPATIAL.check(shape, {"rank": 1}) == "order must be 'vertical' or 'horizontal'"


def test_ranks_on_offer_all_pay():
    shape = Shape(1, 32, 16, (3, 3))
    largest = largest_paying_rank(shape)
    assert largest * 3 * (16 + 32) < 9 * 16 * 32 <= (largest + 1) * 3 * (16 + 32)
    assert max(options["rank"] for options in SPATIAL.grid(shape)) <= largest
    assert {options["order"] for options in SPATIAL.grid(shape)} == {"vertical", "horizontal"}
    assert SPATIAL.forms(shape, {"rank": 2, "order": "vertical"}) == ["plain"]


def test_each_axis_carries_its_own_settings():
    layer = nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), (1, 3), padding_mode="circular")
    first, second = SPATIAL.build(layer, {"rank": 3, "order": "horizontal"})
    assert (first.kernel_size, first.stride, first.padding, first.dilation) == ((1, 5), (1, 1), (0, 2), (1, 3))
    assert (second.kernel_size, second.stride, second.padding, second.dilation) == ((3, 1), (2, 1), (1, 0), (1, 1))
    assert first.bias is None and torch.equal(second.bias, layer.bias)


@pytest.mark.parametrize("rank", [1, 5])
def test_cost_is_the_formula(rank):
    """R (M kh + N kw) weights; the first layer strides along its own axis only (Jaderberg et al. 2014, section 2)."""
    layer, x = nn.Conv2d(16, 32, (3, 5), (1, 2), (1, 2), bias=False), torch.randn(1, 16, 8, 8)
    vertical = trace(SPATIAL.build(layer, {"rank": rank, "order": "vertical"}), x).cost
    assert vertical.params == rank * (16 * 3 + 32 * 5)
    assert vertical.macs == rank * (16 * 3 * 8 * 8 + 32 * 5 * 8 * 4)
    horizontal = trace(SPATIAL.build(layer, {"rank": rank, "order": "horizontal"}), x).cost
    assert horizontal.params == rank * (16 * 5 + 32 * 3)
    assert horizontal.macs == rank * (16 * 5 + 32 * 3) * 8 * 4


def test_the_textbook_separable_filter(close, fit):
    """5×1 then 1×5 on 12×12×3: 20 weights and 1,760 multiplications, the second layer having one input channel."""
    layer = nn.Conv2d(3, 1, 5, bias=False)
    found = trace(SPATIAL.build(layer, {"rank": 1, "order": "vertical"}), torch.randn(1, 3, 12, 12))
    assert [(site.cost.params, site.cost.macs) for site in found.sites] == [(15, 1440), (5, 320)]


@pytest.mark.parametrize("order", ["vertical", "horizontal"])
def test_a_separable_kernel_is_found_at_its_rank(close, fit, order):
    layer, options = nn.Conv2d(3, 4, (3, 5)), {"rank": 2, "order": order}
    axes = "rix,ory->oixy" if order == "vertical" else "riy,orx->oixy"
    x, y = (3, 5) if order == "vertical" else (5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum(axes, torch.randn(2, 3, x), torch.randn(4, 2, y)))
    factors = fit("spatial", layer, options)
    assert close(SPATIAL.kernel(factors, shape_of(layer), options), kernel_of(layer))
