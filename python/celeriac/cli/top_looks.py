"""What `celeriac top` finds: what happened in a store between two looks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from celeriac.django.samples import own
from celeriac.errors import StoreNotFound
from celeriac.store import Store

from . import processes
from .queues import row_of
from .rates import per_second, turns

COUNTED = ("hits", "misses", "sets", "deletes", "evictions", "expirations")
OPERATIONS = COUNTED[:4]
"""What somebody called; the other two happen."""


def looks(store: Store, seconds: float) -> Iterator[dict[str, Any]]:
    """What happened since the look before, every so many seconds."""
    before: dict[str, Any] = {}
    for took in turns(seconds):
        now = store.stats()
        if before:
            yield difference(store, before, now, took)
        before = now


def difference(
    store: Store, before: Mapping[str, Any], now: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Two results of `Store.stats` and the seconds between them, in the numbers that are shown."""
    caches = {
        name: _cache(before["caches"].get(name, counts), counts, seconds)
        for name, counts in now["caches"].items()
        if not own(name)
    }
    queues = {
        name: row
        for name, counts in now["queues"].items()
        if (row := row_of(store, name, before["queues"].get(name, counts), seconds))
    }
    return {
        "url": now["url"].partition("?")[0],
        "time": round(time.time(), 3),
        "seconds": round(seconds, 3),
        "memory": {
            "used": now["memory_used"],
            "limit": now["memory_limit"],
            "share": round(now["memory_used"] / now["memory_limit"], 4),
        },
        "total": _total(list(caches.values())),
        "caches": caches,
        "queues": queues,
        "processes": _processes(store, list(queues)),
    }


def _cache(before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> dict[str, Any]:
    hits, misses = (max(now[name] - before[name], 0) for name in ("hits", "misses"))
    rates = {f"{name}_per_second": per_second(before[name], now[name], seconds) for name in COUNTED}
    return {
        "hits": now["hits"],
        "misses": now["misses"],
        "hit_ratio": _ratio(now["hits"], now["misses"]),
        "hit_ratio_now": _ratio(hits, misses),
        "operations_per_second": round(sum(rates[f"{name}_per_second"] for name in OPERATIONS), 1),
        **rates,
        "entries": now["entries"],
        "bytes": now["bytes"],
    }


def _ratio(hits: float, misses: float) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _total(caches: list[dict[str, Any]]) -> dict[str, Any]:
    summed = {
        name: round(sum(cache[name] for cache in caches), 1)
        for name in (
            *("hits", "misses", "operations_per_second"),
            *(f"{name}_per_second" for name in COUNTED),
            *("entries", "bytes"),
        )
    }
    now = _ratio(summed["hits_per_second"], summed["misses_per_second"])
    return {
        "hit_ratio": _ratio(summed["hits"], summed["misses"]),
        "hit_ratio_now": now,
        **summed,
    }


def _processes(store: Store, queues: list[str]) -> list[dict[str, Any]]:
    """Who is attached, the first first; and from which queues it takes messages."""
    takes: dict[int, list[str]] = {}
    reserved: dict[int, int] = {}
    for name in queues:
        try:
            consumers = store.queue(name, create=False).consumers()
        except StoreNotFound:  # gone since
            continue
        for consumer in consumers:
            takes.setdefault(consumer.pid, []).append(name)
            reserved[consumer.pid] = reserved.get(consumer.pid, 0) + consumer.reserved
    return [
        {
            "pid": owner["pid"],
            "command": owner["command"],
            "state": processes.state_of(owner, store.path),
            "seconds": round(max(time.time() - owner["started"], 0), 1),
            "queues": takes.get(owner["pid"], []),
            "reserved": reserved.get(owner["pid"], 0),
        }
        for owner in sorted(store.owners(), key=lambda owner: owner["started"])
    ]
