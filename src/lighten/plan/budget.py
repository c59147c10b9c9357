"""Budgets: `latency<=0.5x`, `latency<=3ms`, `macs<=0.35x`, `params<=200k`, `drop<=0.5`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lighten.errors import LightenError

QUANTITIES = ("latency", "macs", "params", "drop")
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
PATTERN = re.compile(r"\s*([a-z]+)\s*<=\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
EXAMPLES = "'latency<=0.5x', 'latency<=3ms', 'macs<=0.35x', 'params<=200k' or 'drop<=0.5'"


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper limit on one quantity: latency in milliseconds, macs, params, or drop in points of accuracy.

    relative: `limit` is a share of the original's.
    """

    quantity: str
    limit: float
    relative: bool

    def absolute(self, original: float) -> float:
        """The limit in the quantity's own unit."""
        return self.limit * original if self.relative else self.limit

    def __str__(self) -> str:
        unit = "x" if self.relative else {"latency": "ms"}.get(self.quantity, "")
        return f"{self.quantity}<={self.limit:.12g}{unit}"


def parse_budget(texts: str | Sequence[str]) -> tuple[Bound, ...]:
    """Bounds from one text or several; a text may hold several bounds after commas. Raises LightenError."""
    parts = [part for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    bounds = tuple(parse_bound(part) for part in parts)
    quantities = [bound.quantity for bound in bounds]
    if not bounds:
        raise LightenError(f"a budget is needed, for example {EXAMPLES}")
    if repeated := {q for q in quantities if quantities.count(q) > 1}:
        raise LightenError(f"the budget bounds {', '.join(sorted(repeated))} twice")
    return bounds


def parse_bound(text: str) -> Bound:
    """One bound; raises LightenError that says what was given and what is needed."""
    match = PATTERN.fullmatch(text)
    if not match or match[1].lower() not in QUANTITIES:
        raise LightenError(f"cannot read the budget '{text.strip()}'; write {EXAMPLES}")
    quantity, number, unit = match[1].lower(), float(match[2]), match[3].lower()
    relative = unit == "x"
    if quantity == "drop" and unit == "":
        return Bound(quantity, number, False)
    if number <= 0:
        raise LightenError(f"the budget '{text.strip()}' leaves nothing: its limit must be positive")
    if relative and quantity != "drop":
        return Bound(quantity, number, True)
    if quantity == "latency" and unit in ("ms", "us", "s"):
        return Bound(quantity, number * {"ms": 1.0, "us": 1e-3, "s": 1e3}[unit], False)
    if quantity in ("macs", "params") and unit in SCALES:
        return Bound(quantity, number * SCALES[unit], False)
    raise LightenError(f"the budget '{text.strip()}' has the wrong unit '{unit}'; write {EXAMPLES}")
