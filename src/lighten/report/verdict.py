"""Whether the finished network keeps to what was asked, by what was measured on it."""

from dataclasses import dataclass

from lighten.plan.budget import Bound, parse_budget
from lighten.report.results import Results, Totals
from lighten.report.wording import NONE, count_text, is_number, ms_text, ratio_text

FIELDS = {"latency": "latency_ms", "macs": "macs", "params": "params"}
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bound as it was asked, what was reached in words, and whether it is met; None where nobody can tell."""

    budget: str
    reached: str
    met: bool | None


def verdicts(results: Results) -> list[Verdict]:
    """One verdict per bound, in the order of asking; raises LightenError where a budget can't be read."""
    bounds = parse_budget(results.budget) if results.budget else ()
    return [judge(bound, results.before, results.after) for bound in bounds]


def judge(bound: Bound, before: Totals, after: Totals) -> Verdict:
    """The verdict on one bound, in the bound's own unit."""
    if bound.quantity == "drop":
        if not is_number(before.accuracy) or not is_number(after.accuracy):
            return Verdict(str(bound), NONE, None)
        drop = before.accuracy - after.accuracy
        return Verdict(str(bound), f"{drop:.2f} points", keeps(drop, bound.limit))
    old, new = (getattr(totals, FIELDS[bound.quantity]) for totals in (before, after))
    if not is_number(new) or (bound.relative and not is_number(old)):
        return Verdict(str(bound), NONE, None)
    words = ms_text(new) if bound.quantity == "latency" else count_text(new)
    return Verdict(str(bound), ratio_text(old, new) if bound.relative else words, keeps(new, bound.absolute(old or 0)))


def keeps(value: float, limit: float) -> bool:
    """Whether a value is within its limit, rounding of floats aside."""
    return value <= limit + ROUNDING * max(1.0, limit)
