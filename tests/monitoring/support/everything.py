"""A store in which each family of metrics has a series, made by the code that makes it."""

from __future__ import annotations

import re

import celeriac
from celeriac.celery.task_counts import COUNTED, TaskCounts


def fill(store: celeriac.Store) -> None:
    """Use all of it: a cache, a queue, tasks, limits and requests."""
    from celeriac.django import decisions
    from celeriac.django.durations import Durations

    cache = store.cache("c")
    cache.set("product:7", "x")
    cache.get("product:7")
    cache.get("absent")
    store.queue("mail").put_many([b"1", b"2"])
    counts = TaskCounts(store)
    for what in COUNTED:
        counts.count(what, "send", "mail", *(["ValueError"] if what == "failed" else []))
    counts.row("send", "mail").ended(0.25)
    decisions.counter_of(store).labels("guest", "refused").inc()
    durations = Durations()
    durations._family = store.metrics.histogram(
        "celeriac_http_request_duration_seconds", "How long.", ["view", "method", "status"]
    )
    for status in (200, 429, 500):
        durations._child(("home", "GET", status)).observe(0.02)


def exposed(text: str) -> dict[str, set[str]]:
    """Names of samples in an exposition, with their labels."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', rest))
    return found
