"""Arguments of queues: priorities, times to live, bounds, dead letters, queues that vanish."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from kombu.exceptions import ChannelError, OperationalError
from processes import wait_until

import celeriac

Connect = Callable[..., kombu.Connection]

DLX = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def declare(channel: Any, name: str = "q", **arguments: Any) -> None:
    given = {key.replace("_", "-"): value for key, value in arguments.items()}
    channel.queue_declare(name, arguments=given)


def send(channel: Any, body: Any, queue: str = "q", **options: Any) -> None:
    kombu.Producer(channel).publish(body, routing_key=queue, serializer="json", **options)


def take(channel: Any, queue: str = "q") -> Any:
    message = channel.basic_get(queue)
    if message is not None:
        message.ack()
    return message


def bodies(channel: Any, queue: str = "q") -> list[Any]:
    found = []
    while (message := take(channel, queue)) is not None:
        found.append(message.payload)
    return found


def test_what_kombu_calls_them_arrives(connection: kombu.Connection) -> None:
    queue = kombu.Queue("q", max_priority=9, message_ttl=1.5, expires=60, max_length=7)
    queue(connection.default_channel).declare()
    found = connection.default_channel.broker.arguments.get("q")
    assert (found.max_priority, found.ttl, found.expires, found.max_length) == (9, 1.5, 60.0, 7)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("x-max-priority", 256, "0 to 255"),
        ("x-max-priority", "9", "a whole number"),
        ("x-message-ttl", -1, "0 to"),
        ("x-message-ttl", 1.5, "a whole number"),
        ("x-expires", 0, "1 to"),
        ("x-max-length", True, "a whole number"),
        ("x-overflow", "drop-tail", "one of drop-head"),
        ("x-delivery-limit", -1, "0 to"),
        ("x-keep-done", 5, "two numbers, count and seconds"),
        ("x-keep-failed", [0, 5], "1 to"),
        ("x-dead-letter-exchange", 7, "text"),
        ("x-dead-letter-routing-key", "k", "given with x-dead-letter-exchange"),
    ],
)
def test_wrong_values_are_refused(
    connection: kombu.Connection, name: str, value: object, said: str
) -> None:
    channel = connection.default_channel
    with pytest.raises(ChannelError, match=f"PRECONDITION_FAILED.*{name}.*{said}") as caught:
        channel.queue_declare("q", arguments={name: value})
    assert caught.value.reply_code == "406"
    assert not channel._has_queue("q")


def test_arguments_of_others_are_no_error(connection: kombu.Connection) -> None:
    arguments = {"x-queue-type": "quorum", "x-queue-mode": "lazy", "x-max-priority": None}
    connection.default_channel.queue_declare("q", arguments=arguments)


def test_a_plain_declaration_leaves_what_another_declared(connect: Connect) -> None:
    first, second = connect().default_channel, connect().default_channel
    declare(first, x_message_ttl=1)
    second.queue_declare("q")
    send(second, "late")
    time.sleep(0.02)
    assert take(first) is None
    declare(second, x_message_ttl=60_000)
    send(first, "kept")
    time.sleep(0.02)
    assert take(second).payload == "kept"


def test_higher_priorities_count_as_the_highest(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, x_max_priority=5)
    for number, priority in enumerate((1, 5, 200, 6, 4)):
        send(channel, number, priority=priority)
    assert bodies(channel) == [1, 2, 3, 4, 0]


def test_a_rejected_message_is_a_dead_letter(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, **DLX)
    send(channel, "x", headers={"mine": 1}, priority=3)
    message = channel.basic_get("q")
    message.requeue()
    message = channel.basic_get("q")
    message.reject()
    assert take(channel) is None
    dead = channel.basic_get("dead")
    assert dead.payload == "x"
    assert dead.headers["mine"] == 1
    assert dead.properties["priority"] == 3
    first = {
        name: dead.headers[f"x-first-death-{name}"] for name in ("reason", "queue", "exchange")
    }
    assert first == {"reason": "rejected", "queue": "q", "exchange": ""}
    (death,) = dead.headers["x-death"]
    assert abs(death.pop("time") - time.time()) < 60
    assert death == {
        "queue": "q",
        "reason": "rejected",
        "count": 1,
        "exchange": "",
        "routing-keys": ["q"],
    }
    assert dead.delivery_info["routing_key"] == "dead"


def test_dead_letters_go_through_an_exchange(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    exchange = kombu.Exchange("graves", type="topic")
    kombu.Queue("all", exchange, routing_key="#")(channel).declare()
    kombu.Queue("mail", exchange, routing_key="mail.*")(channel).declare()
    declare(channel, "mail.a", **{"x-dead-letter-exchange": "graves"})
    declare(channel, "other", **{"x-dead-letter-exchange": "nowhere"})
    for queue in ("mail.a", "other"):
        send(channel, queue, queue)
        channel.basic_get(queue).reject()
    assert bodies(channel, "all") == ["mail.a"]
    assert bodies(channel, "mail") == ["mail.a"]


def test_an_expired_message_is_a_dead_letter_for_who_meets_it(
    connection: kombu.Connection,
) -> None:
    channel = connection.default_channel
    declare(channel, x_message_ttl=30, **DLX)
    send(channel, "by the queue's")
    send(channel, "by its own", expiration=0.01)
    send(channel, "kept waiting by nothing")
    time.sleep(0.05)
    send(channel, "fresh", expiration=30)
    assert take(channel).payload == "fresh"
    found = []
    while (message := take(channel, "dead")) is not None:
        found.append(message)
    assert sorted(m.payload for m in found) == [
        "by its own",
        "by the queue's",
        "kept waiting by nothing",
    ]
    assert {m.headers["x-first-death-reason"] for m in found} == {"expired"}
    (own,) = (m for m in found if m.payload == "by its own")
    assert own.headers["x-death"][0]["original-expiration"] == "10"
    assert "expiration" not in own.properties


def test_a_queue_without_consumers_lets_messages_wait(connect: Connect) -> None:
    """The usual way to delay a retry: a time to live, and the work queue as dead letters."""
    publisher, consumer = connect(), connect()
    declare(
        publisher.default_channel,
        "wait",
        **{
            "x-message-ttl": 150,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "work",
        },
    )
    got: list[tuple[Any, float]] = []

    def on_message(message: Any) -> None:
        got.append((message.payload, time.monotonic()))
        message.ack()

    with kombu.Consumer(consumer.default_channel, [kombu.Queue("work")], on_message=on_message):
        with pytest.raises(TimeoutError):
            consumer.drain_events(timeout=0.05)
        begun = time.monotonic()
        for number in range(3):
            send(publisher.default_channel, number, "wait")
        while len(got) < 3:
            consumer.drain_events(timeout=30)
    assert [payload for payload, _ in got] == [0, 1, 2]
    assert min(moment for _, moment in got) - begun >= 0.15
    counts = publisher.default_channel.broker.store.queue("wait").counts()
    assert counts[:3] == (0, 0, 0)


def test_a_message_with_an_eta_expires_after_it_is_due(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, x_message_ttl=60, **DLX)
    channel.broker.publish(
        b"x", "", "q", delay=0.1
    )  # as a task with a countdown; its time to live begins when it is due
    time.sleep(0.08)
    assert take(channel) is None
    assert take(channel, "dead") is None
    time.sleep(0.2)
    assert take(channel) is None
    assert take(channel, "dead") is not None


def test_what_gives_way_to_the_bound_is_a_dead_letter(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, x_max_length=2, **DLX)
    for number in range(5):
        send(channel, number)
    assert bodies(channel) == [3, 4]
    found = [take(channel, "dead") for _ in range(3)]
    assert [m.payload for m in found] == [0, 1, 2]
    assert {m.headers["x-first-death-reason"] for m in found} == {"maxlen"}


def test_a_bound_can_refuse_or_bury_the_new_message(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, "refuses", x_max_length=1, x_overflow="reject-publish", **DLX)
    declare(channel, "buries", x_max_length=1, x_overflow="reject-publish-dlx", **DLX)
    send(channel, "old", "refuses")
    with pytest.raises(OperationalError, match="max_length"):
        send(channel, "new", "refuses")
    assert take(channel, "dead") is None
    send(channel, "old", "buries")
    send(channel, "new", "buries")
    assert bodies(channel, "buries") == ["old"]
    assert bodies(channel, "dead") == ["new"]


def test_letters_count_their_deaths_and_do_not_go_in_circles(
    connection: kombu.Connection,
) -> None:
    channel = connection.default_channel
    back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"}
    declare(channel, "a", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b"})
    declare(channel, "b", **back, **{"x-message-ttl": 1})
    send(channel, "x", "a")
    for number in range(1, 4):
        message = channel.basic_get("a")
        deaths = message.headers.get("x-death", [])
        counted = {(d["queue"], d["reason"]): d["count"] for d in deaths}
        assert counted == (
            {("a", "rejected"): number - 1, ("b", "expired"): number - 1} if number > 1 else {}
        )
        message.reject()
        time.sleep(0.01)
        assert take(channel, "b") is None
    declare(channel, "loop", **{"x-message-ttl": 1, "x-dead-letter-exchange": ""})
    send(channel, "x", "loop")
    for _ in range(2):  # the first time it comes back
        time.sleep(0.01)
        channel.broker.sweep("loop")
    assert take(channel, "loop") is None
    assert channel.broker.store.queue("loop").counts()[:3] == (0, 0, 0)


def test_a_dead_letter_waits_for_room_and_is_not_lost(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    declare(channel, "dead", x_max_length=1, x_overflow="reject-publish")
    declare(channel, **DLX)
    send(channel, "in the way", "dead")
    send(channel, "x")
    channel.basic_get("q").reject()
    assert channel.broker.store.queue("q").counts().delayed == 1
    assert bodies(channel, "dead") == ["in the way"]
    wait_until(lambda: channel.basic_get("q"), what="its return").reject()
    assert bodies(channel, "dead") == ["x"]


def test_an_unused_queue_vanishes(connect: Connect, store_url: str) -> None:
    channel, other = connect().default_channel, connect().default_channel
    declare(channel, x_expires=100, **DLX)
    exchange = kombu.Exchange("ex", type="direct")
    exchange(channel).declare()
    channel.queue_bind("q", "ex", "k")
    send(channel, "lost with it")
    for _ in range(3):
        time.sleep(0.05)
        declare(channel, x_expires=100, **DLX)  # a use
    assert channel.queue_declare("q", passive=True).message_count == 1
    time.sleep(0.12)
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        other.queue_declare("q", passive=True)
    store = celeriac.connect(store_url)
    assert not store.has_queue("q")
    assert list(other.list_bindings()) == []
    assert take(other, "dead") is None, "as in RabbitMQ, its messages are no dead letters"
    for table in ("queues", "uses"):
        assert store.table(f"celeriac.celery.{table}").items() == []


def test_publishing_to_a_vanished_queue(connect: Connect, store_url: str) -> None:
    channel = connect().default_channel
    for name in ("routed", "q"):
        declare(channel, name, x_expires=30)
    kombu.Exchange("ex", type="direct")(channel).declare()
    channel.queue_bind("routed", "ex", "k")
    for name in ("routed", "q"):
        send(channel, "old", name)
    time.sleep(0.05)
    kombu.Producer(channel, kombu.Exchange("ex", type="direct")).publish("x", routing_key="k")
    assert not celeriac.connect(store_url).has_queue("routed")
    send(channel, "new")  # by its name: a plain queue, as for every unknown name
    assert bodies(channel) == ["new"]


def test_declaring_one_clears_the_others(connect: Connect, store_url: str) -> None:
    channel = connect().default_channel
    declare(channel, "old", x_expires=20)
    time.sleep(0.04)
    declare(channel, "new", x_expires=60_000)
    assert not celeriac.connect(store_url).has_queue("old")


def test_a_consumer_keeps_its_queue_until_it_or_its_process_ends(
    connect: Connect, store_url: str
) -> None:
    store = celeriac.connect(store_url)

    def there() -> bool:
        try:
            connect().default_channel.queue_declare("q", passive=True)
        except ChannelError:
            return False
        return store.has_queue("q")

    queue = kombu.Queue("q", expires=0.1)
    channel = connect().default_channel
    with kombu.Consumer(channel, [queue]):
        time.sleep(0.2)
        assert there()
    assert there()
    time.sleep(0.15)
    assert not there()

    ready, write = os.pipe()
    child = os.fork()
    if not child:
        kombu.Consumer(connect().default_channel, [queue]).consume()
        os.write(write, b"x")
        time.sleep(600)
    try:
        assert os.read(ready, 1) == b"x"
        time.sleep(0.2)
        assert there()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert there(), "its time begins when the death is noticed"
    time.sleep(0.15)
    assert not there()


def test_what_is_kept_of_finished_messages(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    arguments = {"x-keep-done": [3, 60], "x-keep-failed": [2, 60], "x-delivery-limit": 1}
    channel.queue_declare("q")
    send(channel, "before")
    channel.queue_declare("q", arguments=arguments)
    channel.queue_declare("q")  # by somebody who knows nothing of them
    for number in range(4):
        send(channel, number)
    assert bodies(channel) == ["before", 0, 1, 2, 3]
    queue = channel.broker.store.queue("q")
    assert len(queue.done()) == 3
    for _ in range(3):
        send(channel, "poison")
        for _ in range(2):
            channel.basic_get("q").requeue()
    assert channel.basic_get("q") is None
    assert len(queue.dead()) == 2
    assert queue.retry_dead() == 2
    assert bodies(channel) == ["poison", "poison"]


def test_other_arguments_take_effect_on_a_queue_that_is_there(
    connection: kombu.Connection,
) -> None:
    channel = connection.default_channel
    channel.queue_declare("q")
    declare(channel, x_max_length=2)
    for number in range(4):
        send(channel, number)
    assert bodies(channel) == [2, 3]
    declare(channel, x_max_length=3)
    for number in range(4):
        send(channel, number)
    assert bodies(channel) == [1, 2, 3]
