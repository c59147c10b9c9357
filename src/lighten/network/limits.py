"""Limits for a pipeline: `macs>600M` fails a build whose network has grown too costly."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lighten.errors import BudgetError, LightenError
from lighten.network.table import CostTable
from lighten.plan.budget import SCALES
from lighten.references import nearest

UNITS = SCALES | {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
QUANTITIES = ("macs", "params", "activations", "activation_bytes", "weight_bytes", "peak_bytes", "effective_macs")
PATTERN = re.compile(r"\s*(\w+)\s*(>=|>|<=|<)\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
HOLDS = {">": float.__gt__, ">=": float.__ge__, "<": float.__lt__, "<=": float.__le__}


@dataclass(frozen=True, slots=True)
class Limit:
    """What must not hold of a total. text: as it was given."""

    quantity: str
    relation: str
    value: float
    text: str


def parse_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """Limits as `macs>600M`; raises LightenError for a text that isn't one."""
    return tuple(parse_limit(text.strip()) for text in texts)


def parse_limit(text: str) -> Limit:
    """One limit; raises LightenError that says what is needed."""
    match = PATTERN.fullmatch(text)
    if not match or match[4].lower() not in UNITS:
        raise LightenError(f"cannot read the limit '{text}'; write 'macs>600M', 'params>5M' or 'peak_bytes>64MiB'")
    if match[1].lower() not in QUANTITIES:
        hint = nearest(match[1].lower(), QUANTITIES) or f": known are {', '.join(QUANTITIES)}"
        raise LightenError(f"the limit '{text}' is on no total of ours{hint}")
    return Limit(match[1].lower(), match[2], float(match[3]) * UNITS[match[4].lower()], text)


def check_limits(table: CostTable, limits: Sequence[Limit]) -> None:
    """Raise BudgetError where one of them holds, saying what the total is."""
    totals = asdict(table.total) | {"macs": table.amount, "peak_bytes": table.peak_bytes}
    broken = [limit for limit in limits if HOLDS[limit.relation](float(totals[limit.quantity]), limit.value)]
    if broken:
        said = " and ".join(f"{limit.text} ({totals[limit.quantity]:,})" for limit in broken)
        raise BudgetError(f"'{table.title}' fails: {said}")
