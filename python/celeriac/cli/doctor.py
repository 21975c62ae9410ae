"""`celeriac doctor URL`: let a store repair what dead processes left, and say what was found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac import _core
from celeriac.errors import LockTimeout

from . import processes
from .look import look
from .stats import print_stats
from .tables import print_table, visible


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="run a store's recovery and show what it found",
        description="Runs the store's recovery routine, which any process may at any time, and "
        "shows the processes and the arena. Exit code 1 when a dead process had left something "
        "behind, which has been cleaned up then, when corrupt data was dropped or a journal is "
        "damaged, when a process is stopped, or when more processes are attached than the kernel "
        "lets wait for deaths.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Recover, then print what there is and what was found."""
    with look(options.url) as store:
        owners = store.owners()
        for owner in owners:
            owner["state"] = processes.state_of(owner, store.path)
        repaired, stats, halted = 0, None, ""
        try:
            repaired = store.recover()
            stats = store.stats()
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
    journal = damages_of(store.path) if store.url.startswith("file://") else []
    findings = find(owners, repaired, stats or {"corrupt": 0}, processes.most_watches())
    findings += journal + ([halted] if halted else [])
    print("\n".join(findings) if findings else "nothing to repair")
    return 1 if findings else 0


def damages_of(path: str) -> list[str]:
    """What is wrong with the journal of a store, if it has one."""
    found = _core.verify_journal(os.fsencode(path))
    if not found["damaged"]:
        return []
    return ["the journal is damaged: celeriac verify says where", *found["damages"]]


def find(
    owners: Sequence[Mapping[str, Any]],
    repaired: int,
    stats: Mapping[str, Any],
    most_watches: int | None = None,
) -> list[str]:
    """What an operator should know of; `owners` are those from before the recovery."""
    findings = []
    dead = max(repaired, sum(owner["state"] == "dead" for owner in owners))
    if dead:
        found = "1 dead process: what it" if dead == 1 else f"{dead} dead processes: what they"
        findings.append(f"found {found} held has been given back")
    findings += [
        f"process {owner['pid']} ({visible(owner['command'])}) is stopped: what it holds stays "
        f"held, and others may wait for it; kill -CONT {owner['pid']} lets it go on"
        for owner in owners
        if owner["state"] == "stopped"
    ]
    if stats["corrupt"]:
        found = "part was" if stats["corrupt"] == 1 else "parts were"
        findings.append(f"{stats['corrupt']} corrupt {found} found and dropped")
    if stats.get("journal_failed"):
        findings.append(
            "the journal stopped, since its disk failed: look after that, then start any process "
            "of the store again"
        )
    living = sum(owner["state"] != "dead" for owner in owners)
    if most_watches is not None and living > most_watches:
        findings.append(
            f"{living} processes are attached, and fs.inotify.max_user_instances={most_watches} "
            "bounds those of a user that wait without polling; raise it: "
            "sysctl fs.inotify.max_user_instances=1024"
        )
    return findings
