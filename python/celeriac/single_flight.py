"""Single flight: of all who miss one key, in whatever process, one computes the value.

A flight is an entry of a table (which is never evicted), under the key, that names who computes:
the process, by a name that the store can ask after, and the flight.

    absent --add--> in flight --delete--> absent      the normal life
    in flight --compare_and_set--> awaited            another asks for the key
    awaited --delete--> absent                        its function returned
    awaited --compare_and_set--> failed               its function raised
    failed --its time is over--> absent
    in flight or awaited, its key deleted, or the cache cleared --delete--> absent: it is spoilt
    the same, its process dead, or failed --compare_and_set--> in flight, by another

- Who can add the entry computes. Others read the entry's change count, look again whether the value
  has come meanwhile, and sleep until the count changes: by the delete, or because the store wakes
  all sleepers when a process dies. There is no polling, and no wait outlasts its deadline.
- A flight that failed is named with its error, for a few seconds, if somebody waits for it: those
  who waited for this very flight raise the same (`flight_errors.py`), as in Go's singleflight; were
  they to compute one after the other, the last would wait for as many failures as there are
  callers. An error that can't be handed on lets them compute all at once. Who comes later finds no
  flight, and takes off.
- F1  At most one living process is named at a time, so at most one computes within `wait`. Who has
  waited longer computes without a flight: a function that never returns holds up nobody for ever.
- F2  Killed at any instruction: the entry names a dead process, which the first to look replaces.
- F3  A thread that asks for the key that it is computing would wait for itself; it is told so by
  `DeadlockError`. What runs in its behalf (tasks, asyncio.to_thread) inherits that knowledge.
- F4  A flight that was spoilt stores nothing: what it computes may be older than the deletion. Who
  waits for it looks, and one of them takes off. Deletions spoil the flight before they remove the
  key, and a flight looks for its entry once more when it has stored: one of the two sees the other.
- An entry also expires, so that one whose key nobody ever asks for again doesn't stay.
- A table that is full costs the coalescing, not the answer.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Final, NamedTuple

from celeriac import _core, flight_errors, green
from celeriac.errors import DeadlockError, NotEnoughMemory

TABLE: Final = "celeriac.flights"
LONGEST: Final = 3600.0
LONGEST_KEY: Final = 65_535
AWAITED: Final = " awaited"
FAILED: Final = 5.0
"""Seconds in which those who wait for a flight are to look what it failed of; a wake-up later."""

Place = tuple[str, bytes]
"""A key of a cache of a store: what a flight is about."""

_own: ContextVar[tuple[Flight, ...]] = ContextVar("celeriac_flights", default=())


class Flight:
    """One flight of this process."""

    __slots__ = ("ends", "landed", "mark", "pid", "place")

    def __init__(self, place: Place, mark: str) -> None:
        self.place = place
        self.mark = mark
        self.pid = os.getpid()
        self.landed = False
        self.ends = 0.0  # when its entry expires, by time.monotonic(); 0 while it has none


class InTheAir(NamedTuple):
    """A flight of another's, who is alive."""

    mark: str


class Failed(NamedTuple):
    """The end of the flight that was waited for."""

    error: Exception | None
    """None: it can't be handed on."""


