"""What is wrong, and said so: URLs, exchanges, content; and what is bounded, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.exceptions import ChannelError, ContentDisallowed
from processes import wait_until

import celeriac
from celeriac.celery import broker

PATIENCE = 60


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("celeriac+smh://app", "shm://"),
        ("celeriac+shmem://app", "shm://"),
        ("celeriac+://app", "shm://"),
        ("celeriac://app", r"celeriac\+shm://"),
        ("celeriac+shm://", "shm://"),
        ("celeriac+shm://app?memroy=1G", "memory"),
    ],
)
def test_a_url_with_a_typo_says_which_there_are(url: str, said: str) -> None:
    app = Celery("typo", broker=url, set_as_current=False)
    with pytest.raises((celeriac.ConfigurationError, ValueError, KeyError), match=said):
        app.connection_for_write().ensure_connection(max_retries=1)
    app.close()


def test_a_misspelt_celeriac_is_guessed_by_kombu() -> None:
    with pytest.raises(KeyError, match="Did you mean celeriac"):
        kombu.Connection("celeriak+shm://app").connect()


@pytest.mark.parametrize("kind", ["headers", "x-delayed-message", "tpoic"])
def test_an_exchange_of_an_unknown_type_is_refused(connection: kombu.Connection, kind: str) -> None:
    channel = connection.default_channel
    with pytest.raises(ChannelError, match=f"{kind}.*direct, fanout, topic") as caught:
        channel.exchange_declare("ex", kind)
    assert caught.value.reply_code == "503"
    assert channel.get_exchanges() == []
    queue = kombu.Queue("q", kombu.Exchange("ex", type=kind), routing_key="k")
    with pytest.raises(ChannelError, match=kind):
        queue(channel).declare()


def test_pickle_is_not_loaded_where_json_is_accepted(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    kombu.Producer(channel).publish({"a": 1}, routing_key="q", serializer="pickle")
    got: list[Any] = []
    consumer = kombu.Consumer(channel, [kombu.Queue("q")], accept=["json"])
    consumer.register_callback(lambda body, message: got.append(body))
    with consumer, pytest.raises(ContentDisallowed):
        connection.drain_events(timeout=10)
    assert got == []


@pytest.mark.worker
def test_a_worker_drops_pickle_and_goes_on(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    process = worker("w1", pool="solo")
    add = app.tasks["worker_app.add"]
    add.apply_async((1, 2), serializer="pickle")
    process.wait_for("ContentDisallowed")
    assert add.delay(2, 3).get(timeout=PATIENCE) == 5
    counts = celeriac.connect(store_url).queue("celery").counts
    wait_until(lambda: counts()[:3] == (0, 0, 0), what="both settled")


def test_what_a_slow_subscriber_loses_is_counted(
    connection: kombu.Connection, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "TRANSIENT_LENGTH", 5)
    channel = connection.default_channel
    exchange = kombu.Exchange("news", type="fanout")
    for name in ("slow", "fast"):
        kombu.Queue(name, exchange, auto_delete=True)(channel).declare()
    producer = kombu.Producer(channel, exchange)
    for number in range(12):
        producer.publish(number)
        assert channel.basic_get("fast", no_ack=True).payload == number
    store = celeriac.connect(store_url)
    assert store.queue("fast", create=False).dropped() == 0
    assert store.queue("slow", create=False).dropped() == 7
    kept = [channel.basic_get("slow", no_ack=True).payload for _ in range(5)]
    assert kept == [7, 8, 9, 10, 11]


@pytest.mark.worker
def test_a_worker_on_gevent(app: Any, worker: Callable[..., Any], store_url: str) -> None:
    pytest.importorskip("gevent", reason="pip install gevent")
    process = worker("w1", "--without-mingle", pool="gevent")
    add, slow = app.tasks["worker_app.add"], app.tasks["worker_app.slow"]
    assert [add.delay(i, i).get(timeout=PATIENCE) for i in range(20)] == [2 * i for i in range(20)]
    results = [slow.delay(str(number), 2) for number in range(2)]
    wait_until(lambda: len(process.noted()) >= 2, what="two greenlets at once")
    assert process.noted()[:2] == ["start 0", "start 1"]
    assert add.apply_async((1, 1), countdown=0.5).get(timeout=PATIENCE) == 2
    assert [result.get(timeout=PATIENCE) for result in results] == ["0", "1"]
    assert app.control.ping(timeout=10, limit=1) == [{"w1@test": {"ok": "pong"}}]
    assert process.terminate() == 0
    assert celeriac.connect(store_url).queue("celery").counts()[:3] == (0, 0, 0)
