"""Which sites are taken and why others are not; what each variant costs and loses; which ones are worth keeping."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.prune import l1_unstructured

from lighten.measure.moments import Moments, collect
from lighten.network.cost import Cost
from lighten.network.trace import trace
from lighten.plan.variants import (
    Refusal,
    Variant,
    eligible,
    fit_all,
    fit_variant,
    one_thread_each,
    prune,
    variant_cost,
)
from lighten.rewrites import REWRITES
from lighten.rewrites.algebra import quadratic_loss
from lighten.rewrites.base import kernel_of, shape_of

METHODS = tuple(REWRITES)


class Standardized(nn.Conv2d):
    """A convolution that computes something else than its base class."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Awkward(nn.Module):
    """One layer for each reason to leave a layer alone."""

    def __init__(self):
        super().__init__()
        self.free, self.kept, self.twice, self.tied, self.other = (nn.Conv2d(8, 8, 3, 1, 1) for _ in range(5))
        self.other.weight = self.tied.weight
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.normed = weight_norm(nn.Conv2d(8, 8, 3, 1, 1))
        self.special = Standardized(8, 8, 3, 1, 1)
        self.unused = nn.Conv2d(8, 8, 3)
        self.bn, self.linear = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.kept(self.free(x))))
        x = self.special(self.normed(self.up(self.other(self.tied(x)))))
        return self.linear(self.bn(x).mean((2, 3)))


def test_reasons_to_leave_a_layer_alone():
    model = Awkward()
    sites, refusals = eligible(model, trace(model, torch.randn(1, 8, 6, 6)), ["kept"], ["depthwise", "spatial"])
    assert [site.name for site in sites] == ["free"]
    assert refusals == [
        Refusal("kept", "*", "kept by request"),
        Refusal("twice", "*", "it is called 2 times in one forward pass"),
        Refusal("tied", "*", "its weight is also used by 'other'"),
        Refusal("other", "*", "its weight is also used by 'tied'"),
        Refusal("up", "*", "it is a transposed convolution, which no rewrite handles"),
        Refusal("normed", "*", "its weight is parametrized: fold that in first"),
        Refusal("special", "*", "it is a Standardized, which may not compute what its base class does"),
        Refusal("linear", "depthwise", "its kernel is 1×1: there is nothing to separate"),
        Refusal("linear", "spatial", "its window has no two axes to separate"),
    ]


def test_a_site_stays_eligible_where_one_method_takes_it():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    sites, refusals = eligible(model, trace(model, torch.randn(1, 1, 6, 6)), [], METHODS)
    assert [site.name for site in sites] == ["0"]
    assert {refusal.rewrite for refusal in refusals} == {"depthwise", "blueprint", "tucker"}


def test_pruning_hooks_of_pytorch_count_as_parametrized():
    layer = l1_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5)
    model = nn.Sequential(layer)
    sites, refusals = eligible(model, trace(model, torch.randn(1, 8, 6, 6)), [], METHODS)
    assert not sites and refusals == [Refusal("0", "*", "its weight is parametrized: fold that in first")]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 10),
    ).eval()


@pytest.fixture(scope="module")
def moments(network) -> dict[str, Moments]:
    return collect(network, ["0", "2", "6"], [(torch.randn(16, 3, 10, 10), torch.zeros(16)) for _ in range(4)])


@pytest.fixture(scope="module")
def sites(network) -> dict:
    found, _ = eligible(network, trace(network, torch.randn(1, 3, 10, 10)), [], METHODS)
    return {site.name: site for site in found}


@pytest.fixture(scope="module")
def fitted(network, moments, sites) -> dict[str, list[Variant]]:
    return fit_all(network, list(sites.values()), moments, METHODS)


def test_the_site_as_it_is_comes_first(fitted, sites):
    assert list(fitted) == list(sites) == ["0", "2", "6"]
    for name, variants in fitted.items():
        assert variants[0] == Variant(name, None, {}, 0.0, sites[name].cost) and len(variants) > 3
        assert all(v.site == name and v.rewrite in METHODS for v in variants[1:])


def test_costs_are_those_of_the_layers_that_are_built(network, fitted, sites):
    for name, variants in fitted.items():
        layer, x = network.get_submodule(name), torch.randn(1, *sites[name].input_shape)
        for variant in variants[1:]:
            built = REWRITES[variant.rewrite].build(layer, variant.options, variant.factors)
            assert trace(built, x).cost == variant.cost
            assert variant.cost.macs < sites[name].cost.macs or variant.cost.params < sites[name].cost.params