class Flights:
    """The flights of a store. Thread-safe, fork-safe."""

    __slots__ = ("_path", "_store", "_table")

    def __init__(self, store: _core.Store) -> None:
        self._store = store
        self._path = store.path
        self._table = store.cache(TABLE, table=True, pickle_all=False)

    @property
    def core(self) -> _core.Cache:
        """The table."""
        return self._table

    def place(self, space: str, key: str | bytes) -> Place:
        """What a flight for this key of this cache is about."""
        data = key.encode() if isinstance(key, str) else bytes(key)
        head = space.encode() + b"\0"
        if len(head) + len(data) > LONGEST_KEY:
            data = hashlib.blake2b(data).digest()
        return self._path, head + data

    def check(self, place: Place, shown: object) -> None:
        """Raises DeadlockError where this very context is computing the key, which its user calls
        `shown`."""
        for flight in _own.get():
            if flight.place == place and not flight.landed:
                raise DeadlockError(
                    f"the function that computes {shown!r} asks the cache for the same key: it "
                    "would wait for itself"
                )

    def seen(self, place: Place) -> int:
        """The number to give to `wait`; take it before looking whether there is anything new."""
        return self._table.change_count(place[1])

    def wait(self, place: Place, seen: int, timeout: float | None) -> bool:
        """Sleep until something may have happened; False after the timeout."""
        if green.patched():
            table, key = self._table, place[1]
            green.wait(lambda: table.change_count(key) != seen, green.until_a_look(timeout))
            return True
        return self._table.wait_for_change(place[1], seen, timeout)

    def take_off(self, place: Place, awaited: str) -> Flight | InTheAir | Failed:
        """A flight of our own, unless another's is in the air, or the one that was waited for
        (its mark; or "") has failed."""
        key = place[1]
        flight = Flight(place, f"{self._store.identity()} {secrets.token_hex(8)}")
        try:
            for _ in range(8):  # another's may end between two calls, and yet another begin
                ends = time.monotonic() + LONGEST
                if self._table.add(key, flight.mark, LONGEST):
                    flight.ends = ends
                    return flight
                other, version = self._table.get_versioned(key)
                if version == 0:
                    continue
                if isinstance(other, bytes):
                    mark, _, error = other.partition(b"\n")
                    if mark == awaited.encode():
                        return Failed(flight_errors.read(error))
                elif self._store.is_alive(str(other).partition(" ")[0]):
                    theirs = str(other).removesuffix(AWAITED)
                    with suppress(NotEnoughMemory):  # then it fails unheard
                        if theirs == other and not self._table.compare_and_set(
                            key, version, theirs + AWAITED, LONGEST
                        ):
                            continue  # it has ended, or another was first to say so
                    return InTheAir(theirs)
                if self._table.compare_and_set(key, version, flight.mark, LONGEST):
                    flight.ends = ends
                    return flight
        except NotEnoughMemory:
            return flight  # it has no entry: everybody computes
        return InTheAir("")  # of one of many that came and went

    def enter(self, flight: Flight) -> None:
        """This context computes."""
        _own.set((*(f for f in _own.get() if not f.landed), flight))

    def spoil(self, place: Place) -> None:
        """Let the flight for this key, if any, store nothing. To be done before the key goes."""
        if self._table.contains(place[1]):
            self._table.delete(place[1])

    def spoil_those(self, wanted: Callable[[str, bytes], bool]) -> None:
        """The same for all flights whose cache's name and key are wanted."""
        for entry in self._table.items():
            data = entry[0].encode() if isinstance(entry[0], str) else entry[0]
            space, _, key = data.partition(b"\0")
            if wanted(space.decode(), key):
                self._table.delete(data)

    def is_spoilt(self, flight: Flight) -> bool:
        """Whether its key was deleted since it took off."""
        if time.monotonic() >= flight.ends:
            return False  # it never had an entry, or that has expired
        return self._table.get(flight.place[1]) not in (flight.mark, flight.mark + AWAITED)

    def land(self, flight: Flight, error: Exception | None) -> None:
        """End a flight, and wake who waits for it. The value has been stored, or won't be, because
        of the error if there is one."""
        flight.landed = True
        if flight.pid != os.getpid():
            return  # a forked child left the function: the flight is its parent's
        key = flight.place[1]
        for _ in range(8):  # between two calls somebody may begin to wait
            mark, version = self._table.get_versioned(key)
            if mark not in (flight.mark, flight.mark + AWAITED):
                return
            if error is not None and mark != flight.mark:
                failed = flight.mark.encode() + b"\n" + flight_errors.written(error)
                with suppress(NotEnoughMemory):
                    if self._table.compare_and_set(key, version, failed, FAILED):
                        return
                    continue
            if self._table.compare_and_delete(key, version):
                return
