"""Publishing and consuming through kombu's objects."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import kombu
import pytest

import celeriac
from celeriac.celery import transport

Connect = Callable[..., kombu.Connection]


def send(channel: Any, queue: str, body: Any, **options: Any) -> None:
    kombu.Producer(channel).publish(body, routing_key=queue, serializer="json", **options)


def take(channel: Any, queue: str, no_ack: bool = True) -> Any:
    message = channel.basic_get(queue, no_ack=no_ack)
    return None if message is None else message.payload


def test_what_one_connection_sends_another_receives(connect: Connect) -> None:
    send(
        connect().default_channel, "q", {"n": 1}, headers={"h": "v"}, correlation_id="c", priority=4
    )
    message = connect().default_channel.basic_get("q")
    assert message.payload == {"n": 1}
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.headers == {"h": "v"}
    assert message.properties["correlation_id"] == "c"
    assert message.properties["priority"] == 4
    assert message.delivery_info == {"exchange": "", "routing_key": "q", "redelivered": False}
    assert not message.acknowledged
    message.ack()


def test_bytes_are_not_encoded_on_the_way(connection: kombu.Connection, store_url: str) -> None:
    body = bytes(range(256)) * 64
    producer = kombu.Producer(connection.default_channel)
    producer.publish(body, routing_key="raw", content_type="application/data")
    native = celeriac.connect(store_url).queue("raw").get(timeout=0)
    assert native is not None
    assert native.body.endswith(body)
    assert len(native.body) < len(body) + 300
    native.nack()
    message = connection.default_channel.basic_get("raw", no_ack=True)
    assert message.body == body


def test_compressed_messages_arrive(connection: kombu.Connection) -> None:
    send(connection.default_channel, "q", ["x"] * 1000, compression="zlib")
    assert take(connection.default_channel, "q") == ["x"] * 1000


def test_foreign_bytes_reach_the_consumer(connection: kombu.Connection, store_url: str) -> None:
    celeriac.connect(store_url).queue("q").put(b"not a frame")
    message = connection.default_channel.basic_get("q")
    assert message.body == b"not a frame"
    message.reject()
    assert take(connection.default_channel, "q") is None


def test_acknowledged_is_gone_and_rejected_comes_back_marked(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    send(channel, "q", "one")
    message = channel.basic_get("q")
    message.reject(requeue=True)
    again = channel.basic_get("q")
    assert again.payload == "one"
    assert again.delivery_info["redelivered"] is True
    assert again.delivery_tag != message.delivery_tag
    again.ack()
    assert take(channel, "q") is None
    assert len(channel.qos._delivered) == 0


def test_rejected_without_requeue_is_gone(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    send(channel, "q", "one")
    channel.basic_get("q").reject()
    assert take(channel, "q") is None


def test_multiple_acknowledges_what_came_before(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for number in range(4):
        send(channel, "q", number)
    messages = [channel.basic_get("q") for _ in range(4)]
    messages[2].ack(multiple=True)
    channel.basic_recover(requeue=True)
    assert take(channel, "q") == 3
    assert take(channel, "q") is None


def test_closing_a_channel_puts_messages_back_in_order(connect: Connect) -> None:
    channel = connect().channel()
    for number in range(3):
        send(channel, "q", number)
    kept = [channel.basic_get("q") for _ in range(3)]
    other = connect().default_channel
    assert take(other, "q") is None
    channel.close()
    assert [take(other, "q") for _ in range(4)] == [0, 1, 2, None]
    del kept


def test_releasing_a_connection_puts_messages_back(connect: Connect) -> None:
    first = connect()
    send(first.default_channel, "q", "one")
    message = first.default_channel.basic_get("q")
    first.release()
    other = connect().default_channel
    assert take(other, "q") == "one"
    message.channel.basic_ack(message.delivery_tag)  # too late, and nobody is hurt


def test_collecting_a_connection_puts_messages_back(connect: Connect) -> None:
    first = connect()
    send(first.default_channel, "q", "one")
    message = first.default_channel.basic_get("q")
    first.collect()
    assert take(connect().default_channel, "q") == "one"
    del message


def test_a_late_ack_does_not_settle_another_delivery(connect: Connect) -> None:
    first, second = connect().channel(), connect().channel()
    send(first, "q", "one")
    late = first.basic_get("q")
    late_tag = late.delivery_tag
    first.basic_reject(late_tag, requeue=True)
    held = second.basic_get("q")
    first.basic_ack(late_tag)
    held.reject(requeue=True)
    assert take(second, "q") == "one"


def test_acknowledging_from_another_thread(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for number in range(50):
        send(channel, "q", number)
    messages = [channel.basic_get("q") for _ in range(50)]
    threads = [threading.Thread(target=message.ack) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    channel.basic_recover(requeue=True)
    assert take(channel, "q") is None


def test_prefetch_limits_what_a_consumer_is_given(
    connection: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TURN_SECONDS", 60)  # one call gives all that may be given
    channel = connection.default_channel
    for number in range(5):
        send(channel, "q", number)
    got: list[Any] = []
    queue = kombu.Queue("q")
    with kombu.Consumer(channel, [queue], on_message=got.append, prefetch_count=2):
        connection.drain_events(timeout=60)
        assert len(got) == 2
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        got[0].ack()
        connection.drain_events(timeout=60)
        assert [message.payload for message in got] == [0, 1, 2]


def test_an_ack_from_a_thread_wakes_a_full_consumer(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for number in range(2):
        send(channel, "q", number)
    got: list[Any] = []
    queue = kombu.Queue("q")
    with kombu.Consumer(channel, [queue], on_message=got.append, prefetch_count=1):
        connection.drain_events(timeout=60)
        timer = threading.Timer(0.2, got[0].ack)
        timer.start()
        connection.drain_events(timeout=30)
        timer.join()
        assert [message.payload for message in got] == [0, 1]


def test_can_consume_is_the_gate(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    send(channel, "q", 1)
    got: list[Any] = []
    with kombu.Consumer(channel, [kombu.Queue("q")], on_message=got.append):
        channel.qos.can_consume = lambda: False
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        del channel.qos.can_consume
        connection.drain_events(timeout=60)
    assert len(got) == 1


def test_consumers_of_several_queues_take_turns(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for number in range(20):
        send(channel, "a", ("a", number))
    send(channel, "b", ("b", 0))
    got: list[Any] = []

    def on_message(message: Any) -> None:
        got.append(message.payload[0])
        message.ack()

    queues = [kombu.Queue("a"), kombu.Queue("b")]
    with kombu.Consumer(channel, queues, on_message=on_message):
        while len(got) < 3:  # a call may deliver one message only, when its turn is over
            connection.drain_events(timeout=60)
    assert "b" in got[:3]


def test_what_is_not_acknowledged_goes_first_but_not_for_ever(
    connection: kombu.Connection,
) -> None:
    """So a revocation that was sent before its task is heard before it."""
    channel = connection.default_channel
    for _ in range(30):
        send(channel, "tasks", "task")
        send(channel, "control", "command")
    got: list[str] = []

    def on_message(message: Any) -> None:
        got.append(message.payload)
        if not message.acknowledged:
            message.ack()

    tasks = kombu.Consumer(channel, [kombu.Queue("tasks")], on_message=on_message)
    control = kombu.Consumer(channel, [kombu.Queue("control")], on_message=on_message, no_ack=True)
    with tasks, control:
        while len(got) < 60:
            connection.drain_events(timeout=60)
    assert got[:10] == ["command"] * 10
    assert got[:30].count("task") >= 1
    assert got.count("task") == 30


def test_without_ack_one_call_delivers_one_message(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for number in range(3):
        send(channel, "q", number)
    got: list[Any] = []
    with kombu.Consumer(channel, [kombu.Queue("q")], on_message=got.append, no_ack=True):
        connection.drain_events(timeout=60)
    assert len(got) == 1
    assert take(channel, "q") == 1


def test_draining_waits_for_a_message_and_no_longer(connect: Connect) -> None:
    connection = connect()
    got: list[Any] = []
    with kombu.Consumer(connection.default_channel, [kombu.Queue("q")], on_message=got.append):
        other = connect().default_channel
        timer = threading.Timer(0.3, send, (other, "q", "late"))
        timer.start()
        start = time.monotonic()
        connection.drain_events(timeout=60)
        timer.join()
        assert time.monotonic() - start < 30
    assert got[0].payload == "late"


def test_draining_nothing_times_out(connection: kombu.Connection) -> None:
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0)
    with kombu.Consumer(connection.default_channel, [kombu.Queue("q")]):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
        assert time.monotonic() - start >= 0.19


def test_the_higher_priority_goes_first(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    for priority in (0, 255, 7, 9, 8, 7, 300):
        send(channel, "q", priority, priority=priority)
    got = [take(channel, "q") for _ in range(7)]
    assert got == [255, 300, 9, 8, 7, 7, 0]


def test_the_redis_sense_of_priority(connect: Connect) -> None:
    channel = connect(priority_order="redis").default_channel
    for priority in (0, 9, 3, 6):
        send(channel, "q", priority, priority=priority)
    assert [take(channel, "q") for _ in range(4)] == [0, 3, 6, 9]


def test_a_message_with_an_eta_waits_in_the_store(
    connection: kombu.Connection, store_url: str
) -> None:
    channel = connection.default_channel
    eta = (datetime.now(timezone.utc) + timedelta(seconds=1)).isoformat()
    send(channel, "q", "later", headers={"eta": eta})
    send(channel, "q", "now")
    counts = celeriac.connect(store_url).queue("q").counts()
    assert (counts.ready, counts.delayed) == (1, 1)
    got: list[Any] = []

    def on_message(message: Any) -> None:
        got.append((message.payload, datetime.now(timezone.utc).isoformat() >= eta))
        message.ack()

    with kombu.Consumer(channel, [kombu.Queue("q")], on_message=on_message):
        while len(got) < 2:
            connection.drain_events(timeout=20)
    assert [payload for payload, _ in got] == ["now", "later"]
    assert got[1][1], "delivered before it was due"


def test_an_expired_message_is_not_delivered(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    send(channel, "q", "short", expiration=0.1)
    send(channel, "q", "long", expiration=600)
    time.sleep(0.2)
    assert take(channel, "q") == "long"
    assert take(channel, "q") is None


def test_the_ttl_of_a_queue_holds_for_every_publisher(connect: Connect) -> None:
    queue = kombu.Queue("q", message_ttl=0.1)
    connect_a, connect_b = connect(), connect()
    queue(connect_a.default_channel).declare()
    send(connect_b.default_channel, "q", "short")
    time.sleep(0.2)
    assert take(connect_a.default_channel, "q") is None


def test_max_length_drops_the_oldest(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    kombu.Queue("q", max_length=3)(channel).declare()
    for number in range(5):
        send(channel, "q", number)
    assert [take(channel, "q") for _ in range(4)] == [2, 3, 4, None]


def test_max_length_can_refuse_instead(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    arguments = {"x-overflow": "reject-publish"}
    kombu.Queue("q", max_length=2, queue_arguments=arguments)(channel).declare()
    send(channel, "q", 1)
    send(channel, "q", 2)
    with pytest.raises(celeriac.QueueFull):
        send(channel, "q", 3)


def test_a_channel_that_is_dropped_does_not_stay_in_memory(connect: Connect) -> None:
    import weakref

    connection = connect()
    connection.connect()
    channel = connection.channel()
    send(channel, "q", 1)
    channel.basic_get("q")
    channel.close()
    alive = weakref.ref(channel)
    del channel
    gc.collect()
    assert alive() is None
