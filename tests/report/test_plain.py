"""Tables as text, for any terminal and for Markdown."""

from rich.table import Table

from lighten.report.plain import as_markdown, as_text


def test_markdown():
    cells = [("name", "size"), ("a\nb", "1"), ("c", "22")]
    assert as_markdown(iter(cells), range(1, 2), ["one", "two"]) == (
        "| name | size |\n| --- | ---: |\n| a b | 1 |\n| c | 22 |\n\n- one\n- two\n"
    )


def test_text_has_no_colours_and_keeps_the_width():
    table = Table("name", title="[red]a title[/red]")
    table.add_row("long " * 40)
    lines = as_text(table, 50).splitlines()
    assert "a title" in lines[0] and max(map(len, lines)) == 50 and not any("\x1b" in line for line in lines)
