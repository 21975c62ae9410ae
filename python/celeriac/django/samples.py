"""What the page's small curves are drawn from: counts as they were, a minute or two back.

Whoever looks at the page takes a sample, a second after the last one at the earliest, and leaves it
in the store, so that any process can go on with what another has seen. Nobody looks: nothing is
counted. Two who take one in the same moment may lose one of the two, which shows as a longer step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from celeriac.store import Store

__all__ = ["KEPT", "Sample", "own", "rates", "sample_of", "take"]

_TABLE, _ENTRY = "celeriac.samples", "latest"
KEPT, EVERY, OLDEST = 60, 1.0, 300.0
"""How many; seconds between two of them; seconds after which one counts no more."""
MOST_QUEUES = 100
"""Those that have rates of their own."""


class Sample(NamedTuple):
    """Counts since the store was made, at a moment of the host's monotonic clock."""

    at: float
    hits: int
    misses: int
    evictions: int
    memory: int
    ready: int
    put: int
    done: int
    queues: dict[str, tuple[int, int]]
    """Messages put and done, by queue."""


def own(cache: str) -> bool:
    """Whether a cache of that name is the library's, and none of the project's."""
    return cache.startswith("celeriac.") and cache != "celeriac.django.others"


def sample_of(stats: dict[str, Any]) -> Sample:
    """What `store.stats()` has just said, but for the library's own caches."""
    caches = [counts for name, counts in stats["caches"].items() if not own(name)]
    queues = stats["queues"]
    return Sample(
        at=time.monotonic(),
        hits=sum(counts["hits"] for counts in caches),
        misses=sum(counts["misses"] for counts in caches),
        evictions=sum(counts["evictions"] for counts in caches),
        memory=stats["memory_used"],
        ready=sum(counts["ready"] for counts in queues.values()),
        put=sum(sum(counts.values()) for counts in queues.values()),
        done=sum(counts["done"] for counts in queues.values()),
        queues={
            name: (sum(queues[name].values()), queues[name]["done"])
            for name in list(queues)[:MOST_QUEUES]
        },
    )


def take(store: Store, stats: dict[str, Any]) -> list[Sample]:
    """The samples up to now, the last of which is of `stats`, what `store.stats()` has just said.

    Raises:
        CeleriacError: the store is full, or away.
    """
    latest = sample_of(stats)
    now = latest.at
    table = store.table(_TABLE)
    kept = [
        sample
        for fields in table.get(_ENTRY) or ()
        if len(fields) == len(Sample._fields)  # or of another version
        and now - OLDEST < (sample := Sample._make(fields)).at <= now
    ]
    if not kept or now - kept[-1].at >= EVERY:
        kept = [*kept[-KEPT + 1 :], latest]
        table.set(_ENTRY, [tuple(sample) for sample in kept], ttl=None)
        return kept
    return [*kept[:-1], latest] if len(kept) > 1 else kept


def rates(samples: Sequence[Sample], of: str) -> list[float]:
    """How much a count rose a second, from each sample to the next; never below zero, since a
    cache that was destroyed takes its counts along."""
    values = [(sample.at, getattr(sample, of)) for sample in samples]
    return [
        max(new - old, 0) / max(later - earlier, 1e-3)
        for (earlier, old), (later, new) in itertools.pairwise(values)
    ]
