"""The latest slow requests, kept in the store for whoever looks: a ring.

Entry ``next`` of the table ``celeriac.requests`` counts the requests that were ever noted; the n-th
of them lies in entry ``n modulo kept``. Two steps, and a kill between them leaves a number without
a request: an older one stays in its place, and :func:`latest` goes by the number that lies in each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from celeriac.store import Store

__all__ = ["SlowRequest", "forget", "latest", "note"]

_TABLE = "celeriac.requests"
_NEXT = b"next"


class SlowRequest(NamedTuple):
    """One of them."""

    at: float  # when it began, in seconds since 1970
    seconds: float
    method: str
    path: str
    view: str
    status: int
    queries: int
    query_seconds: float
    hits: int
    misses: int
    request_id: str


def note(store: Store, request: SlowRequest, kept: int) -> None:
    """Keep it, in place of the oldest.

    Raises:
        CeleriacError: the store is full, or away.
    """
    if kept <= 0:
        return
    table = store.table(_TABLE)
    table.add(_NEXT, 0, ttl=None)
    number = table.incr(_NEXT) - 1
    table.set(f"{number % kept}", (number, tuple(request)), ttl=None)


def latest(store: Store) -> list[SlowRequest]:
    """Those that are kept, the latest first."""
    found: list[tuple[int, Any]] = [
        value for key, value in store.table(_TABLE).items() if key not in ("next", _NEXT)
    ]
    return [SlowRequest(*fields) for _, fields in sorted(found, reverse=True)]


def forget(store: Store) -> None:
    """Empty the ring."""
    table = store.table(_TABLE)
    for key, _ in list(table.items()):
        table.delete(key)
