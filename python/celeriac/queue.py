"""Queues of a store: at least once, redelivered when the consumer dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from celeriac import checks, green
from celeriac._core import Queue as CoreQueue
from celeriac._core import Waiter as CoreWaiter
from celeriac.errors import CeleriacError, QueueFull, StoreCorrupt
from celeriac.message import Consumer, Counts, Ended, Message, Peeked, delay_of

if TYPE_CHECKING:
    from celeriac._core import Store as CoreStore

_Put = TypeVar("_Put")


def _packed(headers: Mapping[str, Any] | None) -> bytes:
    """Headers as JSON. Raises TypeError, ValueError."""
    if headers is None:
        return b""
    given = dict(checks.mapping(headers, "headers"))
    try:
        return json.dumps(given, separators=(",", ":")).encode() if given else b""
    except (TypeError, ValueError, RecursionError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"headers are a small mapping that JSON can take: {error}") from None


def _check_body(body: object) -> None:
    if not isinstance(body, (bytes, str)):
        raise TypeError(f"a message body is bytes or str, not {type(body).__name__}")


def _shown(number: int) -> str:
    return f"{number:016x}"


def _numbers(ids: Iterable[str]) -> list[int]:
    """Ids as the core has them. Raises TypeError, ValueError."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids is an iterable of ids, not {type(ids).__name__}")
    numbers = []
    for id in ids:
        try:
            numbers.append(int(checks.text(id, "an id"), 16))
        except ValueError:
            raise ValueError(f"id={id!r}: an id is what put() returned") from None
        if not 0 <= numbers[-1] < 1 << 64:
            raise ValueError(f"id={id!r}: an id is what put() returned")
    return numbers


def _check_dedup(key: object, ttl: object) -> float | None:
    """The key's window in seconds, None for the queue's. Raises TypeError, ValueError."""
    if key is None:
        if ttl is not None:
            raise ValueError(f"dedup_ttl={ttl!r} without a dedup_key")
        return None
    if not isinstance(key, (str, bytes)):
        raise TypeError(f"dedup_key is str or bytes, not {type(key).__name__}")
    size = len(key.encode() if isinstance(key, str) else key)
    if not 1 <= size <= 1024:
        raise ValueError(f"dedup_key has {size} bytes: 1 to 1024")
    return None if ttl is None else delay_of(ttl, "dedup_ttl")


def _with_room(put: Callable[[float | None], _Put], timeout: float | None) -> _Put:
    """Puts, waiting for room; under gevent so that others run meanwhile."""
    if not green.patched() or (timeout is not None and timeout <= 0):
        return put(timeout)

    def look() -> _Put | None:
        with suppress(QueueFull):
            return put(0)
        return None

    found = green.wait(look, timeout)
    return put(0) if found is None else found


