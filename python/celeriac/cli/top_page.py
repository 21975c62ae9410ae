"""The live page of `celeriac top`, by rich."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .tables import visible
from .top_text import headline, tables

MOST_ROWS = 30
"""Of each table: a page that is higher than the terminal isn't seen whole."""


def page(found: Mapping[str, Any]) -> Group:
    """One look."""
    parts: list[Any] = [Text(headline(found), style="bold")]
    for heads, rows in tables(found):
        table = Table(expand=True)
        for place, head in enumerate(heads):
            # A long command gives way to numbers, and what it takes from wraps.
            text = place == 0 or head == "takes from"
            table.add_column(
                Text(head),
                justify="left" if text else "right",
                no_wrap=head != "takes from",
                overflow="ellipsis",
                ratio=1 if text else None,
            )
        for row in rows[:MOST_ROWS]:
            table.add_row(*(Text(visible(cell)) for cell in row))
        parts.append(table)
        if len(rows) > MOST_ROWS:
            parts.append(Text(f"and {len(rows) - MOST_ROWS:,} more: --once shows all", style="dim"))
    parts.append(Text("Ctrl-C ends it", style="dim"))
    return Group(*parts)


def show_live(looks: Iterable[Mapping[str, Any]], seconds: float) -> None:
    """Show each look in place of the last, on the terminal's other screen."""
    console = Console()
    waiting = Text(f"looking for {seconds:g} s …")
    with Live(waiting, console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        for found in looks:
            live.update(page(found), refresh=True)
