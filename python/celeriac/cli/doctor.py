"""`celeriac doctor URL`: let a store repair what dead processes left, and say what was found."""

from __future__ import annotations

import argparse
import os

from celeriac import _core
from celeriac.errors import LockTimeout

from . import findings, processes
from .look import look
from .stats import print_stats
from .tables import print_table


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="run a store's recovery and show what it found",
        description="Runs the store's recovery routine, which any process may at any time, and "
        "shows the processes and the arena. Then it says what is wrong, each with a code and what "
        "to do: dead and stopped processes, damage, memory that is short, dead messages, messages "
        "that nobody takes, another user's store of the same name. Exit code 1 when there is "
        "anything.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recover, then print what there is and what was found."""
    with look(options.url) as store:
        owners = store.owners()
        for owner in owners:
            owner["state"] = processes.state_of(owner, store.path)
        path, is_file = store.path, store.url.startswith("file://")
        repaired, stats, store_findings, halted = 0, None, None, ""
        try:
            repaired = store.recover()
            stats = store.stats()
            store_findings = [
                *findings.of_memory(store, stats),
                *findings.of_queues(store, stats),
                *findings.of_others(store),
            ]
        except LockTimeout as error:  # somebody is stopped, and holds what it was about to release
            halted = str(error)
    print_table(
        ["process", "pid", "slot", "epoch", "state"],
        [
            [owner["command"], *(str(owner[name]) for name in ("pid", "slot", "epoch", "state"))]
            for owner in owners
        ],
    )
    print()
    if stats is not None:
        print_stats(stats)
        print()
    if store_findings is None:
        store_findings = [findings.Finding("D14", halted)]
    found = findings.after_recovery(
        owners, repaired, stats or {"corrupt": 0}, processes.most_watches()
    )
    found += damages_of(path) if is_file else []
    found += store_findings
    print("\n".join(map(str, found)) if found else "nothing to repair")
    return 1 if found else 0


def damages_of(path: str) -> list[findings.Finding]:
    """What is wrong with the journal of a store, if it has one."""
    found = _core.verify_journal(os.fsencode(path))
    if not found["damaged"]:
        return []
    return [findings.Finding("D05", "; ".join(["the journal is damaged", *found["damages"]]))]