class Queue:
    """A queue by name, shared by every process of the host.

    Guarantees: a message whose :meth:`put` returned is delivered until it is acknowledged; at most
    one acknowledgement of it succeeds; a dead consumer's messages are ready again as soon as its
    death is noticed. First in, first out within a priority.

    Thread-safe, fork-safe. Pickles as its store's URL, its name and the options that it was given.
    Crash-safe: a process killed inside put() has put or not.
    """

    __slots__ = ("_again", "_core", "_on_disk", "_store", "_waiter", "name")

    def __init__(
        self,
        store: CoreStore,
        core: CoreQueue,
        name: str,
        again: Callable[[], Queue],
        on_disk: bool = False,
    ) -> None:
        self._again = again
        self._on_disk = on_disk  # calls that change something wait for the disk
        self._store = store
        self._core = core
        self._waiter: CoreWaiter | None = None
        self.name = name

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def put(
        self,
        body: bytes | str,
        *,
        priority: int = 0,
        delay: float = 0,
        ttl: float | None = None,
        headers: Mapping[str, Any] | None = None,
        dedup_key: str | bytes | None = None,
        dedup_ttl: float | None = None,
        timeout: float | None = 0,
    ) -> str:
        """Put a message; its id.

        :param body: bytes, or str as UTF-8.
        :param priority: 0 to 255, higher first.
        :param delay: seconds until it may be delivered.
        :param ttl: seconds after which it is dropped if nobody has taken it, or goes to the dead
            letter queue if there is one; None = never.
        :param headers: a small mapping that JSON can take.
        :param dedup_key: 1 to 1,024 bytes: when a message of the queue has this key, nothing is
            put, and the id is that message's. Looking and putting are one step.
        :param dedup_ttl: seconds for which the key is taken, whatever becomes of the message; by
            default the queue's. Without any: until the message is done, removed or dead.
        :param timeout: seconds to wait for room; None waits for ever, 0 doesn't wait.

        Raises QueueFull (max_length or memory reached), ValueTooLarge, ValueError, TypeError; then
        nothing was put.
        """
        # What most calls give is seen at a glance: a call costs more than the core's whole work.
        if type(body) is not bytes:
            _check_body(body)
        if ttl is not None:
            checks.check_ttl(ttl)
        if type(priority) is not int or not 0 <= priority <= 255:
            checks.whole(priority, "priority", 0, 255)
        seconds = 0.0 if type(delay) is int and delay == 0 else delay_of(delay, "delay")
        packed = b"" if headers is None else _packed(headers)
        if dedup_key is None and dedup_ttl is None and timeout == 0:
            return self._core.put(body, packed, priority, seconds, ttl)
        window = _check_dedup(dedup_key, dedup_ttl)
        checks.check_ttl(timeout, "timeout")
        put = partial(self._core.put_with, body, packed, priority, seconds, ttl, dedup_key, window)
        return _with_room(put, timeout)

    def put_many(
        self,
        bodies: Iterable[bytes | str],
        *,
        priority: int = 0,
        delay: float = 0,
        ttl: float | None = None,
        headers: Mapping[str, Any] | None = None,
        timeout: float | None = 0,
    ) -> list[str]:
        """Put several messages with the same options, those of :meth:`put`, in order; their ids.

        When one can't be put (QueueFull, ValueTooLarge), those before it were: the exception's
        ``ids`` names them.
        """
        if isinstance(bodies, (str, bytes)) or not isinstance(bodies, Iterable):
            raise TypeError(f"bodies is an iterable of bodies, not {type(bodies).__name__}")
        bodies = list(bodies)
        for body in bodies:
            _check_body(body)
        checks.check_ttl(ttl)
        checks.check_ttl(timeout, "timeout")
        checks.whole(priority, "priority", 0, 255)
        seconds, packed = delay_of(delay, "delay"), _packed(headers)
        put: list[str] = []
        if not bodies:
            return []

        def put_rest(wait: float | None) -> list[str]:
            rest = bodies[len(put) :]
            try:
                put.extend(self._core.put_many(rest, packed, priority, seconds, ttl, wait))
            except CeleriacError as error:
                put.extend(getattr(error, "ids", ()))
                raise
            return put

        try:
            return _with_room(put_rest, timeout)
        except CeleriacError as error:
            error.ids = put
            raise

    def get(self, timeout: float | None = None) -> Message | None:
        """Reserve the next message.

        :param timeout: seconds to wait; None waits for ever, 0 doesn't wait. Waiting costs no CPU
            and releases the interpreter lock; under gevent it lets other greenlets run.
        :returns: None when there was nothing in time.
        """
        if timeout is not None and type(timeout) is not int:
            checks.check_ttl(timeout, "timeout")
        if green.patched():
            core = green.wait(lambda: self._core.get(0), timeout)
        else:
            core = self._core.get(timeout)
        if core is not None:
            return Message(core, self)
        waiter = self._waiter
        if waiter is None:
            return None
        # Somebody waits for our descriptor: take the wake-up, and park again if all is quiet.
        waiter.drain()
        while not waiter.arm():
            core = self._core.get(0)
            if core is not None:
                return Message(core, self)
            waiter.drain()
        return None

    def get_many(self, n: int, timeout: float | None = 0) -> list[Message]:
        """Reserve up to ``n`` messages; waits for the first only."""
        checks.whole(n, "n")
        checks.check_ttl(timeout, "timeout")
        if n <= 0:
            return []
        found = self._core.get_many(n, 0)
        if not found:
            first = self.get(timeout)
            if first is None:
                return []
            return [first, *(Message(core, self) for core in self._core.get_many(n - 1, 0))]
        return [Message(core, self) for core in found]

    def counts(self) -> Counts:
        """Messages by state; exact when nobody is in the middle of an operation."""
        return Counts(*self._core.counts()[:5])

    def dropped(self) -> int:
        """Messages dropped: expired, or oldest of a bounded queue."""
        return self._core.counts()[5]

    def _damaged(self, number: int) -> StoreCorrupt:
        return StoreCorrupt(
            f"the body of message {number:016x} of queue {self.name!r} is damaged: it fails its "
            "checksum, and is not delivered"
        )

    def _peek(self, state: str, limit: int) -> list[Peeked]:
        checks.whole(limit, "limit", 0)
        return [
            Peeked(
                _shown(number),
                self._damaged(number) if body is None else body,
                json.loads(raw) if raw else {},
                priority,
                count,
                due_in,
            )
            for number, body, raw, priority, count, due_in, _, _ in self._core.peek(state, limit)
        ]

    def _ended(self, state: str, limit: int | None) -> list[Ended]:
        if limit is not None:
            checks.whole(limit, "limit", 0)
        now = time.time()
        return [
            Ended(
                _shown(number),
                self._damaged(number) if body is None else body,
                json.loads(raw) if raw else {},
                priority,
                count,
                reason,
                now - ago,
            )
            for number, body, raw, priority, count, _, reason, ago in self._core.peek(
                state, checks.LARGEST if limit is None else limit
            )
        ]

    def delayed(self, limit: int = 100) -> list[Peeked]:
        """Look at delayed messages, soonest first, without taking them."""
        return self._peek("delayed", limit)

    def ready(self, limit: int = 100) -> list[Peeked]:
        """Look at ready messages, oldest first, without taking them."""
        return self._peek("ready", limit)

    def dead(self, limit: int | None = None) -> list[Ended]:
        """Dead messages, the first to die first: given back too often, their consumers died too
        often, or found damaged: their body is an error."""
        return self._ended("dead", limit)

    def done(self, limit: int | None = None) -> list[Ended]:
        """Messages that are done and kept (``keep_done``), the first that was done first."""
        return self._ended("done", limit)

    def retry_dead(self, ids: Iterable[str] | None = None) -> int:
        """Put dead messages back, those with these ids or all; how many were.

        They go behind all that is ready, their deliveries count anew, and they don't expire. Ids of
        messages that aren't dead are passed over: the number returned is smaller then.
        """
        return self._core.retry_dead(None if ids is None else _numbers(ids))

    def purge_dead(self) -> int:
        """Remove all dead messages; how many."""
        return self._core.purge_dead()

    def cancel(self, id: str) -> bool:
        """Remove a ready or delayed message; False when it is neither (any more)."""
        (number,) = _numbers([id])
        return self._core.cancel(number)

    def pause(self) -> None:
        """Deliver nothing, to nobody, until resume(): puts go on, consumers wait. Lasts beyond this
        process."""
        self._core.pause(True)

    def resume(self) -> None:
        """Deliver again."""
        self._core.pause(False)

    @property
    def paused(self) -> bool:
        """Whether the queue was paused and not resumed."""
        return self._core.paused()

    def oldest_age(self) -> float | None:
        """Seconds since the ready message that has waited longest was put; None without one."""
        return self._core.oldest_age()

    def consumers(self) -> list[Consumer]:
        """Processes that wait for messages or have some reserved."""
        owners = {(o["slot"], o["epoch"]): o for o in self._store.owners()}
        return [
            Consumer(owners[who]["pid"], owners[who]["command"], reserved, waiting)
            for *key, reserved, waiting in self._core.consumers()
            if (who := (key[0], key[1])) in owners
        ]

    def purge(self) -> int:
        """Remove all ready and delayed messages; how many."""
        return self._core.purge()

    def delete(self) -> bool:
        """Remove the queue and its messages; True when it was there."""
        return self._core.remove()

    def waiter(self) -> Waiter:
        """As Store.waiter(): one descriptor for an event loop that consumes from several queues."""
        return Waiter(self._store.waiter())

    def fileno(self) -> int:
        """A descriptor for an event loop: readable when there may be something.

        Then call ``get(timeout=0)`` until it returns None, which parks again.
        """
        if self._waiter is None:
            self._waiter = self._store.waiter()
            self._waiter.watch(self._core)
        if not self._waiter.arm():
            self._waiter.nudge()  # something is there already: let the loop come and look
        return self._waiter.fileno()


