"""How many SQL queries a context (a request) has made, and how long they took, without DEBUG.

Django calls the wrappers of a connection around each of its queries. Ours is put on every
connection once, and counts into the tally of the context that makes the query; a query that is made
where there is none (a command, a thread of its own) isn't counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

__all__ = ["Queries", "queries", "watch"]


class Queries:
    """A tally."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


#: The tally of the running context.
queries: ContextVar[Queries | None] = ContextVar("celeriac_queries", default=None)


def count(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """A wrapper as :meth:`connection.execute_wrapper` takes it. ``executemany`` is one query."""
    tally = queries.get()
    if tally is None:
        return execute(sql, params, many, context)
    begun = time.perf_counter()
    try:
        return execute(sql, params, many, context)
    finally:
        tally.count += 1
        tally.seconds += time.perf_counter() - begun


def watch() -> None:
    """Count on all connections that this thread has opened already; others follow by themselves."""
    for connection in connections.all(initialized_only=True):
        _count_on(connection)


def _count_on(connection: Any, **kwargs: Any) -> None:
    if count not in connection.execute_wrappers:
        connection.execute_wrappers.append(count)


connection_created.connect(_count_on, dispatch_uid="celeriac.django.queries", weak=False)
