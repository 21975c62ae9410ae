"""`celeriac locks|limits`: who holds what, who waits for it, and what rate limits take."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from .look import look
from .stats import show
from .tables import print_table

_HEADS = ["lock", "", "pid", "process", "token", "for", "lease"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    _command(
        commands,
        "locks",
        locks,
        "show who holds locks, and who waits",
        "Shows all who hold a lock, a semaphore or a leadership, or wait for one: first come, "
        "first shown. Changes nothing.",
    )
    _command(
        commands,
        "limits",
        limits,
        "show what limits are in use",
        "Shows how many keys of rate limits are in use, what memory they take, and each "
        "concurrency limit that somebody is in. Changes nothing.",
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    short: str,
    text: str,
) -> None:
    parser = commands.add_parser(name, help=short, description=text)
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def locks(options: argparse.Namespace) -> int:
    """Print who holds, and behind them who waits."""
    with look(options.url) as store:
        found = store.locks()
    found.sort(key=lambda one: (one.kind, one.name, not one.holds, one.token, -one.age))
    if options.json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    elif not found:
        print("no locks")
    else:
        rows = [
            [
                f"{one.kind} {one.name}",
                "holds" if one.holds else "waits",
                str(one.pid),
                one.command,
                str(one.token) if one.holds else "",
                _seconds(one.age),
                "" if one.ttl is None else _seconds(one.ttl),
            ]
            for one in found
        ]
        print_table(_HEADS, rows)
    return 0


def limits(options: argparse.Namespace) -> int:
    """Print what rate limits take, and who is in concurrency limits."""
    with look(options.url) as store:
        stats = store.stats()
    plain = {name: stats[name] for name in ("limits_keys", "limits_memory")}
    if options.json:
        print(json.dumps({**plain, "concurrency": stats["concurrency"]}, indent=2))
        return 0
    print_table(
        ["rate limits", "value"],
        [["keys in use", show("", stats["limits_keys"])], ["memory", _mib(stats["limits_memory"])]],
    )
    print()
    if not stats["concurrency"]:
        print("no concurrency limit is in use")
        return 0
    rows = [
        [name, show("", one["in_use"]), show("", one["limit"])]
        for name, one in sorted(stats["concurrency"].items())
    ]
    print_table(["concurrency", "in use", "limit"], rows)
    return 0


def _mib(size: int) -> str:
    return show("memory", size)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"
