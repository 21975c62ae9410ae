"""Forked children and their parent's connections."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from kombu.asynchronous.hub import Hub

import celeriac

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

Connect = Callable[..., kombu.Connection]


def in_child(work: Callable[[], None]) -> None:
    """Run something in a forked child and fail when it does."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the child failed; see its traceback"


def send(connection: kombu.Connection, body: Any, queue: str = "q") -> None:
    kombu.Producer(connection.default_channel).publish(body, routing_key=queue)


def take(connection: kombu.Connection, queue: str = "q") -> Any:
    message = connection.default_channel.basic_get(queue, no_ack=True)
    return None if message is None else message.payload


@pytest.mark.parametrize("how", ["release", "collect", "exit"])
def test_a_child_does_not_put_back_what_its_parent_holds(connect: Connect, how: str) -> None:
    parent = connect()
    send(parent, "held")
    held = parent.default_channel.basic_get("q")

    def work() -> None:
        if how == "release":
            parent.release()
        elif how == "collect":
            parent.collect()

    in_child(work)
    assert take(connect()) is None
    held.reject(requeue=True)
    assert take(connect()) == "held"


def test_a_child_cannot_settle_its_parents_messages(connect: Connect) -> None:
    parent = connect()
    send(parent, "held")
    held = parent.default_channel.basic_get("q")
    in_child(held.ack)
    held.reject(requeue=True)
    assert take(connect()) == "held"


def test_a_child_may_send_through_an_inherited_connection(connect: Connect) -> None:
    parent = connect()
    send(parent, "from the parent")
    in_child(lambda: send(parent, "from the child"))
    assert [take(parent), take(parent)] == ["from the parent", "from the child"]


def test_a_child_that_consumes_and_dies_has_its_messages_redelivered(connect: Connect) -> None:
    parent = connect()
    send(parent, "one")

    def work() -> None:
        own = connect()
        assert own.default_channel.basic_get("q").payload == "one"

    in_child(work)
    celeriac.connect(parent.transport.broker.store.url).recover()
    message = parent.default_channel.basic_get("q")
    assert message.payload == "one"
    assert message.delivery_info["redelivered"] is True
    message.ack()


def test_exclusive_queues_stay_when_a_child_ends(connect: Connect) -> None:
    parent = connect()
    kombu.Queue("mine", exclusive=True)(parent.default_channel).declare()
    in_child(parent.release)
    in_child(parent.collect)
    assert parent.default_channel._has_queue("mine")


def test_a_child_leaves_the_parents_event_loop_alone(connect: Connect) -> None:
    parent, other = connect(), connect()
    got: list[Any] = []

    def on_message(message: Any) -> None:
        got.append(message.payload)
        message.ack()

    hub = Hub()
    consumer = parent.Consumer([kombu.Queue("q")], on_message=on_message)
    consumer.consume()
    parent.register_with_event_loop(hub)
    hub.run_once()
    in_child(parent.collect)
    in_child(parent.release)
    send(other, "still here")
    for _ in range(20):
        hub.run_once()
        if got:
            break
    assert got == ["still here"]
    hub.close()


def test_a_child_consumes_on_its_own(connect: Connect) -> None:
    parent = connect()
    with kombu.Consumer(parent.default_channel, [kombu.Queue("q")]):
        with pytest.raises(TimeoutError):
            parent.drain_events(timeout=0.01)  # the parent has its waiter now

        def work() -> None:
            own = connect()
            got: list[Any] = []
            with kombu.Consumer(own.default_channel, [kombu.Queue("c")], on_message=got.append):
                send(own, "x", "c")
                own.drain_events(timeout=20)
            assert got[0].payload == "x"
            got[0].ack()

        in_child(work)
