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
    sites = {name: index for index, name in enumerate(variants)}
    one_each = np.zeros((len(sites), len(flat)))
    for column, variant in enumerate(flat):
        one_each[sites[variant.site], column] = 1
    constraints = [LinearConstraint(one_each, 1, 1)]
    for quantity, limit in limits.items():
        costs = np.array([spent(v, quantity) for v in flat], dtype=float)
        least = sum(min(spent(v, quantity) for v in group) for group in variants.values()) + fixed[quantity]
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
        raise BudgetError(
            f"no choice meets all of {', '.join(f'{q}<={v:,.4g} {UNITS[q]}' for q, v in limits.items())} together: "
            "each is feasible alone, so loosen one"
        )
    return [variant for variant, taken in zip(flat, found.x, strict=True) if taken > 0.5]


def fixed_part(total: Cost, variants: Mapping[str, Sequence[Variant]], latency_ms: float | None) -> dict[str, float]:
    """{quantity: what the sites that can't be rewritten spend}; latency: the measured whole less its timed sites."""
    originals = [group[0] for group in variants.values()]
    fixed = {q: getattr(total, q) - sum(getattr(v.cost, q) for v in originals) for q in ("macs", "params")}
    if latency_ms is not None:
        fixed["latency"] = latency_ms - sum(v.latency_ms or 0.0 for v in originals)
    return fixed
