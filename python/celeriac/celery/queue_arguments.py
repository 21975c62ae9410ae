"""What a queue's ``x-`` arguments ask for, and the table in which they hold for everybody.

They are declared by one process and have to hold for all: a publisher that never declared the queue
applies its time to live as well. So they stand in the table ``celeriac.celery.queues``, one entry
for each queue that has any, and each process keeps what it has parsed together with the entry's
change count. A declaration with arguments replaces what was there; one without any leaves it, since
that is how a Celery application sends to a queue that another one configures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError

if TYPE_CHECKING:
    from celeriac.table import Table

__all__ = ["ArgumentTable", "Arguments"]

#: Parsed entries kept at most; names of reply queues come and go.
MAX_KNOWN = 1024

OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a queue; all of them None for a plain one."""

    #: Seconds that a message may wait.
    ttl: float | None = None
    #: Seconds that the queue may be without consumers and declarations.
    expires: float | None = None
    #: Messages that it holds at most, and what gives way.
    max_length: int | None = None
    overflow: str = OVERFLOWS[0]
    #: Higher priorities count as this one.
    max_priority: int | None = None
    #: Where messages go that were rejected, expired, or had to give way; "" is the exchange that
    #: leads to the queue of the routing key's name.
    dead_letter_exchange: str | None = None
    #: Their routing key there; None for the one they have.
    dead_letter_routing_key: str | None = None
    #: Times that a message may come back before it is dead.
    delivery_limit: int | None = None
    #: What is kept of done and of dead messages: count and seconds. Not RabbitMQ's.
    keep_done: tuple[int, float] | None = None
    keep_failed: tuple[int, float] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Arguments:
        """What AMQP's ``x-`` arguments say. Unknown ones are no error, as in RabbitMQ.

        Raises:
            ChannelError: a value is none that its argument takes (PRECONDITION_FAILED).
        """
        found: dict[str, Any] = {}
        for name, value in (given or {}).items():
            if value is None:
                continue
            if name in ("x-message-ttl", "x-expires"):
                least = 1 if name == "x-expires" else 0
                seconds = _whole(name, value, least, 2**63 - 1) / 1000
                found["ttl" if name == "x-message-ttl" else "expires"] = seconds
            elif name == "x-max-length":
                found["max_length"] = _whole(name, value, 1, 2**31 - 1)
            elif name == "x-max-priority":
                found["max_priority"] = _whole(name, value, 0, 255)
            elif name == "x-delivery-limit":
                found["delivery_limit"] = _whole(name, value, 0, 2**15)
            elif name in ("x-keep-done", "x-keep-failed"):
                found[name.removeprefix("x-").replace("-", "_")] = _kept(name, value)
            elif name == "x-overflow":
                if value not in OVERFLOWS:
                    raise _refused(name, value, "one of " + ", ".join(OVERFLOWS))
                found["overflow"] = value
            elif name in ("x-dead-letter-exchange", "x-dead-letter-routing-key"):
                if not isinstance(value, str):
                    raise _refused(name, value, "text")
                found[name.removeprefix("x-").replace("-", "_")] = value
        if "dead_letter_routing_key" in found and "dead_letter_exchange" not in found:
            key = found["dead_letter_routing_key"]
            raise _refused("x-dead-letter-routing-key", key, "given with x-dead-letter-exchange")
        return cls(**found)

    def __bool__(self) -> bool:
        return self != _PLAIN


_PLAIN = Arguments()
_NAMES = frozenset(field.name for field in fields(Arguments))


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise _refused(name, value, "a whole number")
    if not least <= value <= most:
        raise _refused(name, value, f"{least} to {most}")
    return int(value)


def _kept(name: str, value: Any) -> tuple[int, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _refused(name, value, "two numbers, count and seconds")
    return _whole(name, value[0], 1, 2**31 - 1), float(_whole(name, value[1], 1, 2**31 - 1))


def _refused(name: str, value: Any, wanted: str) -> ChannelError:
    return ChannelError(
        f"PRECONDITION_FAILED - invalid arg {name!r}={value!r}: it is to be {wanted}",
        (50, 10),
        "Channel.queue_declare",
        "406",
    )


class ArgumentTable:
    """The arguments of all queues of a store. Thread-safe, fork-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, tuple[int, Arguments | None]] = {}

    def get(self, name: str) -> Arguments | None:
        """The arguments of a queue, or None when it has none."""
        count = self._table.change_count(name)
        known = self._known.get(name)
        if known is not None and known[0] == count:
            return known[1]
        text = self._table.get(name)
        found = None
        if text is not None:
            given = json.loads(text)
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in given.items()
                if key in _NAMES
            }
            found = Arguments(**values)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[name] = (count, found)
        return found

    def set(self, name: str, arguments: Arguments) -> None:
        """What a declaration says; nothing if it says nothing."""
        if arguments and self.get(name) != arguments:
            plain = asdict(_PLAIN)
            given = {k: v for k, v in asdict(arguments).items() if v != plain[k]}
            self._table.set(name, json.dumps(given))

    def forget(self, name: str) -> None:
        """The queue is gone."""
        self._table.delete(name)
        self._known.pop(name, None)

    def expiring(self) -> list[str]:
        """Names of the queues with ``x-expires``."""
        found = []
        for item in self._table.items():
            name = item[0].decode() if isinstance(item[0], bytes) else str(item[0])
            arguments = self.get(name)
            if arguments is not None and arguments.expires is not None:
                found.append(name)
        return found
