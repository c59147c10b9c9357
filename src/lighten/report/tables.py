"""HTML tables from plain text; every cell is escaped here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and the names of its style."""

    text: str
    style: str = ""


def number(text: str) -> Cell:
    """A cell that is set flush right."""
    return Cell(text, "number")


def table(head: Sequence[Cell | str], rows: Sequence[Sequence[Cell | str]], style: str) -> str:
    """A table that scrolls sideways where the screen is narrow; the first column stays."""
    top = "".join(cell(item, "th") for item in head)
    body = "".join(f"<tr>{''.join(cell(item, 'td') for item in row)}</tr>\n" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table class="{escape(style)}">\n<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def cell(item: Cell | str, tag: str) -> str:
    """One element of a row."""
    item = Cell(item) if isinstance(item, str) else item
    style = f' class="{escape(item.style)}"' if item.style else ""
    return f"<{tag}{style}>{escape(item.text)}</{tag}>"


def facts(rows: dict[str, object]) -> str:
    """Names and values as a definition list."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>\n" for name, value in rows.items()
    )
    return f'<dl class="facts">\n{items}</dl>\n'
