"""`celeriac doctor URL`: let a store repair what dead processes left, and say what was found."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import celeriac

from .stats import print_stats
from .tables import print_table


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="run a store's recovery and show what it found",
        description="Runs the store's recovery routine, which any process may at any time, and "
        "shows the processes and the arena. Exit code 1 when a dead process had left something "
        "behind, which has been cleaned up then, or when corrupt data was dropped.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recover, then print what there is and what was found."""
    with celeriac.connect(options.url, create=False, memory=None) as store:
        owners = store.owners()
        repaired = store.recover()
        stats = store.stats()
    print_table(
        ["process", "pid", "slot", "epoch", "state"],
        [
            [
                owner["command"],
                *(str(owner[name]) for name in ("pid", "slot", "epoch")),
                "alive" if owner["alive"] else "dead",
            ]
            for owner in owners
        ],
    )
    print()
    print_stats(stats)
    print()
    findings = find(owners, repaired, stats)
    print("\n".join(findings) if findings else "nothing to repair")
    return 1 if findings else 0


def find(owners: Sequence[Mapping[str, Any]], repaired: int, stats: Mapping[str, Any]) -> list[str]:
    """What an operator should know of; `owners` are those from before the recovery."""
    findings = []
    dead = max(repaired, sum(not owner["alive"] for owner in owners))
    if dead:
        findings.append(f"found {dead} dead: what they held has been given back")
    if stats["corrupt"]:
        findings.append(f"{stats['corrupt']} corrupt parts were found and dropped")
    return findings
