"""Send requests over a few connections, take the next one of the list whenever one is answered.

Each connection is closed after `REQUESTS_PER_CONNECTION` and opened again, as a proxy in front of
gunicorn does it, so that the requests spread over all web workers.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..plan import LOGIN, PRICE, PRODUCT, Request
from . import messages
from .tally import Tally

REQUESTS_PER_CONNECTION = 25
ANSWER_SECONDS = 30.0
FAILURES_TO_STOP = 200
TICK = 0.25


@dataclass
class _Connection:
    """A connection and the request under way on it."""

    socket: socket.socket
    index: int = -1
    request: Request = ("", 0, 0)
    sent_at: float = 0.0
    known_version: int = 0
    sent: int = 0
    received: bytes = b""


class Driver:
    """Drives one server; sessions and known product versions last over several runs."""

    def __init__(self, address: tuple[str, int], connections: int) -> None:
        self._address = address
        self._connections = connections
        self._sessions: dict[int, str] = {}
        self._versions: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, requests: list[Request], seconds: float, tick: Callable[[Tally], None]) -> Tally:
        """Send `requests` until they or the `seconds` are used up, and wait for the last answers.

        `tick` is called about four times a second. A request that gets no answer within 30 s, or a
        broken one, counts as failed.
        """
        tally = Tally(len(requests))
        queue = iter(enumerate(requests))
        end = tally.began + seconds
        for _ in range(min(self._connections, len(requests))):
            self._next(None, queue, end, tally)
        next_tick = tally.began
        while self._selector.get_map():
            for key, _ in self._selector.select(TICK):
                self._receive(key.data, queue, end, tally)
            now = time.perf_counter()
            if now >= next_tick:
                next_tick = now + TICK
                tick(tally)
                self._give_up(now - ANSWER_SECONDS, tally)
        tally.finish()
        return tally

    def _connect(self) -> _Connection:
        connection = socket.create_connection(self._address, timeout=ANSWER_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Connection(connection)

    def _next(
        self,
        connection: _Connection | None,
        queue: Iterator[tuple[int, Request]],
        end: float,
        tally: Tally,
    ) -> None:
        """Send the next request, or close the connection when there is none or the time is up."""
        if connection and connection.sent >= REQUESTS_PER_CONNECTION:
            connection.socket.close()
            connection = None
        while time.perf_counter() < end and len(tally.failed) < FAILURES_TO_STOP:
            entry = next(queue, None)
            if entry is None:
                break
            try:
                connection = connection or self._connect()
                self._send(connection, *entry)
                return
            except OSError:
                tally.fail(*entry, 0.0, 0)
                if connection:
                    connection.socket.close()
                connection = None
        if connection:
            connection.socket.close()

    def _send(self, connection: _Connection, index: int, request: Request) -> None:
        kind, argument, customer = request
        message = messages.encode(request, self._sessions.get(customer, ""))
        connection.index, connection.request = index, request
        connection.known_version = self._versions.get(argument, 0) if kind == PRODUCT else 0
        connection.sent += 1
        connection.received = b""
        connection.sent_at = time.perf_counter()
        connection.socket.sendall(message)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _receive(
        self,
        connection: _Connection,
        queue: Iterator[tuple[int, Request]],
        end: float,
        tally: Tally,
    ) -> None:
        try:
            data = connection.socket.recv(65536)
            connection.received += data
            answer = messages.decode(connection.received)
        except (OSError, ValueError, IndexError):
            data, answer = b"", None
        if answer is None and data:
            return
        self._selector.unregister(connection.socket)
        took = time.perf_counter() - connection.sent_at
        if answer is None:
            tally.fail(connection.index, connection.request, took, 0)
            connection.sent = REQUESTS_PER_CONNECTION  # this connection is of no more use
        else:
            tally.add(connection.index, connection.request, took, answer, connection.known_version)
            self._remember(connection.request, answer)
        self._next(connection, queue, end, tally)

    def _remember(self, request: Request, answer: messages.Answer) -> None:
        kind, argument, customer = request
        if kind == LOGIN and answer.session:
            self._sessions[customer] = answer.session
        elif kind == PRICE and answer.version:
            self._versions[argument] = max(answer.version, self._versions.get(argument, 0))

    def _give_up(self, sent_before: float, tally: Tally) -> None:
        for key in list(self._selector.get_map().values()):
            connection: _Connection = key.data
            if connection.sent_at < sent_before:
                self._selector.unregister(connection.socket)
                connection.socket.close()
                tally.fail(connection.index, connection.request, ANSWER_SECONDS, 0)
