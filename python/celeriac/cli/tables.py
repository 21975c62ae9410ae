"""Printing tables: by rich where it is installed and stdout is a terminal, else as plain text."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout; the first column is the label, the others are aligned right."""
    rows = [list(map(visible, row)) for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        _print_rich(heads, rows)
    else:
        print(plain_table(heads, rows))


def visible(text: str) -> str:
    """The text with what is no letter, sign or space escaped: it may be anybody's, and no name
    shall break a line or steer a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as lines of text."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        label, *values = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([label, *values]).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(heads), rule, *map(line, rows)])


def _print_rich(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for place, head in enumerate(heads):
        shown.add_column(Text(head), justify="right" if place else "left", no_wrap=bool(place))
    for row in rows:
        shown.add_row(*map(Text, row))
    Console().print(shown)
