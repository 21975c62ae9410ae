"""Stories of rate limits and concurrency limits, and whether what is found after them may be."""

from __future__ import annotations

import time
from typing import Any

from victims import Allowed, Victim

import celeriac

LIST = ["10/day", "10/week"]


def limiter(store: celeriac.Store, key: str, burst: Any = None) -> celeriac.Limiter:
    """The limiter of a story's key: its first letter says which. Ten at once, and no more soon."""
    if key.startswith("l"):
        return store.limiter(LIST, burst=burst, name="list")
    algorithm = {"s": "sliding_window", "f": "fixed_window"}.get(key[0], "gcra")
    return store.limiter("10/day", algorithm=algorithm, name="one")


def judge_limits(store: celeriac.Store, allowed: Allowed) -> None:
    """What is left of each key is what may be, of all rates alike; nobody is in any more."""
    for key, states in allowed.limits.items():
        left = limiter(store, key).peek(key).remaining
        assert left in states, (key, left, states)
        if key.startswith("l"):
            for burst in ([1000, None], [None, 1000]):  # the smaller one is the other's
                assert limiter(store, key, burst).peek(key).remaining == left, (key, burst)
        limiter(store, key).reset(key)
        assert limiter(store, key).peek(key).remaining == 10
    for name, limit in allowed.concurrencies.items():
        c = store.concurrency(name, limit)
        assert c.in_use() == 0, name
        slots = [c.acquire(timeout=0) for _ in range(limit + 1)]
        assert [bool(slot) for slot in slots] == [True] * limit + [False], name
        for slot in slots[:limit]:
            slot.release()


def hit(v: Victim, key: str, left: int, cost: int = 1) -> None:
    """A hit that leaves so much."""
    limit = limiter(v.store, key)
    assert v.call({"left": [key, left]}, lambda: limit.hit(key, cost)).remaining == left


def rates(v: Victim) -> None:
    v.connect()
    for kind in "gsfl":
        for i in range(3):
            hit(v, f"{kind}{i}", 9)
        hit(v, f"{kind}0", 5, 4)
        limit = limiter(v.store, kind)
        v.call({}, lambda limit=limit, key=f"{kind}0": limit.hit(key, 6))  # refused
        v.call({"left": [f"{kind}0", 8]}, lambda limit=limit, k=kind: limit.refund(f"{k}0", 3))
        v.call({"left": [f"{kind}1", 10]}, lambda limit=limit, k=kind: limit.reset(f"{k}1"))


def take_lists_again(v: Victim) -> None:
    """As rates(), of keys that another may have left half changed."""
    v.connect()
    for i in range(3):
        key = f"l{i}"
        limit = limiter(v.store, key)
        v.call({"left": [key, 10]}, lambda limit=limit, key=key: limit.reset(key))
        hit(v, key, 8, 2)


def enter(v: Victim, name: str, limit: int, times: int = 1) -> list[Any]:
    """Slots, which are kept."""
    c = v.call({"concurrency": [name, limit]}, lambda: v.store.concurrency(name, limit))
    return [v.call({}, lambda: c.acquire(timeout=5)) for _ in range(times)]


def concurrency(v: Victim) -> None:
    v.connect()
    first, second = enter(v, "c", 2, 2)
    v.call({}, first.release)
    slots = enter(v, "c", 70, 66)  # a second chunk
    v.call({"concurrency": ["c", 3]}, lambda: v.store.concurrency("c", 3))
    for slot in slots[:-2]:
        v.call({}, slot.release)
    v.call({}, second.release)
    enter(v, "c", 3)  # behind those that are left behind the limit


def many_names(v: Victim) -> None:
    """More names than there are records."""
    v.connect()
    kept = enter(v, "kept", 2)
    v.call({}, lambda: [v.store.concurrency(f"n{i}", 1) for i in range(1026)])
    enter(v, "late", 1)
    v.call({}, kept[0].release)


def die_inside(v: Victim) -> None:
    v.connect()
    enter(v, "c", 2, 2)


def wait_for_the_dead(v: Victim) -> None:
    v.connect()
    time.sleep(0.01)
    slots = enter(v, "c", 2, 2)
    v.call({}, slots[0].release)
