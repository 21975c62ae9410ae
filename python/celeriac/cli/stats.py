"""`celeriac stats URL`: what is in a store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from celeriac.store import Store

from .look import look
from .rates import add_seconds, turns
from .tables import print_table, visible

MIB = 1024 * 1024
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "stats",
        help="show what is in a store",
        description="Shows a store's memory, its owners, its caches, the prefixes of their keys, "
        "its tables and its queues. Changes nothing, and never creates a store.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="again and again, until Ctrl-C; with --json a line for each look",
    )
    add_seconds(parser, 2.0)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the statistics."""
    with look(options.url) as store:
        if options.watch:
            return watch(store, options)
        stats = store.stats()
    if options.json:
        print(json.dumps(stats, indent=2))
    else:
        print_stats(stats)
    return 0


def watch(store: Store, options: argparse.Namespace) -> int:
    """Print the statistics again and again; in a terminal in place of the last ones."""
    try:
        for _ in turns(options.seconds):
            stats = store.stats()
            if options.json:
                print(json.dumps(stats), flush=True)
                continue
            print(CLEAR if sys.stdout.isatty() else "", end="")
            print(time.strftime("%Y-%m-%d %H:%M:%S"))
            print_stats(stats)
            print(flush=True)
    except KeyboardInterrupt:  # how it is ended
        print("\n" if sys.stdout.isatty() else "", end="")
    return 0


def print_stats(stats: Mapping[str, Any]) -> None:
    """Print a table of the plain numbers, and one for each part that is a table itself."""
    parts = {name: part for name, part in stats.items() if isinstance(part, Mapping)}
    plain = [name for name in stats if name not in parts]
    if "prefixes" in parts:
        parts["prefixes"] = {
            f"{visible(cache)} {prefix!r}": row
            for cache, rows in parts["prefixes"].items()
            for prefix, row in rows.items()
        }
    print_table(["", "value"], [[name, show(name, stats[name])] for name in plain])
    for name, part in parts.items():
        print()
        if not part:
            print(f"no {name}")
            continue
        columns = list(next(iter(part.values())))
        rows = [
            [label, *(show(column, row[column]) for column in columns)]
            for label, row in part.items()
        ]
        print_table([name, *columns], rows)


def show(name: str, value: Any) -> str:
    """A value for people: sizes in MiB, counts with separators."""
    if isinstance(value, int) and name.startswith("memory"):
        return f"{value / MIB:,.1f} MiB"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
