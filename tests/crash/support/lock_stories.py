"""Stories of locks: places that are taken, granted, renewed, given up, and what the dead left.

Nobody holds anything once he is dead, so nothing of these is told but that it happened: `judge()`
finds all locks free.
"""

from __future__ import annotations

from typing import Any

from victims import Victim


def lock_of(v: Victim, name: str = "lock:a", permits: int = 1) -> Any:
    """The core's lock, in which one who waits need not sleep."""
    return v.call({}, lambda: v.store._core.lock(name, permits))


def enter(v: Victim, lock: Any, ttl: float = 0.0) -> int:
    """A place in the line, which holds or waits."""
    place, _ = v.call({}, lambda: lock.enter(ttl))
    return place


def cycle(v: Victim) -> None:
    """Holders and those who wait, in one process; it ends with some of both."""
    v.connect()
    lock, other = lock_of(v), lock_of(v, "semaphore:s", 2)
    first, second, third = (enter(v, lock, ttl) for ttl in (100.0, 0.0, 100.0))
    v.call({}, lambda: lock.renew(first, 50.0))
    v.call({}, lambda: lock.release(first))  # the second holds
    v.call({}, lambda: lock.leave(second))
    v.call({}, lambda: lock.renew(third, 200.0))
    v.call({}, lambda: lock.release(third))
    places = [enter(v, other) for _ in range(5)]
    for place in places[:3]:
        v.call({}, lambda place=place: other.leave(place))
    v.call({}, lambda: lock.acquire(0.0, 0.0))
    enter(v, lock)
    v.call({}, v.store.close)


def many(v: Victim) -> None:
    """More places than one chunk has."""
    v.connect()
    places = []
    for i in range(140):
        lock = v.store._core.lock(f"lock:{i % 100}", 1)
        places.append((lock, enter(v, lock)))
    for lock, place in places:
        v.call({}, lambda lock=lock, place=place: lock.leave(place))


def hold(v: Victim) -> None:
    """Holds, and waits, and has been granted what it waited for."""
    v.connect()
    lock = lock_of(v)
    first, _ = v.call({}, lambda: lock.acquire(0.0, 20.0))  # others died with it
    second = enter(v, lock, 100.0)
    enter(v, lock)
    enter(v, lock_of(v, "semaphore:s", 2))
    v.call({}, lambda: lock.renew(first, 0.0))
    v.call({}, lambda: lock.release(first))
    v.call({}, lambda: lock.renew(second, 1000.0))


def after_the_dead(v: Victim) -> None:
    """Takes what the dead held."""
    v.connect()
    for name, permits in (("lock:a", 1), ("semaphore:s", 2)):
        lock = lock_of(v, name, permits)
        place, _ = v.call({}, lambda lock=lock: lock.acquire(0.0, 20.0))
        if not place:
            raise AssertionError(f"{name} of the dead is not to be had")
        enter(v, lock)
        v.call({}, lambda lock=lock, place=place: lock.release(place))


def recover(v: Victim) -> None:
    """Waits behind the dead, and repairs."""
    v.connect()
    lock = lock_of(v)
    place = enter(v, lock)
    v.call({}, v.store.recover)
    v.call({}, lambda: lock.wait(place, 20.0))
    v.call({}, lambda: lock.release(place))