def _check_queue(queue: object) -> None:
    if not isinstance(queue, Queue):
        raise TypeError(f"queue is a celeriac.Queue, not {type(queue).__name__}")


class Waiter:
    """One descriptor for an event loop that consumes from several queues.

    ``arm()`` before the loop sleeps, ``drain()`` when the descriptor is readable, then get messages
    until there are none, and ``arm()`` again. ``disarm()`` while not consuming.
    """

    __slots__ = ("_core",)

    def __init__(self, core: CoreWaiter) -> None:
        self._core = core

    def fileno(self) -> int:
        """The descriptor; level-triggered."""
        return self._core.fileno()

    def watch(self, queue: Queue) -> None:
        """Wake for this queue too."""
        _check_queue(queue)
        self._core.watch(queue._core)

    def unwatch(self, queue: Queue) -> None:
        """Don't wake for this queue any more."""
        _check_queue(queue)
        self._core.unwatch(queue._core)

    def arm(self) -> bool:
        """Park. True: the descriptor will become readable. False: something is ready now."""
        return self._core.arm()

    def drain(self) -> None:
        """Take the wake-up: move due delayed messages, redeliver a dead owner's."""
        self._core.drain()

    def disarm(self) -> None:
        """Not consuming for now: whoever else waits is woken instead."""
        self._core.disarm()

    def close(self) -> None:
        """Give the descriptor back."""
        self._core.close()
