"""What the page `admin/cache/stats` shows of a store, gathered and put into words.

`live()` is what changes while one looks, and is asked for every two seconds; it reads counters and
no keys. `tables()` is the rest, for which the keys of each cache are walked through, up to
`MOST_WALKED` of them; of a larger cache only what the store counts by itself is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celeriac.django import limited, shown, slow_requests
from celeriac.django.samples import KEPT, MOST_QUEUES, Sample, own, rates, take
from celeriac.django.sparklines import points
from celeriac.errors import StoreNotFound
from celeriac.prefix_stats import OTHER
from celeriac.store import Store

__all__ = ["live", "tables"]

MOST_WALKED = 200_000
MOST_ROWS = 50
"""Of prefixes of one cache, locks, limited keys, slow requests."""

TITLES = {
    "ratio": "Hit ratio",
    "hits": "Hits",
    "misses": "Misses",
    "evictions": "Evictions",
    "memory": "Memory used",
    "ready": "Messages ready",
    "put": "Messages put",
    "done": "Messages done",
}


def live(store: Store) -> dict[str, Any]:
    """Texts by the name of their place, and curves by that of theirs.

    Raises:
        CeleriacError: the store can't be used.
    """
    stats = store.stats()
    samples = take(store, stats)
    texts, lines = {}, {}
    for name in TITLES:
        texts[name], texts[f"{name}-more"], lines[name] = _tile(name, samples, stats)
    for place, name in enumerate(stats["queues"]):
        texts.update(_queue(store, name, place, stats["queues"][name], samples))
    return {"texts": texts, "lines": lines, "queues": list(stats["queues"])}


def _tile(name: str, samples: list[Sample], stats: dict[str, Any]) -> tuple[str, str, str]:
    """The number, what stands below it, and the points of the curve."""
    latest = samples[-1]
    if name == "memory":
        limit = stats["memory_limit"]
        used = [sample.memory for sample in samples]
        more = f"{100 * latest.memory / limit:.0f} % of {shown.size(limit)}"
        return shown.size(latest.memory), more, points(used, KEPT, limit)
    if name == "ready":
        delayed = sum(counts["delayed"] for counts in stats["queues"].values())
        ready = [sample.ready for sample in samples]
        return shown.count(latest.ready), f"and {delayed:,} delayed", points(ready, KEPT)
    if name == "ratio":
        hits, misses = rates(samples, "hits"), rates(samples, "misses")
        by_step = [h / (h + m) if h + m else 0.0 for h, m in zip(hits, misses, strict=True)]
        now = shown.ratio(hits[-1], misses[-1]) if hits else shown.NONE
        more = f"now {now}"
        return shown.ratio(latest.hits, latest.misses), more, points(by_step, KEPT - 1, 1.0)
    steps = rates(samples, name)
    more = f"{getattr(latest, name):,} in all"
    return shown.per_second(steps[-1] if steps else None), more, points(steps, KEPT - 1)


def _queue(
    store: Store, name: str, place: int, counts: Mapping[str, int], samples: list[Sample]
) -> dict[str, str]:
    """The texts of a queue's row; its name may be anything, so its place names them."""
    age, state, consumers = None, "open", 0
    with suppress(StoreNotFound):  # gone since
        queue = store.queue(name, create=False)
        age, consumers = queue.oldest_age(), len(queue.consumers())
        state = "paused" if queue.paused else "open"
    found = {state: shown.count(number) for state, number in counts.items()}
    put, done = _rates_of(name, samples)
    found |= {"oldest": shown.seconds(age), "put": put, "done-rate": done}
    found |= {"consumers": shown.count(consumers), "state": state}
    return {f"queue-{place}-{column}": text for column, text in found.items()}


