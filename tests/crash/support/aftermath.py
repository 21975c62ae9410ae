"""After a death: recovery, and whether what is found in the store is what may be there."""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import cache
from typing import Any

from heap_picture import HeapPicture, look_at_heap
from limit_stories import judge_limits
from metric_stories import judge_metrics
from victims import Allowed, whole

import celeriac


def everything(store: celeriac.Store, keys: dict[tuple[str, str], set[Any]]) -> dict[Any, Any]:
    """The values of all keys that were ever named."""
    found = {}
    for space, key in keys:
        cache = store.table(space) if space.startswith("table") else store.cache(space)
        found[space, key] = cache.get(key)
    return found


def drain(store: celeriac.Store) -> list[str]:
    """Takes everything from all queues, and holds their counts against it."""
    names = []
    queues = [store.queue(name) for name in store.queues()]
    expected = 0
    for queue in queues:
        queue.resume()
        queue.retry_dead()
        assert queue.dead() == []
        counts = queue.counts()
        assert counts.reserved == 0
        assert counts.dead == 0
        expected += counts.ready + counts.delayed + queue.dropped()
    for queue in queues:
        deadline = time.monotonic() + 10
        while True:
            message = queue.get(0)
            if message is not None:
                names.append(whole(message.body))
                message.ack()
            elif not queue.counts().delayed or time.monotonic() > deadline:
                break
            else:
                time.sleep(0.002)
    assert expected == len(names) + sum(queue.dropped() for queue in queues), (expected, names)
    for queue in queues:
        assert queue.counts()[:4] == (0, 0, 0, 0)
        assert queue.purge() == 0
    return names


def judge(store: celeriac.Store, allowed: Allowed) -> None:
    """What is in the store is what may be there, once; and it works."""
    store.recover()
    assert [o["pid"] for o in store.owners()] == [os.getpid()]
    judge_locks(store)
    found = drain(store)
    assert len(set(found)) == len(found), f"doubled: {Counter(found).most_common(3)}"
    for name in found:
        assert True in allowed.messages.get(name, ()), f"message {name} is a surprise"
    for name, states in allowed.messages.items():
        assert name in found or False in states, f"message {name} is lost"
    judge_limits(store, allowed)
    judge_metrics(store, allowed)
    values = everything(store, allowed.keys)
    for (space, key), value in values.items():
        assert value in allowed.keys[space, key], (space, key, value, allowed.keys[space, key])
    for space in {space for space, _ in values}:
        cache = store.table(space) if space.startswith("table") else store.cache(space)
        there = sum(s == space and value is not None for (s, _), value in values.items())
        for (at, key), value in values.items():
            assert at != space or value is not None or not cache.delete(key)  # expired ones go
        assert len(cache) == there
        for _, key in [which for which in values if which[0] == space]:
            cache.delete(key)
            cache.set(key, "afterwards")
            assert cache.get(key) == "afterwards"
            assert cache.delete(key)
        assert len(cache) == 0
        judge_statistics(store, space, [key for s, key in values if s == space])
        if not space.startswith("table"):
            while cache.cull(1000):
                pass
    queue = store.queue("q", max_length=100)
    for priority in (0, 1, 5):  # keys that were a message's are free
        queue.put("afterwards", priority=priority, delay=0.001, dedup_key=f"k{priority}")
    for _ in range(3):
        message = queue.get(5)
        assert message is not None
        message.ack()
    queue.delete()
    assert store.stats()["corrupt"] == 0


def judge_locks(store: celeriac.Store) -> None:
    """The dead hold nothing and wait for nothing; each lock is to be had, with a higher token."""
    assert store.locks() == []
    with store.lock("a", timeout=20) as lock, store.semaphore("s", 2, timeout=20) as semaphore:
        assert (semaphore.token or 0) > (lock.token or 0)


def judge_statistics(store: celeriac.Store, space: str, keys: list[str]) -> None:
    """Each prefix that was counted since has a row with its name, and the rows sum up."""
    if space.startswith("table"):
        return
    rows = store.cache(space).stats_by_prefix()
    for key in keys:
        prefix, separated, _ = key.partition(":")
        assert (rows[prefix if separated else ""].deletes or 0) >= 1, (key, rows)
    whole = store.cache(space).stats()
    for field in ("hits", "misses", "sets", "deletes", "evictions", "expirations"):
        assert sum(getattr(r, field) or 0 for r in rows.values()) == getattr(whole, field)


def picture_of(store: celeriac.Store) -> HeapPicture:
    """The heap, sound, with nothing in it but structures."""
    store.recover()
    picture = look_at_heap(store.path)
    assert picture.whole
    assert picture.wrong_back_links == 0
    assert picture.orphans == []
    stats = store.stats()
    assert (stats["blocks"], stats["memory_free"]) == (picture.used_blocks, picture.free_bytes)
    return picture


@cache
def sizes_of_structures() -> tuple[int, int]:
    """Bytes of a queue's record and of a lane, from a fresh store."""
    store = celeriac.connect(f"shm://t-sizes-{os.getpid()}", memory="4M")
    try:
        store.queue("a")
        (record,) = look_at_heap(store.path).live
        store.queue("a").put(b"x")
        message = store.queue("a").get(0)
        assert message is not None
        message.ack()
        lane = max(look_at_heap(store.path).live)
    finally:
        store.destroy(force=True)
    return record, lane
