"""In kombu's event loop an acknowledgement brings the next message in the same turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from kombu.asynchronous.hub import Hub

Connect = Callable[..., kombu.Connection]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A loop that never sleeps: something can always be read."""
    hub = Hub()
    descriptor = os.eventfd(1)
    hub.add_reader(descriptor, lambda: None)
    yield hub
    hub.close()
    os.close(descriptor)


def send(connection: kombu.Connection, queue: str, *bodies: Any) -> None:
    for body in bodies:
        kombu.Producer(connection.default_channel).publish(body, routing_key=queue)


def run(hub: Hub, until: Callable[[], bool]) -> None:
    for _ in range(1000):
        if until():
            return
        hub.run_once()
    raise AssertionError("the loop never got there")


class Full:
    """A consumer in a loop that holds as many messages as it may."""

    def __init__(self, connection: kombu.Connection, hub: Hub, limit: int = 1) -> None:
        self.messages: list[Any] = []
        consumer = connection.Consumer(
            [kombu.Queue("q")], on_message=self.take, prefetch_count=limit
        )
        consumer.consume()
        connection.register_with_event_loop(hub)
        run(hub, lambda: len(self.messages) == limit)
        hub.run_once()  # it knows now that it is full
        self.nudges = 0
        poller = connection.transport._poller
        nudge = poller.nudge

        def counted() -> None:
            self.nudges += 1
            nudge()

        poller.nudge = counted

    def take(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[Any]:
        return [message.payload for message in self.messages]


def ready(connection: kombu.Connection) -> int:
    return int(connection.default_channel.queue_declare("q").message_count)


def test_the_next_message_comes_with_the_acknowledgement(
    connection: kombu.Connection, hub: Hub
) -> None:
    send(connection, "q", *range(6))
    full = Full(connection, hub, limit=2)
    for number in range(2):
        hub.call_soon(full.messages[number].ack)
    seen: list[int] = []
    hub.on_tick.clear()  # what Celery's pool does in a tick comes after this, or not at all
    hub.on_tick.add(lambda: seen.append(len(full.messages)))
    hub.run_once()
    assert seen == [4]
    assert full.bodies == [0, 1, 2, 3]
    assert full.nudges == 0


def test_all_arrive_in_order_and_no_wake_up_is_needed(
    connection: kombu.Connection, hub: Hub
) -> None:
    send(connection, "q", *range(50))
    full = Full(connection, hub, limit=4)
    for number in range(50):
        run(hub, lambda number=number: len(full.messages) > number)
        hub.call_soon(full.messages[number].ack)
        hub.run_once()
        assert len(full.messages) == min(number + 5, 50)
    assert full.bodies == list(range(50))
    assert full.nudges == 0
    hub.run_once()
    send(connection, "q", "later")
    run(hub, lambda: full.bodies[-1] == "later")


def test_no_more_than_the_limit(connection: kombu.Connection, hub: Hub) -> None:
    send(connection, "q", *range(10))
    full = Full(connection, hub, limit=3)
    connection.default_channel.qos.prefetch_count = 2
    hub.call_soon(full.messages[0].ack)
    hub.run_once()
    assert len(full.messages) == 3
    hub.call_soon(full.messages[1].ack)
    hub.run_once()
    assert full.bodies == [0, 1, 2, 3]


def test_a_control_command_goes_before_the_next_message(connect: Connect, hub: Hub) -> None:
    connection = connect()
    send(connection, "q", 1, 2)
    full = Full(connection, hub)
    heard: list[Any] = []
    control = kombu.Consumer(
        connection.channel(),
        [kombu.Queue("control")],
        no_ack=True,
        on_message=lambda message: heard.append((message.payload, len(full.messages))),
    )
    control.consume()
    hub.run_once()
    send(connection, "control", "revoke")
    hub.call_soon(full.messages[0].ack)
    hub.run_once()
    assert heard == [("revoke", 1)]
    run(hub, lambda: full.bodies == [1, 2])


def test_what_a_consumer_raises_comes_out_of_the_loop(
    connection: kombu.Connection, hub: Hub
) -> None:
    send(connection, "q", 1, 2, 3)
    full = Full(connection, hub)

    def refuse(message: Any) -> None:
        full.messages.append(message)
        raise LookupError("not this one")

    full.take = refuse  # type: ignore[method-assign]
    for subscription in connection.transport._subscriptions:
        subscription.callback = refuse
    acked: list[str] = []

    def ack() -> None:
        full.messages[0].ack()
        acked.append("acknowledged, whatever became of the next one")

    hub.call_soon(ack)
    with pytest.raises(LookupError, match="not this one"):
        hub.run_once()
    assert acked
    assert len(full.messages) == 2
    assert connection.default_channel.broker.queue("q").counts()[:3] == (1, 0, 1)


def test_an_acknowledgement_inside_of_the_callback_does_not_go_deeper(
    connection: kombu.Connection, hub: Hub
) -> None:
    send(connection, "q", *range(40))
    full = Full(connection, hub)
    depth, deepest, got = 0, 0, []

    def take(message: Any) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        got.append(message.payload)
        message.ack()
        depth -= 1

    for subscription in connection.transport._subscriptions:
        subscription.callback = take
    hub.call_soon(full.messages[0].ack)
    run(hub, lambda: len(got) == 39)
    assert got == list(range(1, 40))
    assert deepest == 1


def test_rejected_for_another_it_does_not_come_back_at_once(
    connection: kombu.Connection, hub: Hub
) -> None:
    send(connection, "q", 1)
    full = Full(connection, hub)
    returned: list[int] = []

    def give_back() -> None:
        full.messages[0].requeue()
        returned.append(ready(connection))

    hub.call_soon(give_back)
    hub.run_once()
    assert returned == [1]


def test_a_loop_that_closes_gets_no_more(connection: kombu.Connection, hub: Hub) -> None:
    send(connection, "q", 1, 2)
    full = Full(connection, hub)
    hub.call_soon(full.messages[0].ack)
    hub.reset()  # as Celery does when its connection failed; it makes up for the acknowledgements
    assert full.bodies == [1]
    assert connection.default_channel.broker.queue("q").counts()[:3] == (1, 0, 0)


def test_a_cancelled_consumer_gets_no_more(connection: kombu.Connection, hub: Hub) -> None:
    send(connection, "q", *range(4))
    full = Full(connection, hub, limit=2)
    (tag,) = list(connection.default_channel._subscriptions)

    def ack_cancel_ack() -> None:
        full.messages[0].ack()
        connection.default_channel.basic_cancel(tag)
        full.messages[1].ack()

    hub.call_soon(ack_cancel_ack)
    hub.run_once()
    assert full.bodies == [0, 1, 2]
    assert ready(connection) == 1
