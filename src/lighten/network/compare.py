"""Two networks side by side: what each layer costs in the one, and in the other what stands in its place."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from rich.table import Table

from lighten.errors import LightenError
from lighten.network.cost import Cost
from lighten.network.table import CostTable, Row
from lighten.plan.plan import Plan
from lighten.report.plain import as_markdown, as_table, as_text

Key = Callable[[Row], Any]
Rows = Sequence[Row]
Times = Mapping[str, float]
QUANTITIES = {
    "params": "parameters",
    "macs": "MACs",
    "activations": "activations",
    "activation_bytes": "bytes of activations",
    "weight_bytes": "bytes of weights",
    "peak_bytes": "bytes of activations at the peak",
    "latency_ms": "latency in ms",
}
OUTSIDE = "(outside any layer called)"
NUMBERS = range(3, 7)  # columns
SURE = 4  # the most that `likeness` can be


@dataclass(frozen=True, slots=True)
class Pair:
    """Layers before, and what stands in their place. One side may be empty: then the others are added, or removed.

    rewrite: by which a plan replaced the layer; without a plan `replaced` where several took its place, `merged` where
    it took theirs.
    """

    before: tuple[Row, ...]
    after: tuple[Row, ...]
    rewrite: str = ""

    @property
    def name(self) -> str:
        """Of the first layer before, or of the added one."""
        return (*self.before, *self.after)[0].name

    @property
    def kinds(self) -> str:
        """Before, and after where a single layer of another kind took the place."""
        first, second = (" + ".join(dict.fromkeys(row.kind for row in rows)) for rows in (self.before, self.after))
        if self.rewrite or first == second or not second:
            return first
        return f"{first} → {second}" if first else second

    @property
    def change(self) -> str:
        """`added`, `removed`, a rewrite's name, `changed`, or `same` where all costs are."""
        if not self.before or not self.after:
            return "removed" if self.before else "added"
        return self.rewrite or ("same" if amounts_of(self.before) == amounts_of(self.after) else "changed")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both tables, and their rows in pairs.

    latency_ms: of the whole networks, before and after, where measured; layers_ms: {layer: ms} of both likewise.
    A ratio is always before ÷ after: 2 is half as much, and what is below 1 has grown.
    """

    before: CostTable
    after: CostTable
    pairs: tuple[Pair, ...]
    latency_ms: tuple[float, float] | None = None
    layers_ms: tuple[Times, Times] | None = None

    @property
    def totals(self) -> tuple[dict[str, float], dict[str, float]]:
        """{quantity: amount} of the whole networks, before and after."""
        found = [total_of(table) for table in (self.before, self.after)]
        for total, time_ms in zip(found, self.latency_ms or (), strict=False):
            total["latency_ms"] = time_ms
        return found[0], found[1]

    @property
    def ratio(self) -> dict[str, float | None]:
        """{quantity: before ÷ after} of the whole networks; None where either is 0."""
        return ratios(*self.totals)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as `lighten compare --json` prints it."""
        sides = [
            {"model": table.title, **total, "uncounted": table.as_dict()["uncounted"]}
            for table, total in zip((self.before, self.after), self.totals, strict=True)
        ]
        return {
            "convention": self.before.convention,
            "before": sides[0],
            "after": sides[1],
            "ratio": self.ratio,
            "rows": [self.row(pair) for pair in self.pairs],
        }

    def row(self, pair: Pair) -> dict[str, Any]:
        """Plain values by name; a side that is empty is None."""
        before, after = self.amounts(pair)
        sides = [
            {**side_of(rows), **amounts} if rows else None
            for rows, amounts in ((pair.before, before), (pair.after, after))
        ]
        ratio = ratios(before, after)
        return {"name": pair.name, "change": pair.change, "before": sides[0], "after": sides[1], "ratio": ratio}

    def amounts(self, pair: Pair) -> tuple[dict[str, float], dict[str, float]]:
        """{quantity: amount} of both sides of a pair, with the time of the layers where it was measured."""
        before, after = amounts_of(pair.before), amounts_of(pair.after)
        if self.layers_ms:
            before["latency_ms"] = sum(self.layers_ms[0].get(row.name, 0.0) for row in pair.before)
            after["latency_ms"] = sum(self.layers_ms[1].get(row.name, 0.0) for row in pair.after)
        return before, after

    def to_markdown(self) -> str:
        """The pairs as a Markdown table, and the totals as a list."""
        return as_markdown(self.cells(), NUMBERS, self.lines())

    def to_text(self, width: int = 120) -> str:
        """What a terminal shows, without colours."""
        return as_text(self, width)

    def __rich__(self) -> Table:
        return as_table(f"{self.before.title} → {self.after.title}", self.cells(), NUMBERS, self.lines())

    def __str__(self) -> str:
        return self.to_text()

    def cells(self) -> Iterator[tuple[str, ...]]:
        """The header, and the text of every pair."""
        heads = {"params": "parameters", "macs": self.before.unit, "activations": "activations"}
        heads |= {"latency_ms": "ms"} if self.layers_ms else {}
        yield ("layer", "kind", "change", *heads.values())
        for pair in self.pairs:
            before, after = self.amounts(pair)
            amounts = (change_text(before[key], after[key]) for key in heads)
            yield (pair.name or "(whole)", pair.kinds, words_of(pair), *amounts)

    def lines(self) -> Iterator[str]:
        """The summary as text."""
        return (f"{label}: {value}" for label, value in self.summary())

    def summary(self) -> Iterator[tuple[str, str]]:
        """What stands under the rows: (label, value)."""
        before, after = self.totals
        labels = QUANTITIES | {"macs": self.before.unit}
        yield from ((labels[key], change_text(before[key], after[key])) for key in before)
        yield "×", "before ÷ after: 2× is half as much, and what is below 1× has grown"
        for table, side in ((self.before, "before"), (self.after, "after")):
            yield from ((f"not counted {side}", f"{name}, {calls} calls") for name, calls in table.uncounted.items())
            yield from ((f"note {side}", note) for note in table.notes)


