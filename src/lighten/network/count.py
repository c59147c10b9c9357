"""The cost of any network, by our own convention or by that of another tool."""

from torch import Tensor, nn

from lighten.errors import LightenError
from lighten.network.conventions import CONVENTIONS, UNITS
from lighten.network.cost import Cost
from lighten.network.peak import peak_bytes
from lighten.network.record import Example, Record, record
from lighten.network.table import CostTable, Row
from lighten.network.trace import Site, sites_of
from lighten.references import nearest


def count(
    model: nn.Module,
    example: Example,
    *,
    convention: str = "macs",
    strict: bool = False,
    title: str | None = None,
) -> CostTable:
    """What one forward pass of `model` costs; the model is left as it was.

    example: a tensor (N, …), of which the first sample counts; or a tuple of positional or a dictionary of named
    arguments, which count as they are. convention: `macs`, or another of CONVENTIONS. strict: raise where an operator
    was met that has no formula. Raises LightenError where the model fails, naming the layer and its shapes.
    """
    if convention not in CONVENTIONS:
        hint = nearest(convention, CONVENTIONS) or f": known are {', '.join(CONVENTIONS)}"
        raise LightenError(f"there is no convention '{convention}'{hint}")
    found = record(model, example[:1] if isinstance(example, Tensor) else example)
    table = table_of(found, convention, title or type(model).__name__)
    if strict and table.uncounted:
        listed = ", ".join(
            f"{name} ({calls} of {table.num_operators} calls)" for name, calls in table.uncounted.items()
        )
        raise LightenError(f"these operators of '{table.title}' have no formula: {listed}")
    return table


def table_of(found: Record, convention: str, title: str) -> CostTable:
    """The table of a record."""
    traced = sites_of(found)
    amounts = CONVENTIONS[convention](found)
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
    rows = [
        Row(
            i,
            s.name,
            s.kind,
            s.input_shape,
            s.output_shape,
            s.calls,
            s.shared_with,
            s.cost,
            left.pop((s.name, s.kind), 0),
        )
        for i, s in enumerate(sites, 1)
    ]
    more = ((name, kind, amount) for (name, kind), amount in left.items() if amount)
    return (*rows, *(Row(i, n, k, (), (), 1, (), Cost(), a) for i, (n, k, a) in enumerate(more, len(rows) + 1)))


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
