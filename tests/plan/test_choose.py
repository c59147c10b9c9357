"""The loop between solver and clock, with a clock that is made up."""

import pytest

from lighten.errors import BudgetError
from lighten.network.cost import Cost
from lighten.plan.choose import MAX_SOLVES, choose
from lighten.plan.variants import Variant

TIMES_MS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
VARIANTS = {
    site: [
        Variant(site, "low-rank" if loss else None, {}, float(loss**2), Cost(round(100 * t), 1), None, t)
        for loss, t in enumerate(TIMES_MS)
    ]
    for site in "abcdef"
}
WHOLE_MS = 7.0  # the six sites and 1 ms of other layers
TOTAL = Cost(700, 10)


class Clock:
    """Says `factor` times what the sum of the layers is, and remembers what it was asked."""

    def __init__(self, factor: float):
        self.factor, self.asked = factor, []

    def __call__(self, chosen: list[Variant]) -> float:
        self.asked.append(chosen)
        return self.factor * (1.0 + sum(v.latency_ms for v in chosen))


def loss_of(chosen: list[Variant]) -> float:
    return sum(v.predicted_loss for v in chosen)


def test_without_a_latency_bound_no_clock_is_asked():
    chosen, turns = choose(VARIANTS, TOTAL, {"macs": 400})
    assert turns == () and 100 + sum(v.cost.macs for v in chosen) <= 400


def test_a_right_prediction_takes_one_turn():
    clock = Clock(1.0)
    chosen, turns = choose(VARIANTS, TOTAL, {"latency": 4.0}, WHOLE_MS, clock)
    assert len(turns) == 1 and clock.asked == [chosen]
    assert turns[0].bound_ms == 4.0 and turns[0].measured_ms <= 4.0
    assert turns[0].predicted_ms == pytest.approx(turns[0].measured_ms)


def test_an_optimistic_predictor_is_corrected():
    clock = Clock(1.4)
    chosen, turns = choose(VARIANTS, TOTAL, {"latency": 4.0}, WHOLE_MS, clock)
    assert turns[0].measured_ms > 4.0
    assert clock(chosen) <= 4.0 and len(turns) <= MAX_SOLVES
    assert turns[1].bound_ms == pytest.approx(4.0 * 0.985 * 4.0 / turns[0].measured_ms)


def test_far_below_the_target_the_bound_is_loosened():
    clock = Clock(0.6)
    chosen, turns = choose(VARIANTS, TOTAL, {"latency": 3.0}, WHOLE_MS, clock)
    assert turns[1].bound_ms > turns[0].bound_ms == 3.0
    assert loss_of(chosen) < loss_of(clock.asked[0])
    assert clock(chosen) <= 3.0
    assert loss_of(chosen) == min(loss_of(c) for c in clock.asked if clock.factor * (1 + sum_ms(c)) <= 3.0)


def test_a_plan_is_timed_once():
    clock = Clock(1.02)
    choose(VARIANTS, TOTAL, {"latency": 1.9}, WHOLE_MS, clock)
    plans = [tuple(map(id, chosen)) for chosen in clock.asked]
    assert len(plans) > 1 and len(set(plans)) == len(plans)


def sum_ms(chosen: list[Variant]) -> float:
    return sum(v.latency_ms for v in chosen)


def test_a_clock_that_never_agrees_ends_with_the_nearest():
    times = iter([6.0, 5.0, 5.5, 5.25, 5.75, 5.125])
    with pytest.raises(BudgetError) as caught:
        choose(VARIANTS, TOTAL, {"latency": 4.0}, WHOLE_MS, lambda chosen: next(times))
    assert str(caught.value) == ("the latency budget of 4 ms is missed by the clock: the nearest network takes 5 ms")


def test_a_bound_below_the_lightest_network_is_told_before_the_clock_is_asked():
    clock = Clock(1.0)
    with pytest.raises(BudgetError, match="at least 1.6 ms are left whatever is chosen, and 1 were asked for"):
        choose(VARIANTS, TOTAL, {"latency": 1.0}, WHOLE_MS, clock)
    assert clock.asked == []


def test_the_lightest_network_is_tried_before_giving_up():
    clock = Clock(2.0)
    with pytest.raises(BudgetError, match="the latency budget of 2 ms is missed by the clock: the nearest .* 3.2 ms"):
        choose(VARIANTS, TOTAL, {"latency": 2.0}, WHOLE_MS, clock)
    assert min(2 * (1 + sum_ms(chosen)) for chosen in clock.asked) == pytest.approx(3.2)
    assert 1 < len(clock.asked) <= MAX_SOLVES


def test_other_bounds_hold_in_every_turn():
    clock = Clock(1.2)
    chosen, _ = choose(VARIANTS, TOTAL, {"latency": 4.0, "macs": 300}, WHOLE_MS, clock)
    assert clock(chosen) <= 4.0
    assert all(100 + sum(v.cost.macs for v in asked) <= 300 for asked in clock.asked)