def compare(
    before: CostTable,
    after: CostTable,
    plan: Plan | None = None,
    latency_ms: tuple[float, float] | None = None,
    layers_ms: tuple[Times, Times] | None = None,
) -> Comparison:
    """Pair the rows of two tables: by the plan, by name, and by kind and shapes in order; what is left is listed too.

    plan: that made the second network of the first; the layers that replaced a site are summed against it. Without it
    so are the rows `NAME.…` that took the place of a row NAME, or the other way round. The rows add up to the totals.
    latency_ms, layers_ms: of both networks, and {layer: ms} of their layers, where measured. Raises LightenError for
    tables of two conventions, and for a plan that names a layer which the first network doesn't call.
    """
    if before.convention != after.convention:
        raise LightenError(
            f"cannot compare '{before.title}', counted as {before.convention}, with '{after.title}', counted as "
            f"{after.convention}: count both alike"
        )
    pairs = list(by_plan(before, after, plan)) if plan else []
    pairs += by_name(*left(before, after, pairs))
    pairs += by_prefix(*left(before, after, pairs))
    names_tell = 2 * len(pairs) >= min(len(before.rows), len(after.rows))
    pairs += by_place(*left(before, after, pairs), least=SURE if names_tell else 1)
    removed, added = left(before, after, pairs)
    pairs += [*(Pair((row,), ()) for row in removed), *(Pair((), (row,)) for row in added)]
    pairs = in_order(pairs)
    if before.outside.params or after.outside.params:
        pairs.append(Pair((outside_row(before),), (outside_row(after),)))
    return Comparison(before, after, tuple(pairs), latency_ms, layers_ms)


def by_plan(before: CostTable, after: CostTable, plan: Plan) -> Iterator[Pair]:
    """Each site that the plan rewrites, against what it is now."""
    rows = {row.name: row for row in before.rows}
    for choice in plan.choices:
        if choice.site not in rows:
            raise LightenError(f"the plan is for another network: '{before.title}' doesn't call '{choice.site}'")
        now = tuple(row for row in after.rows if f"{row.name}.".startswith(f"{choice.site}."))
        yield Pair((rows[choice.site],), now, choice.rewrite)


def by_name(before: Rows, after: Rows) -> Iterator[Pair]:
    """Rows of the same name, those of the same kind first.

    None at all where most rows of the same name are of two kinds: names that are numbers shift with every layer.
    """
    keys: tuple[Key, ...] = (lambda row: (row.name, row.kind), lambda row: row.name)
    alike, named = (len({key(row) for row in before} & {key(row) for row in after}) for key in keys)
    if 2 * alike < named:
        return
    for key in keys:
        known = {key(row): row for row in before}
        partners = {key(row): row for row in after if key(row) in known}
        yield from (Pair((known[name],), (row,)) for name, row in partners.items())
        before = [row for row in before if key(row) not in partners]
        after = [row for row in after if key(row) not in partners]


def by_prefix(before: Rows, after: Rows) -> Iterator[Pair]:
    """A row NAME against all rows `NAME.…` of the other side."""
    replaced = dict(below_each(before, after))
    yield from (Pair((row,), below, "replaced") for row, below in replaced.items())
    before = [row for row in before if row not in replaced]
    after = [row for row in after if not any(row in below for below in replaced.values())]
    yield from (Pair(below, (row,), "merged") for row, below in below_each(after, before))


