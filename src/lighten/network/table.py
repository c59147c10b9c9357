"""What a network costs, layer by layer and in total, in the shapes in which people read it."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich.table import Table

from lighten.network.cost import Cost
from lighten.report.plain import as_markdown, as_table, as_text

NUMBERS = range(3, 6)  # columns
MASKED = 0.999  # share of the weights that aren't zero, below which it is told: random weights may hold a zero


@dataclass(frozen=True, slots=True)
class Row:
    """A layer, or an operator that a container runs itself. amount: by the table's convention.

    index: its place in the table, from 1. input_shape, output_shape: of its first call, without the batch axis.
    """

    index: int
    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    calls: int
    shared_with: tuple[str, ...]
    cost: Cost
    amount: int

    @property
    def title(self) -> str:
        """Kind and place, as `conv2d-1`."""
        return f"{self.kind}-{self.index}"

    def record(self) -> dict[str, Any]:
        """Plain values by name; `macs` is by the table's convention."""
        return {
            "name": self.name,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "calls": self.calls,
            "shared_with": list(self.shared_with),
            **asdict(self.cost),
            "intensity": round(self.cost.intensity, 4),
            "macs": self.amount,
        }


@dataclass(frozen=True, slots=True)
class CostTable:
    """Cost of one forward pass. convention: whose way of counting `amount` follows; unit: what it counts.

    total: by our own convention; outside: parameters of no layer that the pass calls. peak_bytes: of activations in
    inference with buffers reused, the input not among them. uncounted: {operator: calls} without a formula, of
    `num_operators` calls in all. notes: what to know before trusting the figures. explanation: where another
    convention parts from it.
    """

    title: str
    input_shapes: tuple[tuple[int, ...], ...]
    convention: str
    unit: str
    rows: tuple[Row, ...]
    total: Cost
    outside: Cost
    amount: int
    peak_bytes: int
    uncounted: dict[str, int]
    num_operators: int
    notes: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()

    @property
    def training_bytes(self) -> int:
        """Twice the outputs of the layers with weights: the estimate of forward and backward that torchinfo prints."""
        return 2 * sum(row.cost.activation_bytes for row in self.rows if row.cost.params or row.shared_with)

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per row: `pandas.DataFrame(table.records())`."""
        return [row.record() for row in self.rows]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as `lighten count --json` prints it."""
        shapes = [list(shape) for shape in self.input_shapes]
        return {
            "model": self.title,
            "input": shapes[0] if len(shapes) == 1 else shapes,
            "convention": self.convention,
            "unit": self.unit,
            "total": asdict(self.total) | {"macs": self.amount, "peak_bytes": self.peak_bytes},
            "rows": self.records(),
            "outside": asdict(self.outside),
            "uncounted": [{"operator": name, "calls": calls} for name, calls in self.uncounted.items()],
            "num_operators": self.num_operators,
            "notes": list(self.notes),
            "explanation": list(self.explanation),
        }

    def to_json(self) -> str:
        """Everything, as one JSON document."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def to_csv(self) -> str:
        """The rows, one line each after a header; shapes as 64x8x8."""
        out = io.StringIO()
        records = [{k: flat(v) for k, v in record.items()} for record in self.records()]
        writer = csv.DictWriter(out, list(records[0]) if records else ["name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()

    def to_markdown(self) -> str:
        """The rows as a Markdown table, and the totals as a list."""
        return as_markdown(self.cells(), NUMBERS, self.summary())

    def to_text(self, width: int = 120) -> str:
        """What a terminal shows, without colours."""
        return as_text(self, width)

    def __rich__(self) -> Table:
        return as_table(self.title, self.cells(), NUMBERS, self.summary())

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        head, *body = self.cells()
        rows = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in body]
        totals = "".join(f"<li>{escape(f'{label}: {value}')}</li>" for label, value in self.totals())
        headings = "".join(f"<th>{escape(name)}</th>" for name in head)
        return f"<table><thead><tr>{headings}</tr></thead><tbody>{''.join(rows)}</tbody></table><ul>{totals}</ul>"

    def cells(self) -> Iterable[tuple[str, ...]]:
        """The header, and the text of every row."""
        yield ("layer", "kind", "output", "parameters", self.unit, "calls")
        for row in self.rows:
            params, amount = f"{row.cost.params:,}", f"{row.amount:,}"
            yield (row.name or "(whole)", row.title, by(row.output_shape), params, amount, str(row.calls))
        if self.outside.params:
            yield ("(outside any layer called)", "", "", f"{self.outside.params:,}", "", "")

    def summary(self) -> Iterable[str]:
        """The totals as lines."""
        return (f"{label}: {value}" for label, value in self.totals())

    def totals(self) -> list[tuple[str, str]]:
        """What stands under the rows: (label, value)."""
        total, fixed = self.total, self.total.params - self.total.trainable_params
        found = [
            ("input", " and ".join(map(by, self.input_shapes))),
            ("parameters", f"{total.params:,} ({total.trainable_params:,} trainable, {fixed:,} not)"),
            (self.unit, f"{self.amount:,}" + ("" if self.convention == "macs" else f", as {self.convention} counts")),
        ]
        if total.effective_params < MASKED * total.params:
            dense = f"{total.effective_params:,} parameters and {total.effective_macs:,} MACs aren't zero"
            found.append(("effective", f"{dense}; a runtime without sparse kernels computes all the same"))
        found += [
            ("weights", size(total.weight_bytes)),
            ("activations, each written once", size(total.activation_bytes)),
            ("forward and backward, estimated", size(2 * total.activation_bytes)),
            ("forward and backward of layers with weights only", size(self.training_bytes)),
            ("peak of activations in inference", size(self.peak_bytes)),
            ("arithmetic intensity", f"{total.intensity:.1f} operations per byte"),
        ]
        found += [
            ("not counted", f"{name}, {calls} of {self.num_operators} calls") for name, calls in self.uncounted.items()
        ]
        found += [("note", note) for note in self.notes]
        return found + [("by convention", line) for line in self.explanation]


def by(shape: tuple[int, ...]) -> str:
    """As 64×8×8."""
    return "×".join(map(str, shape))


def flat(value: Any) -> Any:
    """A list as text; anything else as it is."""
    return "x".join(map(str, value)) if isinstance(value, list) else value


def size(num_bytes: int) -> str:
    """In MB and MiB, which differ by 4.9 %."""
    return f"{num_bytes / 1e6:,.2f} MB ({num_bytes / 2**20:,.2f} MiB)"
