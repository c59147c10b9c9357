"""The cost of any network, by our own convention or by that of another tool."""

from dataclasses import replace

from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.network.conventions import UNITS
from lighten.network.conventions import convention as convention_of
from lighten.network.cost import Cost
from lighten.network.explain import explain as explained
from lighten.network.peak import peak_bytes
from lighten.network.record import Example, Record, record
from lighten.network.table import CostTable, Row
from lighten.network.trace import Site, sites_of

PER_MAC = {"macs": 1, "flops": 2}


def count(
    model: nn.Module,
    example: Example,
    *,
    convention: str = "macs",
    explain: str | None = None,
    per_call: bool = False,
    strict: bool = False,
    title: str | None = None,
) -> CostTable:
    """What one forward pass of `model` costs; the model is left as it was.

    example: a tensor (N, …), of which the first sample counts; or a tuple of positional or a dictionary of named
    arguments, which count as they are. convention: `macs`, or another of CONVENTIONS; explain: one that it is compared
    with, in the table's `explanation`. per_call: a row for each call of a layer, in the order of calls. strict: raise
    where an operator was met that has no formula. Raises LightenError where the model fails, naming the layer and its
    shapes.
    """
    found = record(model, example)
    table = table_of(found, convention, title or type(model).__name__)
    if per_call:
        if convention not in PER_MAC:
            raise LightenError(f"rows per call are known of {' and '.join(PER_MAC)}, not of '{convention}'")
        sites, times = sites_of(found, per_call=True).sites, PER_MAC[convention]
        rows = (row_of(index, site, times * site.cost.macs) for index, site in enumerate(sites, 1))
        table = replace(table, rows=tuple(rows))
    if explain:
        table = replace(table, explanation=explained(found, explain, convention))
    if strict and table.uncounted:
        listed = ", ".join(
            f"{name} ({calls} of {table.num_operators} calls)" for name, calls in table.uncounted.items()
        )
        raise LightenError(f"these operators of '{table.title}' have no formula: {listed}")
    return table


def table_of(found: Record, convention: str, title: str) -> CostTable:
    """The table of a record."""
    amounts = convention_of(convention)(found)
    traced = sites_of(found)
    rows = rows_of(traced.sites, amounts)
    return CostTable(
        title,
        shapes_shown(found),
        convention,
        UNITS[convention],
        rows,
        traced.cost,
        traced.outside,
        sum(amounts.values()),
        peak_bytes(found),
        traced.uncounted,
        traced.num_operators,
        notes(found),
    )


def rows_of(sites: tuple[Site, ...], amounts: dict[tuple[str, str], int]) -> tuple[Row, ...]:
    """A row per site, and one for each amount of what isn't a site: a convention may count more than we do."""
    left = dict(amounts)
    rows = [row_of(index, site, left.pop((site.name, site.kind), 0)) for index, site in enumerate(sites, 1)]
    more = ((name, kind, amount) for (name, kind), amount in left.items() if amount)
    return (*rows, *(Row(i, n, k, (), (), 1, (), Cost(), a) for i, (n, k, a) in enumerate(more, len(rows) + 1)))


def row_of(index: int, site: Site, amount: int) -> Row:
    """A site as a row."""
    shapes = (site.input_shape, site.output_shape)
    return Row(index, site.name, site.kind, *shapes, site.calls, site.shared_with, site.cost, amount)


def shapes_shown(found: Record) -> tuple[tuple[int, ...], ...]:
    """Of a single tensor without the batch axis, since the cost is of one sample; of several as they are."""
    return (found.input_shapes[0][1:],) if isinstance(found.example, Tensor) else found.input_shapes


def notes(found: Record) -> tuple[str, ...]:
    """What to know before trusting the figures."""
    said = []
    if found.decisions:
        listed = ", ".join(f"{name} × {calls}" for name, calls in found.decisions.items())
        said.append(f"the network looks at its own values ({listed}): what counts is the path that this input took")
    return tuple(said)