def below_each(tops: Rows, rows: Rows) -> Iterator[tuple[Row, tuple[Row, ...]]]:
    """(row NAME, rows `NAME.…`), each of which belongs to the longest such name."""
    found: dict[Row, list[Row]] = {}
    for row in rows:
        above = [top for top in tops if top.name and row.name.startswith(f"{top.name}.")]
        if above:
            found.setdefault(max(above, key=lambda top: len(top.name)), []).append(row)
    yield from ((top, tuple(below)) for top, below in found.items())


def by_place(before: Rows, after: Rows, least: int) -> Iterator[Pair]:
    """Rows in the same order on both sides, so that all likenesses together are the most.

    least: that a pair's likeness must be. Alignment by dynamic programming (Needleman & Wunsch 1970), gaps being free.
    """
    best = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i in reversed(range(len(before))):
        for j in reversed(range(len(after))):
            alike = likeness(before[i], after[j])
            paired = alike + best[i + 1][j + 1] if alike >= least else 0
            best[i][j] = max(best[i + 1][j], best[i][j + 1], paired)
    i = j = 0
    while i < len(before) and j < len(after):
        alike = likeness(before[i], after[j])
        if alike >= least and best[i][j] == alike + best[i + 1][j + 1]:
            yield Pair((before[i],), (after[j],))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1


def likeness(row: Row, other: Row) -> int:
    """0 for rows of two kinds; else 1, and 1 more each for the same inputs, outputs and size of the output map."""
    if row.kind != other.kind:
        return 0
    is_like = (
        row.input_shape == other.input_shape,
        row.output_shape == other.output_shape,
        row.output_shape[1:] == other.output_shape[1:],
    )
    return 1 + sum(is_like)


def left(before: CostTable, after: CostTable, pairs: Iterable[Pair]) -> tuple[list[Row], list[Row]]:
    """The rows of either side that stand in no pair yet."""
    old = {row for pair in pairs for row in pair.before}
    new = {row for pair in pairs for row in pair.after}
    return [row for row in before.rows if row not in old], [row for row in after.rows if row not in new]


def in_order(pairs: list[Pair]) -> list[Pair]:
    """In the order of the first network, and what was added after that which stands before it in the second."""
    holders = {row: pair for pair in pairs for row in pair.after}
    places, last = {}, 0
    for row in sorted(holders, key=lambda row: row.index):
        pair = holders[row]
        last = pair.before[0].index if pair.before else last
        places[pair] = (last, 0 if pair.before else row.index)
    return sorted(pairs, key=lambda pair: places.get(pair) or (pair.before[0].index, 0))


def outside_row(table: CostTable) -> Row:
    """The parameters of no layer, as a row."""
    return Row(len(table.rows) + 1, OUTSIDE, "", (), (), 0, (), table.outside, 0)


def amounts_of(rows: Iterable[Row]) -> dict[str, float]:
    """{quantity: amount} of rows together; `macs` by their table's convention."""
    rows = list(rows)
    return quantities(reduce(add, (row.cost for row in rows), Cost()), sum(row.amount for row in rows))


def total_of(table: CostTable) -> dict[str, float]:
    """{quantity: amount} of a whole network."""
    return {**quantities(table.total, table.amount), "peak_bytes": table.peak_bytes}


def quantities(cost: Cost, amount: int) -> dict[str, float]:
    """What is compared of a cost; amount: of `macs`, by a table's convention."""
    return {
        "params": cost.params,
        "macs": amount,
        "activations": cost.activations,
        "activation_bytes": cost.activation_bytes,
        "weight_bytes": cost.weight_bytes,
    }


def ratios(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float | None]:
    """{quantity: before ÷ after}; None where either is 0."""
    return {key: before[key] / after[key] if before[key] and after[key] else None for key in before}


def side_of(rows: tuple[Row, ...]) -> dict[str, Any]:
    """Which layers these are, as plain values."""
    names, kinds = [row.name for row in rows], [row.kind for row in rows]
    return {"layers": names, "kinds": kinds, "output_shape": list(rows[-1].output_shape)}


def words_of(pair: Pair) -> str:
    """The change for a reader: nothing where there is none, and the new name where it isn't the old one."""
    if pair.rewrite:
        rows = pair.after if len(pair.after) > 1 else pair.before
        return f"{pair.rewrite}: {len(rows)} layers" if len(rows) > 1 else pair.rewrite
    is_renamed = pair.before and pair.after and pair.after[0].name != pair.name
    return f"now {pair.after[0].name}" if is_renamed else "" if pair.change == "same" else pair.change


def change_text(before: float, after: float) -> str:
    """Both amounts and their ratio, or the one amount where nothing changed."""
    texts = [f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in (before, after)]
    if before == after:
        return texts[0]
    return " → ".join(texts) + (f" ({before / after:.2f}×)" if before and after else "")
