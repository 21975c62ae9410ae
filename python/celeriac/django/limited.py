"""Whom Django's limits have refused, and how often: for the admin page.

The store keeps no keys of limits, only a hash of each (`src/store/limits.hpp`), so a list of the
most limited ones has to be written down while they are refused, and is: by `RateLimitMiddleware`,
`@ratelimit` and the throttles of Django REST framework. What is allowed costs nothing.

A key is counted for an hour from its first refusal, then anew. It is a cache's, of 2,000 entries at
most, so that an attack from many addresses takes no memory.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import Any, NamedTuple

from celeriac.cache import Cache
from celeriac.errors import CeleriacError
from celeriac.limits import Decision, Limiter
from celeriac.store import Store

__all__ = ["Limited", "book_of", "find", "forget", "most", "note", "reset"]

_CACHE, _SECONDS, _MOST, _LONGEST = "celeriac.limited", 3600.0, 2000, 500


class Limited(NamedTuple):
    """A key that was refused."""

    id: str
    limiter: str
    key: str
    rates: list[str]
    bursts: list[int]
    algorithm: str
    shadow: bool
    """It was allowed all the same."""
    since: float
    """The first refusal, in seconds since 1970."""
    times: int


def book_of(store: Store) -> Cache:
    """Where it is written down."""
    return store.cache(_CACHE, ttl=_SECONDS, max_entries=_MOST)


def note(book: Cache, limiter: Limiter, algorithm: str, key: str, decision: Decision) -> None:
    """Count a refusal, in shadow mode too; nothing where it was none. Never raises for the store:
    the answer goes out whether it is counted or not.

    :param book: of the limiter's store, see `book_of`.
    """
    if decision.retry_after <= 0 or len(key) > _LONGEST:
        return
    with suppress(CeleriacError):
        text = f"{limiter.name}\0{key}".encode("utf-8", "surrogatepass")
        id = hashlib.blake2b(text, digest_size=8).hexdigest()
        if book.add(f"count:{id}", 1):
            bursts = [rate.burst for rate in limiter.rates]
            about = (limiter.name, key, [*map(str, limiter.rates)], bursts, algorithm)
            book.set(f"about:{id}", (*about, decision.allowed, time.time()))
            return
        with suppress(ValueError):  # evicted since
            book.incr(f"count:{id}")


def find(store: Store, id: str) -> Limited | None:
    """The one of that id."""
    cache = book_of(store)
    about, count = cache.get(f"about:{id}"), cache.get(f"count:{id}")
    if about is None or count is None or len(about) != len(Limited._fields) - 2:
        return None  # not there, or of another version
    return Limited._make((id, *about, count))


def most(store: Store, number: int) -> list[Limited]:
    """Those that were refused most, the first ahead."""
    counts: dict[str, int] = {}
    for keys in book_of(store).iter_steps("count:*"):
        found: dict[Any, Any] = book_of(store).get_many(keys)
        counts.update({key.partition(":")[2]: count for key, count in found.items()})
    largest = sorted(counts, key=lambda id: -counts[id])[:number]
    return [each for id in largest if (each := find(store, id)) is not None]


def reset(store: Store, limited: Limited) -> None:
    """Let the key begin anew, as if it had never been seen.

    Raises:
        CeleriacError: the store is away.
    """
    windows = limited.algorithm.endswith("window")
    limiter = store.limiter(
        limited.rates,
        burst=None if windows else limited.bursts,
        algorithm=limited.algorithm,
        name=limited.limiter,
    )
    limiter.reset(limited.key)
    forget(store, limited.id)


def forget(store: Store, id: str) -> None:
    """Take it off the list."""
    book_of(store).delete_many([f"count:{id}", f"about:{id}"])
