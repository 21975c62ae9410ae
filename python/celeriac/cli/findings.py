"""What `celeriac doctor` may find wrong with a store: a code, what was seen, and what to do."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from celeriac.errors import StoreNotFound
from celeriac.store import Store
from celeriac.url import parse_url

from .stats import show
from .tables import visible

RESULTS = "celeriac.celery.results"
FULL = 0.9
WAITING = 60.0  # seconds

CURES = {
    "D01": "nothing: it is clean now; find out why processes die (dmesg tells of the OOM killer)",
    "D02": "kill -CONT PID lets it go on, kill -KILL PID gives back what it holds",
    "D03": "nothing, if a process or the host crashed; else have the memory tested",
    "D04": "look after the disk, then start any process of the store again",
    "D05": "celeriac verify says where; celeriac restore makes a new store of a backup",
    "D06": "sysctl fs.inotify.max_user_instances=1024",
    "D07": "celeriac resize URL MEMORY, and the same memory= in the URL; or shorter ttls, and a "
    "shorter result_expires: caches give way, messages and results don't",
    "D08": "mount more there (docker run --shm-size=1g), or a smaller memory= in the URL",
    "D09": "celeriac dead URL QUEUE says why; celeriac retry puts them back, celeriac purge --dead "
    "removes them",
    "D10": "start a worker for this queue (celery worker -Q QUEUE), as the same user",
    "D11": "celeriac resume URL QUEUE",
    "D12": "run web server, workers and commands as one user; remove the other store if unused",
    "D13": "a shorter result_expires, and ignore_result=True where nobody asks for a result",
    "D14": "D02, or the processes above, say who is stopped; end it",
}
"""By code. Codes stay: documents and scripts name them."""


class Finding(NamedTuple):
    """One problem."""

    code: str
    said: str

    def __str__(self) -> str:
        return f"{self.code}: {self.said}\n     {CURES[self.code]}"


def after_recovery(
    owners: Sequence[Mapping[str, Any]],
    repaired: int,
    stats: Mapping[str, Any],
    most_watches: int | None = None,
) -> list[Finding]:
    """Of processes and damage; `owners` are those from before the recovery."""
    findings = []
    dead = max(repaired, sum(owner["state"] == "dead" for owner in owners))
    if dead:
        found = "1 dead process: what it" if dead == 1 else f"{dead} dead processes: what they"
        findings.append(Finding("D01", f"found {found} held has been given back"))
    findings += [
        Finding(
            "D02",
            f"process {owner['pid']} ({visible(owner['command'])}) is stopped: what it holds stays "
            "held, and others may wait for it",
        )
        for owner in owners
        if owner["state"] == "stopped"
    ]
    if stats["corrupt"]:
        found = "part was" if stats["corrupt"] == 1 else "parts were"
        findings.append(Finding("D03", f"{stats['corrupt']} corrupt {found} found and dropped"))
    if stats.get("journal_failed"):
        findings.append(Finding("D04", "the journal stopped, since its disk failed"))
    living = sum(owner["state"] != "dead" for owner in owners)
    if most_watches is not None and living > most_watches:
        findings.append(
            Finding(
                "D06",
                f"{living} processes are attached, and fs.inotify.max_user_instances={most_watches}"
                " bounds those of a user that wait without polling",
            )
        )
    return findings


def of_memory(store: Store, stats: Mapping[str, Any]) -> list[Finding]:
    """Of the store's ceiling, of the file system below it, and of results of tasks."""
    findings = []
    limit, used = stats["memory_limit"], stats["memory_used"]
    # A full cache is no problem: it makes room. What stays is.
    results = stats["tables"].get(RESULTS, {"bytes": 0})["bytes"]
    if used - sum(cache["bytes"] for cache in stats["caches"].values()) > FULL * limit:
        findings.append(
            Finding(
                "D07",
                f"{show('memory', used)} of {show('memory', limit)} are taken, mostly by what is "
                "never evicted",
            )
        )
    if results > limit / 2:
        findings.append(
            Finding("D13", f"results of tasks take {show('memory', results)} of the store")
        )
    system = os.statvfs(store.path)
    free, wanted = system.f_bavail * system.f_frsize, limit - stats["memory_allocated"]
    if system.f_blocks and free < wanted:
        findings.append(
            Finding(
                "D08",
                f"the store may grow by {show('memory', wanted)}, and its file system has "
                f"{show('memory', free)} free",
            )
        )
    return findings


def of_queues(store: Store, stats: Mapping[str, Any]) -> list[Finding]:
    """Of messages that died, and of those that nobody takes."""
    findings = []
    for name, counts in stats["queues"].items():
        shown = repr(visible(name))
        if counts["dead"]:
            findings.append(Finding("D09", f"the queue {shown} has {counts['dead']:,} dead"))
        if not counts["ready"]:
            continue
        try:
            queue = store.queue(name, create=False)
            age, paused, consumers = queue.oldest_age(), queue.paused, queue.consumers()
        except StoreNotFound:  # gone since
            continue
        if paused:
            findings.append(Finding("D11", f"the queue {shown} is paused"))
        elif age is not None and age > WAITING and not consumers:
            findings.append(
                Finding(
                    "D10",
                    f"{counts['ready']:,} messages of the queue {shown} wait, the oldest for "
                    f"{age:,.0f} s, and nobody takes them",
                )
            )
    return findings


def of_others(store: Store) -> list[Finding]:
    """Of other users' stores of the same name: a worker under another user has that one."""
    url = parse_url(store.url)
    if url.is_file:
        return []
    mine = os.path.dirname(store.path)
    root = glob.escape(os.path.dirname(mine))
    others = sorted(
        path
        for path in glob.glob(f"{root}/celeriac-*/{glob.escape(url.name)}")
        if os.path.dirname(path) != mine
    )
    return [
        Finding("D12", f"{visible(path)} is another user's store of this name") for path in others
    ]
