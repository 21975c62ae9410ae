"""Queues of a store: at least once, redelivered when the consumer dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac import checks, green
from celeriac._core import Message as CoreMessage
from celeriac._core import Queue as CoreQueue
from celeriac._core import Waiter as CoreWaiter
from celeriac.errors import CeleriacError, NotOwner, StoreCorrupt

if TYPE_CHECKING:
    from celeriac._core import Store as CoreStore


class Counts(NamedTuple):
    """Messages of a queue by state; ``done`` counts acknowledgements since the queue was made."""

    ready: int
    delayed: int
    reserved: int
    dead: int
    done: int


class Peeked(NamedTuple):
    """A message looked at, not taken."""

    id: str
    body: bytes | StoreCorrupt
    """What was put; an error, not raised, where that was damaged."""
    headers: dict[str, Any]
    priority: int
    deliveries: int
    due_in: float


class Message:
    """A message that this process has reserved: acknowledge it or give it back.

    If the process dies first, the kernel tells and the message is delivered to another.
    """

    __slots__ = ("_core", "_ended", "_headers", "queue")

    def __init__(self, core: CoreMessage, queue: Queue) -> None:
        self._core = core
        self._ended = ""
        self._headers: dict[str, Any] | None = None
        self.queue = queue

    @property
    def body(self) -> bytes:
        """What was put."""
        return self._core.body

    @property
    def headers(self) -> dict[str, Any]:
        """The headers given to put()."""
        if self._headers is None:
            raw = self._core.headers
            self._headers = json.loads(raw) if raw else {}
        return self._headers

    @property
    def id(self) -> str:
        """The id that put() returned."""
        return f"{self._core.id:016x}"

    @property
    def deliveries(self) -> int:
        """How often the message was delivered, this time included."""
        return self._core.deliveries

    @property
    def redelivered(self) -> bool:
        """Delivered before, to somebody who died or gave it back."""
        return self._core.deliveries > 1

    @property
    def priority(self) -> int:
        """0 to 255, higher first."""
        return self._core.priority

    def ack(self) -> None:
        """Done: remove the message. Raises NotOwner when it isn't ours any more."""
        try:
            self._core.ack()
        except NotOwner as error:
            raise self._late(error) from None
        self._ended = "acknowledged it already"

    def nack(self, delay: float = 0, reason: str | None = None) -> None:
        """Give the message back, to be delivered again after ``delay`` seconds.

        A message that reached the queue's ``max_deliveries`` is set aside as dead instead. Raises
        NotOwner when it isn't ours any more. ``reason`` is for people; it isn't kept yet.
        """
        if reason is not None:
            checks.text(reason, "reason")
        seconds = _delay(delay, "delay")
        try:
            self._core.nack(seconds)
        except NotOwner as error:
            raise self._late(error) from None
        self._ended = "gave it back already, with nack()"

    def _late(self, error: NotOwner) -> NotOwner:
        """Says how this object ended the message, if it did."""
        if not self._ended:
            return error
        return NotOwner(
            f"message {self.id} of queue {self.queue.name!r} isn't reserved by this process any "
            f"more: it {self._ended}"
        )

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.queue.name!r}, delivery {self.deliveries}>"


def _delay(value: object, what: str) -> float:
    return min(checks.seconds(int(value) if isinstance(value, bool) else value, what), 1e18)


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


class Queue:
    """A queue by name, shared by every process of the host.

    Guarantees: a message whose :meth:`put` returned is delivered until it is acknowledged; at most
    one acknowledgement of it succeeds; a dead consumer's messages are ready again as soon as its
    death is noticed. First in, first out within a priority.

    Thread-safe, fork-safe. Pickles as its store's URL, its name and the options that it was given.
    Crash-safe: a process killed inside put() has put or not.
    """

    __slots__ = ("_again", "_core", "_store", "_waiter", "name")

    def __init__(
        self, store: CoreStore, core: CoreQueue, name: str, again: Callable[[], Queue]
    ) -> None:
        self._again = again
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
    ) -> str:
        """Put a message; its id.

        :param body: bytes, or str as UTF-8.
        :param priority: 0 to 255, higher first.
        :param delay: seconds until it may be delivered.
        :param ttl: seconds after which it is dropped if nobody has taken it; None = never.
        :param headers: a small mapping that JSON can take.

        Raises QueueFull (max_length or memory reached), ValueTooLarge, ValueError, TypeError; then
        nothing was put.
        """
        _check_body(body)
        checks.check_ttl(ttl)
        checks.whole(priority, "priority", 0, 255)
        number = self._core.put(body, _packed(headers), priority, _delay(delay, "delay"), ttl)
        return f"{number:016x}"

    def put_many(
        self,
        bodies: Iterable[bytes | str],
        *,
        priority: int = 0,
        delay: float = 0,
        ttl: float | None = None,
        headers: Mapping[str, Any] | None = None,
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
        ids: list[str] = []
        try:
            for body in bodies:
                ids.append(  # noqa: PERF401 - ids so far are kept
                    self.put(body, priority=priority, delay=delay, ttl=ttl, headers=headers)
                )
        except CeleriacError as error:
            error.ids = ids
            raise
        return ids

    def get(self, timeout: float | None = None) -> Message | None:
        """Reserve the next message.

        :param timeout: seconds to wait; None waits for ever, 0 doesn't wait. Waiting costs no CPU
            and releases the interpreter lock; under gevent it lets other greenlets run.
        :returns: None when there was nothing in time.
        """
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
        messages: list[Message] = []
        while len(messages) < n:
            message = self.get(timeout if not messages else 0)
            if message is None:
                break
            messages.append(message)
        return messages

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
                f"{number:016x}",
                self._damaged(number) if body is None else body,
                json.loads(raw) if raw else {},
                priority,
                count,
                due_in,
            )
            for number, body, raw, priority, count, due_in in self._core.peek(state, limit)
        ]

    def delayed(self, limit: int = 100) -> list[Peeked]:
        """Look at delayed messages, soonest first, without taking them."""
        return self._peek("delayed", limit)

    def ready(self, limit: int = 100) -> list[Peeked]:
        """Look at ready messages, oldest first, without taking them."""
        return self._peek("ready", limit)

    def dead(self, limit: int = 100) -> list[Peeked]:
        """Look at dead messages: given back too often, or found damaged: their body is an error."""
        return self._peek("dead", limit)

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
