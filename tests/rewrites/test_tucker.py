"""Fewer channels around the window: refusals, ranks, the last layer that may be left out, and cost."""

import pytest
import torch
from torch import nn

from lighten.network.trace import trace
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Shape, kernel_of, shape_of
from lighten.rewrites.tucker import leading_basis, near

TUCKER = REWRITES["tucker"]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 8, 8, (1, 1)), "its kernel is 1×1: low-rank serves it better"),
        (Shape(1, 8, 3, (3, 3)), "it has too few channels for lower ranks to pay"),
        (Shape(1, 3, 8, (3, 3)), "it has too few channels for lower ranks to pay"),
        (Shape(8, 1, 1, (3, 3)), "it has too few channels for lower ranks to pay"),
        (Shape(2, 4, 4, (3,)), None),
    ],
)
def test_refusals(shape, reason):
    assert TUCKER.refuse(shape) == reason


def test_wrong_ranks():
    shape = Shape(1, 8, 6, (3, 3))
    assert TUCKER.check(shape, {"rank_in": 6, "rank_out": 8}) is None
    for rank in (0, 7):
        assert TUCKER.check(shape, {"rank_in": rank, "rank_out": 8}) == "rank_in must be 1…6"
    for rank in (0, 9):
        assert TUCKER.check(shape, {"rank_in": 6, "rank_out": rank}) == "rank_out must be 1…8"


def test_the_last_layer_is_left_out_at_full_output_rank():
    layer = nn.Conv2d(8, 12, 3, 2, 1)
    short = TUCKER.build(layer, {"rank_in": 4, "rank_out": 12})
    assert [(m.out_channels, m.bias is not None) for m in short] == [(4, False), (12, True)]
    whole = TUCKER.build(layer, {"rank_in": 4, "rank_out": 6})
    assert [(m.out_channels, m.bias is not None) for m in whole] == [(4, False), (6, False), (12, True)]
    assert [m.stride for m in whole] == [(1, 1), (2, 2), (1, 1)]


def test_cost_is_the_formula():
    """M S + k² S R + R N weights (Kim et al. 2015, section 3.1); the first layer works at the input's resolution."""
    layer, x = nn.Conv2d(16, 32, 3, 2, 1, bias=False), torch.randn(1, 16, 8, 8)
    cost = trace(TUCKER.build(layer, {"rank_in": 6, "rank_out": 10}), x).cost
    assert cost.params == 16 * 6 + 9 * 6 * 10 + 10 * 32
    assert cost.macs == 16 * 6 * 64 + (9 * 6 * 10 + 10 * 32) * 16
    cost = trace(TUCKER.build(layer, {"rank_in": 6, "rank_out": 32}), x).cost
    assert (cost.params, cost.macs) == (16 * 6 + 9 * 6 * 32, 16 * 6 * 64 + 9 * 6 * 32 * 16)


def test_grouped_cost():
    layer = nn.Conv1d(8, 16, 3, padding=1, groups=2, bias=False)
    cost = trace(TUCKER.build(layer, {"rank_in": 2, "rank_out": 4}), torch.randn(1, 8, 10)).cost
    weights = 2 * (4 * 2 + 3 * 2 * 4 + 4 * 8)
    assert (cost.params, cost.macs) == (weights, weights * 10)


def test_a_kernel_of_low_rank_is_found(close, fit):
    layer, options = nn.Conv2d(6, 7, 3), {"rank_in": 2, "rank_out": 3}
    with torch.no_grad():
        parts = torch.randn(7, 3), torch.randn(3, 2, 3, 3), torch.randn(2, 6)
        layer.weight.copy_(torch.einsum("or,rsxy,si->oixy", *parts))
    assert close(TUCKER.kernel(fit("tucker", layer, options), shape_of(layer), options), kernel_of(layer))


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 64, 3), nn.Conv1d(64, 4, 3)], ids=["many out", "many in"])
def test_ranks_beyond_those_of_the_kernel_can_be_built(layer, close, fit):
    """4 inputs × 3 taps span 12 of 64 outputs; a rank of 48 is wasteful and still right."""
    x = torch.randn(2, layer.in_channels, 9)
    for options in [*TUCKER.grid(shape_of(layer)), {"rank_in": layer.in_channels, "rank_out": 13}]:
        if TUCKER.check(shape_of(layer), options) is None:
            factors = fit("tucker", layer, options)
            y = TUCKER.build(layer, options, factors)(x)
            if options["rank_in"] == layer.in_channels:
                assert close(y, layer(x))


def test_the_basis_leads_with_the_largest_directions():
    m = torch.diag(torch.tensor([1.0, 3.0, 2.0]))[None, :, :2]
    basis = leading_basis(m, 3)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3)[None])
    torch.testing.assert_close(basis[0, :, 0].abs(), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(basis[0, :, 1].abs(), torch.tensor([1.0, 0.0, 0.0]))


def test_ranks_on_offer():
    shape = Shape(1, 32, 16, (3, 3))
    grid = TUCKER.grid(shape)
    assert {"rank_in": 4, "rank_out": 8} in grid and {"rank_in": 12, "rank_out": 32} in grid
    assert all(options["rank_in"] <= 12 and options["rank_out"] <= 32 for options in grid)
    assert TUCKER.forms(shape, grid[0]) == ["plain"]
    assert near(3, 0.01) == 1 and near(16, 0.375) == 6
