"""`Cache.get_or_set`: the value of a key, computed by one and given to all.

What is found decides, in this order:

    fresh            given at once, unless early refresh says that it is time (below)
    stale            its ttl has passed, but not `stale` seconds more: who gets the flight computes
                     anew, everybody else is given the stale value at once
    none             or one that can't be read: who gets the flight computes, the others sleep until
                     it has landed, at most `wait` seconds, and then compute themselves

If the function raises, its caller gets the exception, and so do those who wait for it (an equal
one, or they compute all at once; see `single_flight.py`), unless a value is there whose ttl passed
less than `stale_on_error` seconds ago: then that is given, and the exception logged. Nothing is
stored. None is a value like any other, as in Django. Where the store can't keep the value, that is
an exception for all as well.

Early refresh (`early`, the beta of Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic
Cache Stampede Prevention", VLDB 2015; 1.0 is their default, more is earlier): a value that took
delta seconds to compute is computed anew by somebody when ``-delta * beta * ln(random())`` is more
than the seconds that it has left. The others go on with the old one.

An entry is kept for ttl + max(stale, stale_on_error) seconds, and knows the second part. The value
is stored by `add` where there was none, and in place of a stale one, or one that can't be read,
only while that is still there, so that a `set` during the computation wins; and not at all when the
key was deleted, or the cache cleared, while its flight was in the air (F4 there). Who computes
without a flight (`lock=False`, or after `wait`) doesn't notice that a missing key was deleted once
more.
"""

from __future__ import annotations

import enum
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple

from celeriac import tags as tagging
from celeriac.cache_entries import MISSING, UNREADABLE, CacheEntries, Key
from celeriac.checks import seconds
from celeriac.entries import Named
from celeriac.errors import SerializationError
from celeriac.single_flight import Flight, InTheAir, Place

logger: Final = logging.getLogger("celeriac")
FOR_EVER: Final = math.inf


class Found(NamedTuple):
    """A value that may be used: `age` is the time since its ttl passed, below zero while fresh."""

    value: Any
    age: float
    early: bool
    version: int


class Step(enum.Enum):
    """What a call does next."""

    COMPUTE = enum.auto()
    GIVE = enum.auto()  # the `answer`
    WAIT = enum.auto()  # and ask again


