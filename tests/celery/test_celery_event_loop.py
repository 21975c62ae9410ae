"""Consuming in kombu's event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from kombu.asynchronous.hub import Hub

from celeriac.celery import transport as transport_module

Connect = Callable[..., kombu.Connection]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def run(hub: Hub, until: Callable[[], bool], seconds: float = 60) -> None:
    """Turn the loop until something is true."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "the loop never got there"
        hub.run_once()


def send(connection: kombu.Connection, queue: str, *bodies: Any) -> None:
    for body in bodies:
        kombu.Producer(connection.default_channel).publish(body, routing_key=queue)


def consumer(connection: kombu.Connection, queue: str, got: list[Any], **options: Any) -> Any:
    def on_message(message: Any) -> None:
        got.append(message.payload)
        message.ack()

    made = connection.Consumer([kombu.Queue(queue)], on_message=on_message, **options)
    made.consume()
    return made


def test_messages_arrive(connect: Connect, hub: Hub) -> None:
    connection, other = connect(), connect()
    got: list[Any] = []
    consumer(connection, "q", got)
    send(other, "q", 1, 2)
    connection.register_with_event_loop(hub)
    run(hub, lambda: len(got) == 2)
    timer = threading.Timer(0.2, send, (other, "q", 3))
    timer.start()
    run(hub, lambda: len(got) == 3)
    timer.join()


def test_an_idle_loop_is_not_woken(
    connection: kombu.Connection, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Any] = []
    consumer(connection, "q", got)
    connection.register_with_event_loop(hub)
    calls: list[str] = []
    for name in ("_on_readable", "_on_nudge", "_deliver"):
        monkeypatch.setattr(
            connection.transport, name, lambda *args, name=name, **kw: calls.append(name)
        )
    poller = connection.transport._poller
    events: list[Any] = []
    end = time.monotonic() + 3
    while time.monotonic() < end:
        hub.run_once()  # sleeps a second when nothing happens
        events += hub.poller.poll(0) or []
    assert poller.armed
    assert calls == []
    assert events == []


def test_more_than_one_turn_can_take_arrives_without_a_pause(
    connection: kombu.Connection, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "TURN_SECONDS", 60)  # only the number ends a turn
    number = transport_module.TURN_BATCH * 3 + 5
    got: list[Any] = []
    send(connection, "q", *range(number))
    consumer(connection, "q", got)
    connection.register_with_event_loop(hub)
    turns = 0
    while len(got) < number:
        hub.run_once()
        turns += 1
        assert turns < 20
    assert got == list(range(number))


def test_a_full_channel_leaves_the_others_consuming(connect: Connect, hub: Hub) -> None:
    connection, other = connect(), connect()
    held: list[Any] = []
    tasks = connection.channel()
    control = connection.channel()
    full = kombu.Consumer(tasks, [kombu.Queue("tasks")], on_message=held.append, prefetch_count=1)
    full.consume()
    got: list[Any] = []
    free = kombu.Consumer(control, [kombu.Queue("control")], on_message=got.append, no_ack=True)
    free.consume()
    connection.register_with_event_loop(hub)
    send(other, "tasks", 1, 2)
    run(hub, lambda: len(held) == 1)
    for _ in range(2):
        hub.run_once()
    send(other, "control", "ping")
    run(hub, lambda: len(got) == 1)
    assert len(held) == 1
    held[0].ack()
    run(hub, lambda: len(held) == 2)


def test_what_a_full_channel_cannot_take_goes_to_another_consumer(
    connect: Connect, hub: Hub
) -> None:
    busy, idle, other = connect(), connect(), connect()
    held: list[Any] = []
    stuck = busy.Consumer([kombu.Queue("q")], on_message=held.append, prefetch_count=1)
    stuck.consume()
    got: list[Any] = []
    consumer(idle, "q", got)
    busy.register_with_event_loop(hub)
    send(other, "q", 1)
    run(hub, lambda: len(held) == 1)
    hub.run_once()
    idle.register_with_event_loop(hub)
    for number in range(2, 6):
        send(other, "q", number)
        run(hub, lambda number=number: got[-1:] == [number])
    assert len(held) == 1


def test_an_ack_from_a_thread_goes_on_at_once(connection: kombu.Connection, hub: Hub) -> None:
    held: list[Any] = []
    full = connection.Consumer([kombu.Queue("q")], on_message=held.append, prefetch_count=1)
    full.consume()
    send(connection, "q", 1, 2)
    connection.register_with_event_loop(hub)
    run(hub, lambda: len(held) == 1)
    hub.run_once()  # it knows now that the channel is full
    hub.call_later(3600, print)  # with a far timer the loop sleeps for ten seconds on its own
    timer = threading.Timer(0.1, held[0].ack)
    timer.start()
    start = time.monotonic()
    run(hub, lambda: len(held) == 2)
    timer.join()
    assert time.monotonic() - start < 8, "it slept until the loop woke by itself"


def test_delayed_messages_wake_the_loop(connect: Connect, hub: Hub) -> None:
    from datetime import datetime, timedelta, timezone

    connection, other = connect(), connect()
    got: list[Any] = []
    consumer(connection, "q", got)
    connection.register_with_event_loop(hub)
    hub.run_once()
    eta = datetime.now(timezone.utc) + timedelta(seconds=1.5)
    kombu.Producer(other.default_channel).publish(
        "later", routing_key="q", headers={"eta": eta.isoformat()}
    )
    run(hub, lambda: bool(got))
    assert datetime.now(timezone.utc) >= eta


def test_registering_again_after_a_reset(connect: Connect, hub: Hub) -> None:
    connection, other = connect(), connect()
    got: list[Any] = []
    consumer(connection, "q", got)
    connection.register_with_event_loop(hub)
    hub.run_once()
    hub.reset()
    connection.register_with_event_loop(hub)
    connection.register_with_event_loop(hub)
    hub._loop = None
    send(other, "q", 1)
    run(hub, lambda: got == [1])
    hub.run_once()
    assert got == [1]


def test_a_closed_connection_leaves_the_loop(connect: Connect, hub: Hub) -> None:
    connection, other = connect(), connect()
    got: list[Any] = []
    consumer(connection, "q", got)
    connection.register_with_event_loop(hub)
    hub.run_once()
    connection.release()
    assert not hub.readers
    assert not hub.on_tick
    fresh = connect()
    consumer(fresh, "q", got)
    fresh.register_with_event_loop(hub)
    send(other, "q", 1)
    run(hub, lambda: got == [1])


def test_a_consumer_added_later_is_served(connection: kombu.Connection, hub: Hub) -> None:
    first: list[Any] = []
    second: list[Any] = []
    consumer(connection, "q1", first)
    connection.register_with_event_loop(hub)
    hub.run_once()
    added = consumer(connection, "q2", second)
    send(connection, "q2", "x")
    run(hub, lambda: second == ["x"])
    added.cancel()
    send(connection, "q2", "y")
    send(connection, "q1", "z")
    run(hub, lambda: first == ["z"])
    assert second == ["x"]
