"""A table as text: what a terminal shows without colours, and Markdown."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.table import Table


def as_table(title: str, cells: Iterable[tuple[str, ...]], right: range, items: Iterable[str]) -> Table:
    """The header and the rows of `cells` for a terminal, with lines below. right: columns of numbers."""
    head, *body = cells
    table = Table(title=title, caption="\n".join(items), caption_justify="left")
    for column, name in enumerate(head):
        table.add_column(name, justify="right" if column in right else "left", overflow="fold")
    for row in body:
        table.add_row(*row)
    return table


def as_text(table: RenderableType, width: int) -> str:
    """What a terminal of this width shows, without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue()


def as_markdown(cells: Iterable[tuple[str, ...]], right: range, items: Iterable[str]) -> str:
    """The header and the rows of `cells` as a table, then a list. right: columns of numbers."""
    head, *body = cells
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    rows = [" | ".join(cell.replace("\n", " ") for cell in row) for row in (head, rule, *body)]
    return "\n".join([*(f"| {row} |" for row in rows), "", *(f"- {item}" for item in items), ""])
