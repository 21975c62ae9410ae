"""Messages of a queue: those that this process has reserved, and those only looked at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celeriac import checks
from celeriac._core import Message as CoreMessage
from celeriac.errors import NotOwner, StoreCorrupt

if TYPE_CHECKING:
    from celeriac.queue import Queue


MAX_REASON_BYTES: Final = 1024


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


class Ended(NamedTuple):
    """A message that is done and kept, or dead."""

    id: str
    body: bytes | StoreCorrupt
    """What was put; an error, not raised, where that was damaged."""
    headers: dict[str, Any]
    priority: int
    deliveries: int
    reason: str
    """Why it is dead; empty for one that is done."""
    when: float
    """Unix time at which it was done or dead."""


class Consumer(NamedTuple):
    """A process that waits for messages of a queue, or has some reserved."""

    pid: int
    command: str
    reserved: int
    waiting: bool


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

    @property
    def reason(self) -> str | None:
        """What was said when it was given back last, or why it came into this dead letter queue;
        None when there is nothing, or the message isn't ours any more."""
        return self._core.reason or None

    def ack(self) -> None:
        """Done: remove the message. Raises NotOwner when it isn't ours any more."""
        try:
            self._core.ack()
        except NotOwner as error:
            raise self._late(error) from None
        self._ended = "acknowledged it already"

    def nack(self, delay: float = 0, reason: str | None = None) -> None:
        """Give the message back, to be delivered again after ``delay`` seconds.

        :param reason: for people: kept with the message, its first 1,024 bytes as UTF-8, until it
            is given back with another. Where memory is full, it is lost.

        A message that reached the queue's ``max_deliveries`` is set aside as dead instead, or goes
        to the dead letter queue. Raises NotOwner when it isn't ours any more.
        """
        said = "" if reason is None else checks.text(reason, "reason")
        seconds = delay_of(delay, "delay")
        kept = said.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
        try:
            self._core.nack(seconds, kept)
        except NotOwner as error:
            raise self._late(error) from None
        self._ended = "gave it back already, with nack()"

    def extend(self, seconds: float) -> None:
        """This process keeps the message for so many seconds from now; then it is delivered again.

        For a queue with ``visibility``; in another queue, from now on this message has a deadline
        too. Raises NotOwner when the message isn't ours any more.
        """
        checks.limited(seconds, "seconds", 0)
        try:
            self._core.extend(float(seconds))
        except NotOwner as error:
            raise self._late(error) from None

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


def delay_of(value: object, what: str) -> float:
    """Seconds of a delay. Raises TypeError, ValueError."""
    return min(checks.seconds(int(value) if isinstance(value, bool) else value, what), 1e18)
