"""Where two conventions part on a network, in a few lines."""

from collections import Counter

from lighten.network.conventions import RULES, convention
from lighten.network.counters.amounts import Amounts
from lighten.network.record import Record

MAX_KINDS = 8


def explain(found: Record, a: str, b: str) -> tuple[str, ...]:
    """A line for each kind of layer on which the conventions `a` and `b` part, largest difference first; then the sum.

    Kinds beyond the first 8 share a line. Raises LightenError where there is no such convention.
    """
    by_a, by_b = convention(a)(found), convention(b)(found)
    parting = [key for key in dict.fromkeys((*by_a, *by_b)) if by_a.get(key, 0) != by_b.get(key, 0)]
    of_a, of_b, num_layers = by_kind(by_a, parting), by_kind(by_b, parting), Counter(kind for _, kind in parting)
    more = {kind: of_b[kind] - of_a[kind] for kind in num_layers}
    kinds = sorted(more, key=lambda kind: -abs(more[kind]))
    lines = [
        f"{kind} × {num_layers[kind]}: {told(a, kind, of_a[kind])}, {told(b, kind, of_b[kind])}: {more[kind]:+,}"
        for kind in kinds[:MAX_KINDS]
    ]
    if len(kinds) > MAX_KINDS:
        lines.append(f"{len(kinds) - MAX_KINDS} more kinds: {sum(more[kind] for kind in kinds[MAX_KINDS:]):+,}")
    total_a, total_b = sum(by_a.values()), sum(by_b.values())
    return (*lines, f"in all: {a} {total_a:,}, {b} {total_b:,}: {total_b - total_a:+,}")


def by_kind(amounts: Amounts, keys: list[tuple[str, str]]) -> Counter[str]:
    """The sums of some of the amounts."""
    found: Counter[str] = Counter()
    for key in keys:
        found[key[1]] += amounts.get(key, 0)
    return found


def told(name: str, kind: str, amount: int) -> str:
    """What a convention counts for a kind, and by which rule: the one with the longest beginning of its name."""
    rules = RULES[name]
    rule = rules[max((beginning for beginning in rules if kind.startswith(beginning)), key=len)]
    reason = rule if amount else "not counted"
    return f"{name} {amount:,} ({reason})" if reason else f"{name} {amount:,}"
