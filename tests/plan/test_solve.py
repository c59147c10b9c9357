"""The knapsack against trying everything, and what infeasible budgets are told."""

import itertools
import random

import pytest

from lighten.errors import BudgetError
from lighten.network.cost import Cost
from lighten.plan.solve import fixed_part, nearest_factor, solve, spent
from lighten.plan.variants import Variant

QUANTITIES = ("macs", "params", "latency")
NOTHING = dict.fromkeys(QUANTITIES, 0.0)


def variant(site: str, loss: float, macs: int = 0, params: int = 0, latency_ms: float | None = 0.0) -> Variant:
    return Variant(site, None, {}, loss, Cost(macs, params), None, latency_ms)


def instance(seed: int, num_limits: int) -> tuple[dict[str, list[Variant]], dict[str, float], dict[str, float]]:
    """Up to five sites of up to five variants, limits between the least and the most, and what other layers spend."""
    draw = random.Random(seed)
    variants = {
        f"s{i}": [
            variant(f"s{i}", draw.random(), draw.randint(1, 99), draw.randint(1, 99), draw.random())
            for _ in range(draw.randint(1, 5))
        ]
        for i in range(draw.randint(2, 5))
    }
    fixed = {quantity: draw.uniform(0, 20) for quantity in QUANTITIES}
    limits = {}
    for quantity in draw.sample(QUANTITIES, num_limits):
        sums = [total(chosen, quantity) for chosen in every(variants)]
        limits[quantity] = fixed[quantity] + draw.uniform(min(sums), max(sums))
    return variants, limits, fixed


def every(variants: dict[str, list[Variant]]):
    """Every choice of one variant per site."""
    return itertools.product(*variants.values())


def total(chosen, quantity: str) -> float:
    return sum(spent(v, quantity) for v in chosen)


def is_within(chosen, limits: dict[str, float], fixed: dict[str, float]) -> bool:
    return all(total(chosen, q) + fixed[q] <= limit * (1 + 1e-6) for q, limit in limits.items())


@pytest.mark.parametrize("num_limits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_as_good_as_trying_everything(seed: int, num_limits: int):
    variants, limits, fixed = instance(100 * num_limits + seed, num_limits)
    losses = [sum(v.predicted_loss for v in chosen) for chosen in every(variants) if is_within(chosen, limits, fixed)]
    if not losses:
        with pytest.raises(BudgetError, match="each limit is feasible alone, but not all together"):
            solve(variants, limits, fixed)
        factor = nearest_factor(variants, limits, fixed)
        factors = [max((total(chosen, q) + fixed[q]) / v for q, v in limits.items()) for chosen in every(variants)]
        assert factor == pytest.approx(min(factors), rel=1e-5)
        return
    chosen = solve(variants, limits, fixed)
    assert [v.site for v in chosen] == list(variants)
    assert is_within(chosen, limits, fixed)
    assert sum(v.predicted_loss for v in chosen) == pytest.approx(min(losses), rel=1e-3)


def test_a_loose_limit_changes_nothing_and_a_tight_one_takes_the_cheapest():
    variants = {s: [variant(s, 0.0, 100), variant(s, 1.0, 40), variant(s, 3.0, 10)] for s in "ab"}
    assert [v.cost.macs for v in solve(variants, {"macs": 200}, NOTHING)] == [100, 100]
    assert [v.cost.macs for v in solve(variants, {"macs": 20}, NOTHING)] == [10, 10]
    assert sorted(v.cost.macs for v in solve(variants, {"macs": 140}, NOTHING)) == [40, 100]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"macs": 7000},
            "the budget can't be met: at least 1.2e+04 MACs are left whatever is chosen, and 7,000 were asked for",
        ),
        (
            {"params": 3},
            "the budget can't be met: at least 4 parameters are left whatever is chosen, and 3 were asked for",
        ),
        (
            {"latency": 0.2},
            "the budget can't be met: at least 0.75 ms are left whatever is chosen, and 0.2 were asked for",
        ),
    ],
)
def test_infeasible_budgets_name_the_nearest(limits: dict[str, float], message: str):
    variants = {
        "a": [variant("a", 0, 9000, 9, 0.5), variant("a", 1, 1000, 1, 0.25)],
        "b": [variant("b", 0, 9000, 3, 0.25)],
    }
    with pytest.raises(BudgetError) as caught:
        solve(variants, limits, {"macs": 2000, "params": 0, "latency": 0.25})
    assert str(caught.value) == message and caught.value.exit_code == 3


def test_limits_that_only_fail_together_are_all_named():
    variants = {"a": [variant("a", 0, macs=1, params=10), variant("a", 0, macs=10, params=1)]}
    for limits in ({"macs": 5}, {"params": 5}):
        assert len(solve(variants, limits, NOTHING)) == 1
    with pytest.raises(BudgetError) as caught:
        solve(variants, {"macs": 5, "params": 5}, NOTHING)
    assert str(caught.value) == (
        "each limit is feasible alone, but not all together; the nearest that are: macs<=10 MACs, params<=10 parameters"
    )


def test_what_other_layers_spend_is_the_whole_less_the_sites_as_they_are():
    variants = {s: [variant(s, 0, 30, 5, 0.25), variant(s, 1, 1, 1, 0.1)] for s in "ab"}
    assert fixed_part(Cost(100, 12), variants, 2.0) == {"macs": 40, "params": 2, "latency": 1.5}
    assert fixed_part(Cost(100, 12), variants, None) == {"macs": 40, "params": 2}
