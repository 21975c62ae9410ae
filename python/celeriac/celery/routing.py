"""Exchanges and bindings, shared by every process of the store.

kombu's virtual transports keep bindings in each process, so that one process does not see what
another one bound. Here they stand in a table of the store, one entry per exchange: its type, its
attributes and the whole list of its bindings, as JSON. A change is a read, an edit and a
``compare_and_set``, repeated until nobody came in between. A reader keeps what it has parsed
together with the entry's change count and parses again only when the count has moved, so routing
a message to known queues costs one look at the count and one at a dictionary.

Crash-safe: an entry is replaced as a whole or not at all. A process that dies between creating a
queue and binding it leaves an unbound queue; one that dies after deleting a queue and before
unbinding it leaves a binding to nothing, which the next publisher that meets it removes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError
from kombu.transport.virtual.base import NotEquivalentError

if TYPE_CHECKING:
    from celeriac.table import Table

__all__ = ["EXCHANGE_TYPES", "Exchange", "NotEquivalent", "Routes", "not_found", "topic_matches"]

#: The exchange types that route here.
EXCHANGE_TYPES = frozenset({"direct", "topic", "fanout"})

#: Names that AMQP declares beforehand.
PREDECLARED = {"amq.direct": "direct", "amq.topic": "topic", "amq.fanout": "fanout"}

TABLE = "celeriac.celery.exchanges"


class NotEquivalent(ChannelError, NotEquivalentError):
    """The exchange exists and is of another type (AMQP's PRECONDITION_FAILED)."""


def not_found(kind: str, name: str, method: str) -> ChannelError:
    """The error that AMQP raises for a missing exchange or queue."""
    return ChannelError(
        f"NOT_FOUND - no {kind} {name!r} in this store",
        (50, 10),
        f"Channel.{method}",
        "404",
    )


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic binding takes a routing key.

    Words are separated by dots; ``*`` stands for one word and ``#`` for any number of words,
    none included.
    """
    words = routing_key.split(".") if routing_key else []
    globs = pattern.split(".") if pattern else []
    word = glob = 0
    star, resume = -1, 0
    while word < len(words):
        if glob < len(globs) and globs[glob] == "#":
            star, resume = glob, word
            glob += 1
        elif glob < len(globs) and globs[glob] in ("*", words[word]):
            glob += 1
            word += 1
        elif star >= 0:  # let the last '#' take one word more, and try again behind it
            resume += 1
            word, glob = resume, star + 1
        else:
            return False
    return all(rest == "#" for rest in globs[glob:])


class Exchange:
    """One exchange as it was at some change count. Not changed after it was parsed."""

    __slots__ = ("_routes", "arguments", "auto_delete", "bindings", "count", "durable", "type")

    def __init__(self, count: int, fields: dict[str, Any]) -> None:
        self.count = count
        self.type: str = fields["type"]
        self.durable: bool = fields["durable"]
        self.auto_delete: bool = fields["auto_delete"]
        self.arguments: dict[str, Any] = fields["arguments"]
        self.bindings: list[tuple[str, str]] = [(key, queue) for key, queue in fields["bindings"]]
        self._routes: dict[str, tuple[str, ...]] = {}

    def route(self, routing_key: str) -> tuple[str, ...]:
        """The queues for a routing key, each once, in the order of their bindings."""
        try:
            return self._routes[routing_key]
        except KeyError:
            pass
        if self.type == "fanout":
            found = (queue for _, queue in self.bindings)
        elif self.type == "topic":
            found = (q for pattern, q in self.bindings if topic_matches(pattern, routing_key))
        else:
            found = (queue for key, queue in self.bindings if key == routing_key)
        queues = tuple(dict.fromkeys(found))
        if len(self._routes) < 1024:  # routing keys can be data; don't let them fill memory
            self._routes[routing_key] = queues
        return queues


class Routes:
    """The table of exchanges. Thread-safe, fork-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, Exchange] = {}

    def get(self, name: str) -> Exchange | None:
        """The exchange as it is now, or None."""
        count = self._table.change_count(name)
        exchange = self._known.get(name)
        if exchange is not None and exchange.count == count:
            return exchange
        value = self._table.get(name)
        if value is None:
            self._known.pop(name, None)
            return None
        # The count was read before the value: if a change came in between, the count is the
        # older one and the next call reads again.
        exchange = self._known[name] = Exchange(count, json.loads(value))
        return exchange

    def declare(
        self,
        name: str,
        type: str,
        durable: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Create an exchange, or check that the one that exists is of the same type.

        Raises:
            ChannelError: the type is not one that routes here.
            NotEquivalent: the exchange exists with another type.
        """
        if type not in EXCHANGE_TYPES:
            raise ChannelError(
                f"COMMAND_INVALID - unknown exchange type {type!r}: celeriac knows "
                f"{', '.join(sorted(EXCHANGE_TYPES))}",
                (40, 10),
                "Channel.exchange_declare",
                "503",
            )
        fields = {
            "type": type,
            "durable": bool(durable),
            "auto_delete": bool(auto_delete),
            "arguments": arguments or {},
            "bindings": [],
        }
        while True:
            known = self.get(name)
            if known is not None:
                if known.type != type:
                    raise NotEquivalent(
                        f"PRECONDITION_FAILED - exchange {name!r} is of type {known.type!r} "
                        f"in this store and can't be declared as {type!r}",
                        (40, 10),
                        "Channel.exchange_declare",
                        "406",
                    )
                return
            if self._table.compare_and_set(name, 0, json.dumps(fields)):
                return

    def delete(self, name: str) -> None:
        """Forget an exchange and its bindings. Its queues stay."""
        self._table.delete(name)
        self._known.pop(name, None)

    def bind(self, name: str, routing_key: str, queue: str, always: bool = False) -> None:
        """Add a binding; nothing happens when it is there already.

        With ``always`` the entry is written all the same. A queue that comes and goes with its
        process asks for it: somebody who found an earlier queue of that name gone may be about to
        remove this very binding, and the write makes him look again (see :meth:`forget_queue`).

        Raises:
            ChannelError: there is no such exchange.
        """
        if name in PREDECLARED and self.get(name) is None:
            self.declare(name, PREDECLARED[name], durable=True)
        known = self.get(name)
        if not always and known is not None and (routing_key, queue) in known.bindings:
            return
        binding = [routing_key, queue]

        def add(old: list[list[str]]) -> list[list[str]]:
            return old if binding in old else [*old, binding]

        if not self._edit(name, add, always):
            raise not_found("exchange", name, "queue_bind")

    def unbind(self, name: str, routing_key: str, queue: str) -> None:
        """Remove one binding, if it is there."""
        binding = [routing_key, queue]
        self._edit(name, lambda old: [each for each in old if each != binding])

    def forget_queue(
        self,
        queue: str,
        exchange: str | None = None,
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Remove every binding of a queue, in one exchange or in all.

        ``unless`` is asked right before each write; when it says yes, for instance because the
        queue is back, nothing more is removed and the answer is False.
        """
        for name in [exchange] if exchange is not None else self.names():
            known = self.get(name)
            if known is None or all(bound != queue for _, bound in known.bindings):
                continue
            kept = False

            def remove(old: list[list[str]]) -> list[list[str]]:
                nonlocal kept
                kept = unless()
                return old if kept else [each for each in old if each[1] != queue]

            self._edit(name, remove)
            if kept:
                return False
        return True

    def bindings(self) -> Iterator[tuple[str, str, str]]:
        """Every binding as (queue, exchange, routing key)."""
        for name, exchange in self._all():
            for routing_key, queue in exchange.bindings:
                yield queue, name, routing_key

    def names(self) -> list[str]:
        """The exchanges that exist."""
        return [name for name, _ in self._all()]

    def _all(self) -> list[tuple[str, Exchange]]:
        found = []
        for item in self._table.items():
            name = item[0].decode() if isinstance(item[0], bytes) else item[0]
            exchange = self.get(name)
            if exchange is not None:
                found.append((name, exchange))
        return found

    def _edit(
        self,
        name: str,
        change: Callable[[list[list[str]]], list[list[str]]],
        always: bool = False,
    ) -> bool:
        """Replace an exchange's bindings until no one came in between; False when it is gone."""
        while True:
            value, version = self._table.get_versioned(name)
            if value is None:
                return False
            fields = json.loads(value)
            bindings = change(fields["bindings"])
            if bindings == fields["bindings"] and not always:
                return True
            fields["bindings"] = bindings
            if self._table.compare_and_set(name, version, json.dumps(fields)):
                return True
