"""A store's own statistics as metrics: memory, caches, queues, limits, locks.

Read when somebody asks; nothing is counted for it. Also under the names that Celery's dashboards
know: ``celery_queue_length{queue_name}`` and ``celery_active_consumer_count{queue_name}``.
Durations of requests and the counts of tasks are metrics like any other, and not among these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from celeriac.errors import CeleriacError

__all__ = ["FAMILIES", "Family", "families", "text"]

Store: TypeAlias = Any  # celeriac.Store, which has these metrics
GAUGE, COUNTER = "gauge", "counter"
FAMILIES = {
    "celeriac_up": (GAUGE, "Whether the store can be used.", ()),
    "celeriac_memory_limit_bytes": (GAUGE, "The ceiling of the store's memory.", ()),
    "celeriac_memory_allocated_bytes": (GAUGE, "What the store takes of it.", ()),
    "celeriac_memory_used_bytes": (GAUGE, "What of that is in use.", ()),
    "celeriac_processes": (GAUGE, "Living processes that use the store.", ()),
    "celeriac_recovered_processes": (
        COUNTER,
        "Processes that died, and were cleaned up after.",
        (),
    ),
    "celeriac_damaged": (COUNTER, "Places that were found damaged.", ()),
    "celeriac_cache_hits": (COUNTER, "Reads of an entry that was there.", ("cache",)),
    "celeriac_cache_misses": (COUNTER, "Reads of an entry that wasn't.", ("cache",)),
    "celeriac_cache_sets": (COUNTER, "Entries that were stored.", ("cache",)),
    "celeriac_cache_deletes": (COUNTER, "Entries that were removed by name.", ("cache",)),
    "celeriac_cache_evictions": (COUNTER, "Entries that others took the room of.", ("cache",)),
    "celeriac_cache_expirations": (COUNTER, "Entries whose time was over.", ("cache",)),
    "celeriac_cache_entries": (GAUGE, "Entries.", ("cache",)),
    "celeriac_cache_bytes": (GAUGE, "What they take.", ("cache",)),
    "celeriac_queue_messages": (GAUGE, "Messages by state.", ("queue", "state")),
    "celeriac_queue_oldest_seconds": (GAUGE, "Age of the oldest ready message.", ("queue",)),
    "celeriac_queue_paused": (GAUGE, "Whether nothing is handed out.", ("queue",)),
    "celeriac_limit_keys": (GAUGE, "Keys of rate limits that have used something up.", ()),
    "celeriac_limit_memory_bytes": (GAUGE, "What rate limits take.", ()),
    "celeriac_locks": (GAUGE, "Who holds a lock, and who waits.", ("kind", "state")),
    "celeriac_lock_oldest_seconds": (GAUGE, "For how long one has been held.", ("kind",)),
    "celery_queue_length": (GAUGE, "The number of messages in broker queue.", ("queue_name",)),
    "celery_active_consumer_count": (
        GAUGE,
        "The number of active consumers in broker queue.",
        ("queue_name",),
    ),
}
_STATES = ("ready", "delayed", "reserved", "dead", "done")
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Family(NamedTuple):
    """A metric, with the values of its series by their label values."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]
    samples: dict[tuple[str, ...], float]


def families(store: Store) -> list[Family]:
    """All of them; of a store that can't be used, that it can't."""
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in FAMILIES}
    try:
        for name, labels, value in _read(store):
            found[name][labels] = value
        found["celeriac_up"][()] = 1.0
    except CeleriacError:
        found = {"celeriac_up": {(): 0.0}}
    return [Family(name, *FAMILIES[name], samples) for name, samples in found.items() if samples]


def _read(store: Store) -> Iterator[tuple[str, tuple[str, ...], float]]:
    core = store._core.stats()
    for what in ("limit", "allocated", "used"):
        yield f"celeriac_memory_{what}_bytes", (), core[f"memory_{what}"]
    yield "celeriac_processes", (), core["owners"]
    yield "celeriac_recovered_processes", (), core["reaped"]
    yield "celeriac_damaged", (), core["corrupt"]
    yield "celeriac_limit_keys", (), core["limits_keys"]
    yield "celeriac_limit_memory_bytes", (), core["limits_memory"]
    for name in store.caches():
        stats = store.cache(name).stats()
        for field in ("hits", "misses", "sets", "deletes", "evictions", "expirations"):
            yield f"celeriac_cache_{field}", (name,), getattr(stats, field)
        yield "celeriac_cache_entries", (name,), stats.entries
        yield "celeriac_cache_bytes", (name,), stats.bytes
    for name in store.queues():
        yield from _read_queue(store, name)
    yield from _read_locks(store)


def _read_queue(store: Store, name: str) -> Iterator[tuple[str, tuple[str, ...], float]]:
    # Queues for replies, events and commands come and go with each process.
    if "pidbox" in name or ".reply." in name or name.startswith("celeryev"):
        return
    try:
        queue = store.queue(name, create=False)
        counts, age, consumers = queue.counts(), queue.oldest_age(), len(queue.consumers())
        paused = queue.paused
    except CeleriacError:  # deleted meanwhile
        return
    for state in _STATES:
        yield "celeriac_queue_messages", (name, state), getattr(counts, state)
    yield "celeriac_queue_oldest_seconds", (name,), age or 0.0
    yield "celeriac_queue_paused", (name,), float(paused)
    yield "celery_queue_length", (name,), counts.ready
    yield "celery_active_consumer_count", (name,), consumers


def _read_locks(store: Store) -> Iterator[tuple[str, tuple[str, ...], float]]:
    states: Counter[tuple[str, ...]] = Counter()
    oldest: dict[str, float] = {}
    for lock in store.locks():
        states[lock.kind, "held" if lock.holds else "waiting"] += 1
        if lock.holds:
            oldest[lock.kind] = max(oldest.get(lock.kind, 0.0), lock.age)
    for kind in ("lock", "semaphore", "leader"):
        for state in ("held", "waiting"):
            yield "celeriac_locks", (kind, state), states[kind, state]
        yield "celeriac_lock_oldest_seconds", (kind,), oldest.get(kind, 0.0)


def text(store: Store, openmetrics: bool) -> str:
    """As Prometheus reads it."""
    lines: list[str] = []
    for family in families(store):
        total = "_total" if family.type == COUNTER else ""
        head = family.name if openmetrics else family.name + total
        lines += [f"# HELP {head} {family.help}", f"# TYPE {head} {family.type}"]
        for values, value in family.samples.items():
            pairs = zip(family.labels, values, strict=True)
            said = ",".join(f'{label}="{v.translate(_ESCAPED)}"' for label, v in pairs)
            name = family.name + total
            lines.append(f"{name}{{{said}}} {float(value)}" if said else f"{name} {float(value)}")
    return "".join(line + "\n" for line in lines)
