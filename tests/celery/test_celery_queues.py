"""Queues, bindings and what becomes of temporary ones, through kombu's objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
import pytest
from kombu.exceptions import ChannelError

import celeriac

Connect = Callable[..., kombu.Connection]


def send(channel: Any, queue: str, body: Any, **options: Any) -> None:
    kombu.Producer(channel).publish(body, routing_key=queue, serializer="json", **options)


def take(channel: Any, queue: str) -> Any:
    message = channel.basic_get(queue, no_ack=True)
    return None if message is None else message.payload


def test_declaring_tells_the_number_of_ready_messages(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    assert channel.queue_declare("q") == ("q", 0, 0)
    for number in range(3):
        send(channel, "q", number)
    held = channel.basic_get("q")
    assert channel.queue_declare("q", passive=True) == ("q", 2, 0)
    assert channel.queue_purge("q") == 2
    held.reject(requeue=True)
    assert channel.queue_declare("q", passive=True).message_count == 1


def test_a_queue_without_a_name_gets_one(connection: kombu.Connection) -> None:
    name = connection.default_channel.queue_declare().queue
    assert name.startswith("amq.gen-")
    assert connection.default_channel.queue_declare(name, passive=True).queue == name


def test_passive_declarations_check(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    with pytest.raises(ChannelError) as caught:
        channel.queue_declare("missing", passive=True)
    assert caught.value.reply_code == "404"
    with pytest.raises(ChannelError) as caught:
        channel.exchange_declare("missing", passive=True)
    assert caught.value.reply_code == "404"
    channel.exchange_declare("there", "topic")
    channel.exchange_declare("there", passive=True)


def test_deleting_a_queue_takes_its_bindings(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("ex", type="direct")
    queue = kombu.Queue("q", exchange, routing_key="k")(channel)
    queue.declare()
    assert list(channel.list_bindings()) == [("q", "ex", "k")]
    send(channel, "q", 1)
    queue.delete(if_empty=True)
    assert channel._has_queue("q")
    queue.delete()
    assert not channel._has_queue("q")
    assert list(channel.list_bindings()) == []
    queue.delete()


def test_a_queue_in_use_survives_if_unused(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    with kombu.Consumer(channel, [kombu.Queue("q")]):
        channel.queue_delete("q", if_unused=True)
        assert channel._has_queue("q")
    channel.queue_delete("q", if_unused=True)
    assert not channel._has_queue("q")


def test_unbinding_stops_the_flow(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("ex", type="fanout")
    queue = kombu.Queue("q", exchange)(channel)
    queue.declare()
    producer = kombu.Producer(channel, exchange)
    producer.publish(1)
    queue.unbind_from(exchange)
    producer.publish(2)
    assert take(channel, "q") == 1
    assert take(channel, "q") is None


def test_bindings_of_another_connection_count(connect: Connect) -> None:
    exchange = kombu.Exchange("ex", type="topic")
    consumer, publisher = connect().default_channel, connect().default_channel
    kombu.Queue("q1", exchange, routing_key="a.#")(consumer).declare()
    producer = kombu.Producer(publisher, exchange)
    producer.publish("both", routing_key="a.b")
    kombu.Queue("q2", exchange, routing_key="*.b")(consumer).declare()
    producer.publish("second", routing_key="a.b")
    assert [take(consumer, "q1"), take(consumer, "q1")] == ["both", "second"]
    assert [take(consumer, "q2"), take(consumer, "q2")] == ["second", None]


def test_deleting_an_exchange(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("ex", type="fanout")
    kombu.Queue("q", exchange)(channel).declare()
    channel.exchange_delete("ex", if_unused=True)
    assert channel.get_exchanges() == ["ex"]
    channel.exchange_delete("ex")
    assert channel.get_exchanges() == []
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        channel.basic_publish(channel.prepare_message(b"x"), "ex", "")
    assert channel._has_queue("q")


def test_unroutable_messages_go_to_the_deadletter_queue(connect: Connect) -> None:
    channel = connect(deadletter_queue="lost").default_channel
    kombu.Producer(channel, kombu.Exchange("ex", type="direct")).publish("x", routing_key="none")
    assert take(channel, "lost") == "x"


def test_exclusive_queues_go_with_their_connection(connect: Connect) -> None:
    other = connect().default_channel
    first = connect()
    exchange = kombu.Exchange("ex", type="direct")
    kombu.Queue("mine", exchange, exclusive=True)(first.default_channel).declare()
    assert other._has_queue("mine")
    first.release()
    assert not other._has_queue("mine")
    assert list(other.list_bindings()) == []


def test_a_binding_to_a_vanished_queue_is_cleared_by_the_publisher(
    connection: kombu.Connection, store_url: str
) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("ex", type="fanout")
    kombu.Queue("gone", exchange)(channel).declare()
    kombu.Queue("here", exchange)(channel).declare()
    celeriac.connect(store_url).queue("gone").delete()
    kombu.Producer(channel, exchange).publish("x")
    assert list(channel.list_bindings()) == [("here", "ex", "")]
    assert not channel._has_queue("gone")
    assert take(channel, "here") == "x"


def test_event_queues_are_bounded(connection: kombu.Connection, store_url: str) -> None:
    from celeriac.celery.broker import TRANSIENT_LENGTH

    channel = connection.default_channel
    exchange = kombu.Exchange("celeryev", type="topic")
    queue = kombu.Queue(
        "celeryev.x", exchange, "#", auto_delete=True, exclusive=True, expires=60, message_ttl=600
    )
    queue(channel).declare()
    message = channel.prepare_message(b"x")
    for _ in range(TRANSIENT_LENGTH + 10):
        channel.basic_publish(message, "celeryev", "worker.heartbeat")
    assert channel.queue_declare("celeryev.x", passive=True).message_count == TRANSIENT_LENGTH


def test_broadcast_queues_are_bound_to_their_process(connection: kombu.Connection) -> None:
    from kombu.common import Broadcast

    channel = connection.default_channel
    queue = Broadcast("news")(channel)
    queue.declare()
    declared = channel.broker.declaration(queue.name)
    assert declared is not None
    assert declared.transient
    assert declared.bounded
    kombu.Producer(channel, queue.exchange).publish("x")
    assert take(channel, queue.name) == "x"


def test_every_kind_of_temporary_queue_on_a_fanout_exchange_is_bounded(
    connection: kombu.Connection,
) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("ex", type="fanout")
    kinds: list[dict[str, Any]] = [{"exclusive": True}, {"auto_delete": True}, {"expires": 5}]
    for number, kind in enumerate(kinds):
        kombu.Queue(f"q{number}", exchange, **kind)(channel).declare()
    bounded = [channel.broker.declaration(f"q{number}").bounded for number in range(3)]
    assert bounded == [True, True, False]


def test_a_publisher_does_not_bring_a_vanished_queue_back(
    connection: kombu.Connection, store_url: str
) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("reply", type="direct")
    kombu.Queue("client", exchange, "k", exclusive=True, message_ttl=60)(channel).declare()
    producer = kombu.Producer(channel, exchange)
    producer.publish("kept", routing_key="k")
    store = celeriac.connect(store_url)
    store.queue("client").delete()
    producer.publish("lost", routing_key="k")
    assert not store.has_queue("client")
    assert store.table("celeriac.celery.queues").items() == []


def test_a_consumer_of_a_deleted_queue_ends_quietly(connect: Connect, store_url: str) -> None:
    connection, other = connect(), connect()
    got: list[Any] = []
    queue = kombu.Queue("mine", exclusive=True)
    declared = queue(other.default_channel)
    declared.declare()
    with kombu.Consumer(connection.default_channel, [queue], on_message=got.append):
        other.release()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
    assert not celeriac.connect(store_url).has_queue("mine")