class Fill:
    """One call of get_or_set, without the waiting: that is for who drives it."""

    def __init__(
        self,
        entries: CacheEntries,
        key: Key,
        ttl: float | None,
        *,
        lock: bool = True,
        wait: float | None = 5.0,
        stale: float = 0,
        stale_on_error: float = 0,
        early: float = 0,
        tags: Iterable[str] = (),
        make_room: Callable[[], object] | None = None,
        found: Any = None,
        shown: object = None,
    ) -> None:
        self._entries = entries
        self._first = found
        self._make_room = make_room
        self._key = key
        self._shown = key if shown is None else shown  # in messages
        self._ttl = ttl
        self._lock = lock
        self._stale = seconds(stale, "stale")
        self._on_error = seconds(stale_on_error, "stale_on_error")
        self._early = seconds(early, "early")
        self._grace = max(self._stale, self._on_error)
        self._tags = tagging.names(tags)
        self._generations: Any = ()
        self._wait = FOR_EVER if wait is None else seconds(wait, "wait")
        self._deadline = FOR_EVER
        self.place: Place | None = None
        self.found: Found | None = None
        self._unreadable = 0  # the version of what is in the value's place, if that can't be read
        self._flight: Flight | None = None
        self._failure: BaseException | None = None
        self._awaited = ""
        self._started = 0.0

    # ---- looking

    def look(self) -> bool:
        """Look for the value, counted as a hit or miss; True when `answer` is it.

        Not if somebody has, and gave what the core said (an entry, or MISSING) as `found`."""
        value, self._first = self._first, None
        if value is None:
            value = self._entries.look(self._key)
        if type(value) is Named:
            if self._look_closer():
                return True
            if self.found is None:
                self._entries.core.missed(self._key)
            return False
        self.found = None if value is MISSING else Found(value, -FOR_EVER, False, 0)
        return self.found is not None

    def look_again(self) -> bool:
        """The same when something may have happened: is there a fresh value by now?"""
        before = self.found
        if self._look_closer():
            return True
        now = self.found  # fresh, but drawn for early refresh: not if it has just been refreshed
        return now is not None and now.age < 0 and (not before or now.version != before.version)

    def _look_closer(self) -> bool:
        self.found, self._unreadable = None, 0
        seen = self._entries.examine(self._key)
        if seen is None:
            return False
        value, version, left = seen
        if value is UNREADABLE:
            self._unreadable = version
            return False
        if type(value) is not Named:
            self.found = Found(value, -FOR_EVER, False, version)
            return True
        try:
            opened = self._entries.opened(value)
        except SerializationError as error:
            self._entries.unreadable(self._key, error)
            self._unreadable = version
            return False
        if opened is None:
            return False
        header, value = opened
        age = -FOR_EVER if left is None else header.grace - left
        if age >= 0 and age >= self._grace:
            return False
        gap = header.delta * self._early * -math.log(1.0 - random.random())
        early = age < 0 and self._early > 0 and -age <= gap
        self.found = Found(value, age, early, version)
        return age < 0 and not early

    @property
    def answer(self) -> Any:
        """The value that was found. REQUIRES: look(), look_again() or `usable` said so."""
        assert self.found is not None
        return self.found.value

    @property
    def usable(self) -> bool:
        """Whether what was found may be given while somebody else computes."""
        return self.found is not None and self.found.age < self._stale

    # ---- computing

    def prepare(self) -> None:
        """Nothing was found that is fresh: who computes?  Raises DeadlockError."""
        self._deadline = time.monotonic() + self._wait
        if self._lock and (self._ttl is None or self._ttl > 0):  # else there is nothing to wait for
            flights = self._entries.shared.flights
            self.place = flights.place(self._entries.name, self._key)
            flights.check(self.place, self._shown)

    @property
    def remaining(self) -> float | None:
        """Seconds that this call may go on waiting; None = no limit."""
        return None if self._wait == FOR_EVER else self._deadline - time.monotonic()

    def seen(self) -> int:
        """To give to `wait`; taken before `step`."""
        return 0 if self.place is None else self._entries.shared.flights.seen(self.place)

    def wait(self, seen: int) -> bool:
        """Sleep until something may have happened; False when the time is over."""
        left = self.remaining
        if self.place is None or (left is not None and left <= 0):
            return False
        return self._entries.shared.flights.wait(self.place, seen, left)

    def step(self) -> Step:
        """What to do next. Raises what the flight that this call has waited for raised."""
        if self.place is None:
            return Step.COMPUTE
        took = self._entries.shared.flights.take_off(self.place, self._awaited)
        if isinstance(took, Flight):
            self._flight = took
            return Step.COMPUTE
        if self.look_again() or self.usable:
            return Step.GIVE
        if isinstance(took, InTheAir):
            self._awaited = took.mark
            return Step.WAIT
        if took.error is None:
            return Step.COMPUTE
        if self.failed(took.error) is MISSING:
            raise took.error
        return Step.GIVE

    def begin(self) -> None:
        """The computation begins."""
        if self._flight is not None:
            self._entries.shared.flights.enter(self._flight)
        if self._tags:
            self._generations = self._entries.tags.generations(self._tags)
        self._started = time.monotonic()

    def store(self, value: Any) -> Any:
        """Keep what was computed; the value to give. Raises what `Cache.set` raises."""
        took = time.monotonic() - self._started
        entries, ttl = self._entries, self._ttl
        if ttl is not None and ttl <= 0:
            return value
        grace = 0.0 if ttl is None else self._grace
        delta = max(took, 1e-9) if self._early and ttl is not None else 0.0
        packed = entries.format.pack(value, self._generations, grace, delta)
        kept = None if ttl is None else ttl + grace
        if self._is_spoilt():
            return value
        if self._make_room is not None:
            self._make_room()
        # stale, or fresh and drawn for early refresh, or not to be read
        while version := self._unreadable if self.found is None else self.found.version:
            if entries.core.compare_and_set(self._key, version, packed, kept):
                return self._kept(value)
            if self.look_again():  # a set() came first: it is as new
                return self.answer
            if self._is_spoilt():
                return value
        if entries.add(self._key, packed, kept):
            return self._kept(value)
        another = entries.look(self._key)  # a set() came first: it is as new
        if type(another) is Named:
            with suppress(SerializationError):
                return entries.open(self._key, another, value)
            return value
        return value if another is MISSING else another

    def _is_spoilt(self) -> bool:
        return self._flight is not None and self._entries.shared.flights.is_spoilt(self._flight)

    def _kept(self, value: Any) -> Any:
        """The value that was just stored; taken back if its key was deleted at that moment."""
        core = self._entries.core
        if self._is_spoilt() and (stored := core.examine(self._key, False)) is not None:
            core.compare_and_delete(self._key, stored[1])
        return value

    def failed(self, error: Exception) -> Any:
        """The value to give though the function raised, or MISSING."""
        self._failure = error
        found = self.found
        if found is None or (found.age >= 0 and found.age >= self._on_error):
            return MISSING
        logger.warning(
            "celeriac: the function for %r raised %r; the value that it had before is given",
            self._shown,
            error,
        )
        return found.value

    def __enter__(self) -> None:
        """The flight, if `step` gave one."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The end, however it came. An interrupt is no failure: another takes over."""
        flight, self._flight = self._flight, None
        failure, self._failure = self._failure if error is None else error, None
        if flight is not None:
            self._entries.shared.flights.land(
                flight, failure if isinstance(failure, Exception) else None
            )


def get_or_set(fill: Fill, default: Any) -> Any:
    """Drive a call whose function, and whose waiting, may block."""
    if fill.look():
        return fill.answer
    if not callable(default):
        fill.begin()
        return fill.store(default)
    fill.prepare()
    while True:
        seen = fill.seen()
        step = fill.step()
        if step is Step.GIVE:
            return fill.answer
        if step is Step.COMPUTE or not fill.wait(seen):
            break
    with fill:
        if fill.look_again():
            return fill.answer
        fill.begin()
        try:
            value = default()
        except Exception as error:
            value = fill.failed(error)
            if value is MISSING:
                raise
            return value
        return fill.store(value)
