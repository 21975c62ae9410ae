"""What the page gathers: large caches, paused queues, other processes, what is gone meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac.django import actions, overview

OTHER = """
import sys, celeriac
store = celeriac.connect(sys.argv[1], create=False)
message = store.queue("mail").get(timeout=0)
lock = store.lock("nightly", ttl=3600)
lock.acquire()
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(location: str) -> celeriac.Store:
    return celeriac.connect(location)


def test_a_large_cache_is_not_walked_through(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = store.cache("large")
    for number in range(5):
        cache.set(f"a:{number}", 1)
        cache.get(f"a:{number}")
    (walked,) = overview.tables(store)["prefixes"]
    assert (walked["entries"], walked["hits"], walked["ratio"]) == ("5", "5", "100.0 %")
    monkeypatch.setattr(overview, "MOST_WALKED", 4)
    (counted,) = overview.tables(store)["prefixes"]
    assert counted == {**walked, "entries": "–", "bytes": "–"}


def test_rows_are_bounded(store: celeriac.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST_ROWS", 3)
    cache = store.cache("c")
    for number in range(10):
        cache.set(f"p{number}:k", "x" * (10 - number))
    rows = overview.tables(store)["prefixes"]
    assert [row["prefix"] for row in rows] == ["p0", "p1", "p2", "(other)"]
    assert [row["clearable"] for row in rows] == [True, True, True, False]
    assert rows[3]["entries"] == "7"


def test_other_processes(
    store: celeriac.Store, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    queue = store.queue("mail")
    queue.put_many(["a", "b"])
    other = start_python(OTHER, store.url)
    assert other.stdout is not None
    assert other.stdout.readline() == "holds\n"
    found = overview.tables(store)
    consumes = {row["pid"]: row["queues"] for row in found["processes"]}
    assert consumes[other.pid] == "mail (1 reserved)"
    assert set(consumes.values()) == {"mail (1 reserved)", "–"}
    (lock,) = found["locks"]
    assert (lock["about"].pid, lock["about"].holds) == (other.pid, True)
    assert lock["lease"].endswith("min") or lock["lease"] == "1.0 h"
    texts = overview.live(store)["texts"]
    assert (texts["queue-0-consumers"], texts["queue-0-reserved"]) == ("1", "1")
    assert texts["queue-0-state"] == "open"
    queue.pause()
    assert overview.live(store)["texts"]["queue-0-state"] == "paused"


def test_a_queue_that_is_gone_meanwhile(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.queue("going").put("m")
    stats = store.stats()
    store.queue("going").delete()
    monkeypatch.setattr(store, "stats", lambda: stats)
    texts = overview.live(store)["texts"]
    assert (texts["queue-0-ready"], texts["queue-0-consumers"]) == ("1", "0")
    assert overview.tables(store)["queues"][0]["name"] == "going"
    assert not store.has_queue("going")


def test_clearing_a_prefix_takes_no_other_key(store: celeriac.Store) -> None:
    cache: Any = store.cache("c", lead="x:1:")
    keys = ["x:1:a:1", "x:1:a:2:b", "x:1:ab:1", "x:1:a", "x:1:b:a:1", "x:1:*:1"]
    for key in keys:
        cache.set(key, 1)
    assert actions.clear_prefix(store, "c", "a") == 2
    assert sorted(cache.keys()) == sorted(keys[2:])
    assert actions.clear_prefix(store, "c", "*") == 1
    assert actions.clear_prefix(store, "c", "") == 1
    assert sorted(cache.keys()) == ["x:1:ab:1", "x:1:b:a:1"]


def test_what_is_computed_while_its_prefix_is_cleared_is_not_stored(store: celeriac.Store) -> None:
    cache = store.cache("c")

    def compute() -> str:
        actions.clear_prefix(store, "c", "a")
        return "old"

    assert cache.get_or_set("b:1", compute, 60) == "old"
    assert cache.get_or_set("a:1", compute, 60) == "old"
    assert ("a:1" in cache, "b:1" in cache) == (False, True)