def _rates_of(name: str, samples: list[Sample]) -> tuple[str, str]:
    """Messages put and done a second, over up to ten samples."""
    seen = [sample for sample in samples[-10:] if name in sample.queues]
    if len(seen) < 2:
        return shown.NONE, shown.NONE
    first, last = seen[0], seen[-1]
    took = max(last.at - first.at, 1e-3)
    put, done = (
        max(new - old, 0) / took
        for old, new in zip(first.queues[name], last.queues[name], strict=True)
    )
    return shown.per_second(put), shown.per_second(done)


def tables(store: Store) -> dict[str, Any]:
    """What the page shows below its live part.

    Raises:
        CeleriacError: the store can't be used.
    """
    stats = store.stats()
    caches = {name: counts for name, counts in stats["caches"].items() if not own(name)}
    return {
        "caches": [_cache(name, counts) for name, counts in caches.items()],
        "prefixes": [row for name in caches for row in _prefixes(store, name)],
        "queues": [
            {"name": name, "place": place, "dead": counts["dead"]}
            for place, (name, counts) in enumerate(stats["queues"].items())
        ][:MOST_QUEUES],
        "processes": _processes(store, list(stats["queues"])),
        "locks": _locks(store),
        "limited": [
            {"about": each, "count": shown.count(each.times), "since": shown.ago(each.since)}
            for each in limited.most(store, MOST_ROWS)
        ],
        "slow": [
            {
                "about": each,
                "ago": shown.ago(each.at),
                "seconds": shown.seconds(each.seconds),
                "sql": shown.seconds(each.query_seconds),
            }
            for each in slow_requests.latest(store)[:MOST_ROWS]
        ],
    }


def _cache(name: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": name,
        "ratio": shown.ratio(counts["hits"], counts["misses"]),
        "bytes": shown.size(counts["bytes"]),
        **{
            column: shown.count(counts[column])
            for column in ("hits", "misses", "sets", "entries", "evictions", "expirations")
        },
    }


def _prefixes(store: Store, name: str) -> list[dict[str, Any]]:
    """Rows of a cache's prefixes, the largest first."""
    cache = store.cache(name)
    rows: dict[str, Any]
    if len(cache) <= MOST_WALKED:
        rows = {
            prefix: found._asdict()
            for prefix, found in cache.stats_by_prefix(most=MOST_ROWS).items()
        }
    else:
        rows = dict(list(store._counted(name).items())[:MOST_ROWS])
    return [
        {
            "cache": name,
            "prefix": prefix,
            "clearable": prefix != OTHER,
            "entries": shown.count(row.get("entries")),
            "bytes": shown.size(row["bytes"]) if "bytes" in row else shown.NONE,
            "hits": shown.count(row["hits"]),
            "misses": shown.count(row["misses"]),
            "evictions": shown.count(row["evictions"]),
            "ratio": shown.ratio(row["hits"] or 0, row["misses"] or 0),
        }
        for prefix, row in rows.items()
    ]


def _processes(store: Store, queues: list[str]) -> list[dict[str, Any]]:
    """Who is attached, and from which queues it consumes."""
    consumes: dict[int, list[str]] = {}
    for name in queues:
        with suppress(StoreNotFound):  # gone since
            for consumer in store.queue(name, create=False).consumers():
                has = f"{consumer.reserved:,} reserved" if consumer.reserved else "waiting"
                consumes.setdefault(consumer.pid, []).append(f"{name} ({has})")
    return [
        {
            "pid": owner["pid"],
            "command": owner["command"],
            "since": shown.ago(owner["started"]),
            "alive": owner["alive"],
            "queues": ", ".join(consumes.get(owner["pid"], ())) or shown.NONE,
        }
        for owner in sorted(store.owners(), key=lambda owner: owner["started"])
    ]


def _locks(store: Store) -> list[dict[str, Any]]:
    """Locks by kind and name, those who hold one before those who wait for it."""
    found = sorted(store.locks(), key=lambda lock: (lock.kind, lock.name, not lock.holds))
    return [
        {
            "about": lock,
            "age": shown.seconds(lock.age),
            "lease": shown.seconds(lock.ttl) if lock.ttl is not None else "until released",
        }
        for lock in found[:MOST_ROWS]
    ]
