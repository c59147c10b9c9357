"""The only code that changes a network, always on a copy."""

import copy

from torch import nn

from lighten.plan.plan import Plan, check_plan
from lighten.rewrites import REWRITES
from lighten.rewrites.base import Factors


def apply_plan(model: nn.Module, plan: Plan, factors: dict[str, Factors] | None = None) -> nn.Module:
    """A copy of `model` with the plan's layers in place of the old ones.

    factors: {site: fitted factors}; new layers of other sites have weights as PyTorch draws them, to be loaded over.
    Raises LightenError where the plan doesn't fit the network.
    """
    check_plan(plan, model)
    lighter = copy.deepcopy(model)
    for choice in plan.choices:
        old = lighter.get_submodule(choice.site)
        new = REWRITES[choice.rewrite].build(old, choice.options, (factors or {}).get(choice.site))
        replace(lighter, choice.site, new.train(old.training))
    return lighter


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in the place of another, also inside a Sequential."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
