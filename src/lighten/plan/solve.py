"""One variant per site, of least predicted loss within the bounds: a multiple-choice knapsack."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from lighten.errors import BudgetError
from lighten.network.cost import Cost
from lighten.plan.variants import Variant

UNITS = {"macs": "MACs", "params": "parameters", "latency": "ms"}
SECONDS = 20.0
GAP = 1e-4


def spent(variant: Variant, quantity: str) -> float:
    """What a variant costs in one quantity: macs, params, or latency in milliseconds."""
    if quantity == "latency":
        assert variant.latency_ms is not None, "latency budgets need timed variants"
        return variant.latency_ms
    return getattr(variant.cost, quantity)


def solve(
    variants: Mapping[str, Sequence[Variant]], limits: Mapping[str, float], fixed: Mapping[str, float]
) -> list[Variant]:
    """The chosen variant of each site.

    limits: {quantity: what the whole network may spend}; fixed: {quantity: what its other layers spend}.
    Raises BudgetError, with the nearest that is feasible, where no choice meets the limits.
    """
    flat = [variant for group in variants.values() for variant in group]
    one_each = one_per_site(variants)
    constraints = [LinearConstraint(one_each, 1, 1)]
    for quantity, limit in limits.items():
        costs = np.array([spent(v, quantity) for v in flat], dtype=float)
        least = least_spent(variants, quantity, fixed)
        if least > limit:
            raise BudgetError(
                f"the budget can't be met: at least {least:,.4g} {UNITS[quantity]} are left whatever is chosen, "
                f"and {limit:,.4g} were asked for"
            )
        scale = max(limit - fixed[quantity], 1e-12)
        constraints.append(LinearConstraint(costs[None] / scale, -np.inf, 1))
    loss = np.array([max(v.predicted_loss, 0.0) for v in flat])
    found = milp(
        loss / (loss.max() or 1.0),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"time_limit": SECONDS, "mip_rel_gap": GAP},
    )
    if found.x is None:
        factor = nearest_factor(variants, limits, fixed)
        nearest = ", ".join(f"{q}<={factor * v:,.4g} {UNITS[q]}" for q, v in limits.items())
        raise BudgetError(f"each limit is feasible alone, but not all together; the nearest that are: {nearest}")
    return [variant for variant, taken in zip(flat, found.x, strict=True) if taken > 0.5]


def one_per_site(variants: Mapping[str, Sequence[Variant]]) -> np.ndarray:
    """A row per site with ones at its variants: exactly one of them is taken."""
    sizes = [len(group) for group in variants.values()]
    return np.repeat(np.eye(len(sizes)), sizes, axis=1)


def least_spent(variants: Mapping[str, Sequence[Variant]], quantity: str, fixed: Mapping[str, float]) -> float:
    """What the whole network spends where every site takes its cheapest variant."""
    return sum(min(spent(v, quantity) for v in group) for group in variants.values()) + fixed[quantity]


def nearest_factor(
    variants: Mapping[str, Sequence[Variant]], limits: Mapping[str, float], fixed: Mapping[str, float]
) -> float:
    """The smallest factor by which all limits together become feasible: the last variable of its own small problem."""
    flat = [variant for group in variants.values() for variant in group]
    constraints = [LinearConstraint(np.pad(one_per_site(variants), ((0, 0), (0, 1))), 1, 1)]
    for quantity, limit in limits.items():
        row = np.array([*(spent(v, quantity) / limit for v in flat), -1.0])
        constraints.append(LinearConstraint(row[None], -np.inf, -fixed[quantity] / limit))
    found = milp(
        np.append(np.zeros(len(flat)), 1.0),
        integrality=np.append(np.ones(len(flat)), 0),
        bounds=Bounds(0, np.append(np.ones(len(flat)), np.inf)),
        constraints=constraints,
        options={"time_limit": SECONDS},
    )
    return float(found.x[-1]) * (1 + 1e-6)


def fixed_part(total: Cost, variants: Mapping[str, Sequence[Variant]], latency_ms: float | None) -> dict[str, float]:
    """{quantity: what the sites that can't be rewritten spend}; latency: the measured whole less its timed sites."""
    originals = [group[0] for group in variants.values()]
    fixed = {q: getattr(total, q) - sum(getattr(v.cost, q) for v in originals) for q in ("macs", "params")}
    if latency_ms is not None:
        fixed["latency"] = latency_ms - sum(v.latency_ms or 0.0 for v in originals)
    return fixed
