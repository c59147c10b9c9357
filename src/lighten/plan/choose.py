"""From variants and bounds to a plan; what the clock says of the whole network corrects the solver."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lighten.errors import BudgetError
from lighten.network.cost import Cost
from lighten.plan.solve import fixed_part, least_spent, solve, spent
from lighten.plan.variants import Variant

MAX_SOLVES = 6
MARGIN = 0.985  # of the corrected bound, for the clock's own spread
CLOSE_ENOUGH = 0.96  # a plan that uses this share of the latency budget needs no further turn


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the loop, in milliseconds: the bound given to the solver, what it predicted, what was measured."""

    bound_ms: float
    predicted_ms: float
    measured_ms: float


def choose(
    variants: Mapping[str, Sequence[Variant]],
    total: Cost,
    limits: Mapping[str, float],
    latency_ms: float | None = None,
    measure: Callable[[list[Variant]], float] | None = None,
) -> tuple[list[Variant], tuple[Turn, ...]]:
    """One variant per site within all limits, and the turns that it took.

    latency_ms: the measured time of the whole original; measure: of the whole network with these variants, *in the
    original's units*, so that a noisy minute doesn't count. Both are needed where latency is limited.
    Raises BudgetError where the limits can't be met, also by the clock.
    """
    fixed = fixed_part(total, variants, latency_ms)
    if "latency" not in limits:
        return solve(variants, limits, fixed), ()
    assert measure is not None and latency_ms is not None
    target = bound = limits["latency"]
    turns: list[Turn] = []
    best: tuple[float, list[Variant]] | None = None
    known: dict[tuple[int, ...], float] = {}
    least = least_spent(variants, "latency", fixed)
    for _ in range(MAX_SOLVES):
        chosen = solve(variants, {**limits, "latency": bound}, fixed)
        predicted = sum(spent(v, "latency") for v in chosen) + fixed["latency"]
        plan = tuple(map(id, chosen))
        measured = known[plan] = known.get(plan) or measure(chosen)
        turns.append(Turn(bound, predicted, measured))
        loss = sum(v.predicted_loss for v in chosen)
        if measured <= target and (best is None or loss < best[0]):
            best = loss, chosen
        if CLOSE_ENOUGH * target <= measured <= target or not any(v.rewrite for v in chosen):
            break
        following = max(bound * MARGIN * target / measured, least * (1 + 1e-9))
        if following == bound or (best and following <= least * (1 + 1e-6)):
            break
        bound = following
    if best is None:
        nearest = min(turn.measured_ms for turn in turns)
        raise BudgetError(
            f"the latency budget of {target:.4g} ms is missed by the clock: the nearest network takes {nearest:.4g} ms"
        )
    return best[1], tuple(turns)