def test_predicted_losses_are_those_of_the_equivalent_kernels(network, fitted, moments):
    for name, variants in fitted.items():
        w_BOIK, shape = kernel_of(network.get_submodule(name)), shape_of(network.get_submodule(name))
        for variant in variants[1:]:
            new = REWRITES[variant.rewrite].kernel(variant.factors, shape, variant.options)
            loss = quadratic_loss((new - w_BOIK).flatten(2), moments[name].c_BPP, moments[name].g_BOO)
            assert variant.predicted_loss == pytest.approx(float(loss), rel=1e-4, abs=1e-9)


def test_more_rank_loses_less(network, moments):
    for name, layer in (("0", network[0]), ("2", network[2]), ("6", network[6])):
        w_BOIK, shape = kernel_of(layer), shape_of(layer)
        zero_loss = float(quadratic_loss(w_BOIK.flatten(2), moments[name].c_BPP, moments[name].g_BOO))
        for method, rewrite in REWRITES.items():
            if rewrite.refuse(shape) or method == "tucker":
                continue
            grid = [options for options in rewrite.grid(shape) if options.get("order", "vertical") == "vertical"]
            losses = [fit_variant(w_BOIK, shape, method, options, moments[name])[1] for options in grid]
            assert all(0 <= loss < zero_loss for loss in losses)
            assert all(b < a + 1e-3 * zero_loss for a, b in pairwise(losses)), (name, method)
            assert len(losses) == 1 or losses[-1] < 0.9 * losses[0]


def test_tucker_loses_less_with_either_rank(network, moments):
    w_BOIK, shape = kernel_of(network[2]), shape_of(network[2])

    def loss(rank_in: int, rank_out: int) -> float:
        return fit_variant(w_BOIK, shape, "tucker", {"rank_in": rank_in, "rank_out": rank_out}, moments["2"])[1]

    assert loss(1, 2) > loss(2, 2) > loss(3, 4) > loss(4, 6) - 1e-6
    assert loss(2, 2) > loss(2, 6)


def test_the_refined_factors_beat_the_start(network, moments):
    layer, c, g = network[2], moments["2"].c_BPP, moments["2"].g_BOO
    w_BOIK, shape = kernel_of(layer), shape_of(layer)
    for method in ("depthwise", "blueprint", "spatial", "tucker"):
        rewrite = REWRITES[method]
        options = rewrite.grid(shape)[0]
        start = rewrite.kernel(rewrite.start(w_BOIK, shape, options, c, g), shape, options)
        before = float(quadratic_loss((start - w_BOIK).flatten(2), c, g))
        assert fit_variant(w_BOIK, shape, method, options, moments["2"])[1] < before


def test_progress_counts_all_variants(network, moments, sites):
    seen = []
    fit_all(network, [sites["6"]], moments, ["low-rank"], lambda done, total: seen.append((done, total)))
    total = len(REWRITES["low-rank"].grid(shape_of(network[6])))
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_what_saves_nothing_is_no_variant(moments):
    layer = nn.Conv2d(2, 2, 2)
    site = replace(trace(layer, torch.randn(1, 2, 4, 4)).sites[0], name="0")
    unit = Moments(torch.eye(8)[None], torch.eye(2)[None])
    variants = fit_all(nn.Sequential(layer), [site], {"0": unit}, METHODS)["0"]
    assert all(v.cost.macs < site.cost.macs or v.cost.params < site.cost.params for v in variants[1:])
    assert all(v.options != {"rank": 2} for v in variants if v.rewrite == "depthwise")


def test_the_cost_of_a_variant_leaves_the_layer_where_it_is(network, sites):
    before = copy.deepcopy(network[2].state_dict())
    variant_cost(network[2], sites["2"], "depthwise", {"rank": 1})
    assert not network[2].weight.is_meta and torch.equal(network[2].weight, before["weight"])


def test_threads_come_back():
    torch.set_num_threads(2)
    try:
        with one_thread_each():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def variant(loss: float, macs: int, params: int, rewrite: str | None = "depthwise") -> Variant:
    return Variant("a", rewrite, {}, loss, Cost(macs, params))


def test_dead_ends_go_and_the_original_stays():
    original = variant(0.0, 100, 100, None)
    light, heavy = variant(1.0, 10, 10), variant(0.1, 50, 50)
    dead, few_params, near = variant(1.6, 10, 10), variant(1.6, 20, 5), variant(1.4, 12, 12)
    kept = prune([original, light, heavy, dead, few_params, near])
    assert kept == [original, light, heavy, few_params, near]
    assert prune([original]) == [original]


def test_the_original_makes_no_variant_a_dead_end():
    """It is lossless, but a variant that costs as much in one respect may still be faster."""
    original, same_macs = variant(0.0, 100, 100, None), variant(0.5, 100, 150)
    assert prune([original, same_macs]) == [original, same_macs]
