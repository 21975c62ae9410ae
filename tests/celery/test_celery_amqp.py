"""``Celery(amqp="celeriac.celery:AMQP")``: the same messages as Celery's own, a shorter way."""

from __future__ import annotations

import datetime
import decimal
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signals
from celery._state import _task_stack
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

import celeriac
from celeriac.celery import amqp as ours
from celeriac.celery.messages import decode_frame

AMQP = "celeriac.celery:AMQP"
PATIENCE = 60

SETTINGS: dict[str, Any] = {
    "task_queues": [
        Queue("celery"),
        Queue("other", Exchange("direct-ex", type="direct"), routing_key="its-key"),
        Queue("news", Exchange("topic-ex", type="topic"), routing_key="news.#"),
        Queue("fleeting", Exchange("fleeting", delivery_mode=1), routing_key="fleeting"),
    ],
    "task_default_queue": "celery",
    "accept_content": ["json", "pickle"],
}


def make(url: str, amqp: str | None, **settings: Any) -> Any:
    """An application with a few tasks."""
    app = Celery(
        "twin", broker=f"celeriac+{url}", backend=f"celeriac+{url}", amqp=amqp, set_as_current=False
    )
    app.conf.update(SETTINGS, **settings)

    def anything(*args: Any, **kwargs: Any) -> None: ...

    for name, options in {
        "plain": {},
        "quiet": {"ignore_result": True},
        "limited": {"time_limit": 30, "soft_time_limit": 20, "serializer": "pickle"},
        "expiring": {"expires": 60},
    }.items():
        app.task(name=f"t.{name}", shared=False, **options)(anything)
    app.finalize()
    return app


@pytest.fixture
def twins(store_url: str) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Makes Celery's application and ours, alike but for the publisher."""
    made: list[Any] = []

    def build(**settings: Any) -> tuple[Any, Any]:
        pair = make(store_url, None, **settings), make(store_url, AMQP, **settings)
        pair[1].thread_oid  # noqa: B018 - both have one, and the same
        for app in pair:
            app._local.oid = "the-oid"
        made.extend(pair)
        return pair

    yield build
    for app in made:
        app.close()


def sent(url: str) -> list[tuple[str, bytes, int, bool]]:
    """All that waits in the store: queue, message, priority, whether delayed; and empties it.

    A message is its header as JSON, in its order, and its body.
    """

    def message(frame: Any) -> bytes:
        header, body = decode_frame(frame)
        return dumps(header, separators=(",", ":")).encode() + body

    store = celeriac.connect(url)
    found = []
    for name in sorted(store.queues()):
        queue = store.queue(name)
        found += [(name, message(m.body), m.priority, False) for m in queue.ready()]
        found += [(name, message(m.body), m.priority, True) for m in queue.delayed()]
        queue.purge()
    return found


def without_times(found: list[tuple[str, bytes, int, bool]]) -> list[tuple[str, bytes, int, bool]]:
    """ETAs and expiries are taken from the clock: the day and the minute must do."""
    seconds = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:)\d\d:\d\d\.\d+")
    return [(name, seconds.sub(rb"\1", frame), *rest) for name, frame, *rest in found]


def ways(app: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the tasks that go Celery's own way."""
    long: list[str] = []
    original = app.amqp._celery_send_task

    def noted(name: str, *args: Any, **kwargs: Any) -> Any:
        long.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(app.amqp, "_celery_send_task", noted)
    return long


ARGUMENTS: list[tuple[Any, Any]] = [
    ((), {}),
    ((1, 2), None),
    ([1, "two"], {"three": 3.5}),
    (("it's", 'a "quote"', "ünïcode \u2028 \x00"), {"none": None, "t": True}),
    (("x" * 2000, 1), {"y": "z" * 2000}),
    ((["nested", {"deep": [1, [2, [3, [4]]]]}],), {}),
    ((datetime.datetime(2026, 1, 2, 3, 4, 5), decimal.Decimal("1.50")), {}),
    ((uuid.UUID(int=5), b"bytes", b"\xff"), {"day": datetime.date(2026, 1, 2)}),
    ((float("inf"), -0.0, 1e100, 10**40), {}),
    ((None,), {"__type__": "x"}),
]

OPTIONS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"priority": 200}, True),
    ({"priority": 0}, True),
    ({"queue": "other"}, True),
    ({"queue": Queue("celery")}, True),
    ({"queue": "fleeting"}, True),
    ({"queue": "made-on-the-way"}, True),
    ({"queue": "other", "routing_key": "ignored"}, True),
    ({"delivery_mode": "transient"}, True),
    ({"delivery_mode": 1}, True),
    ({"serializer": "pickle"}, True),
    ({"compression": "gzip"}, True),
    ({"headers": {"mine": [1, 2], "lang": "other"}}, True),
    ({"shadow": "another name"}, True),
    ({"time_limit": 5, "soft_time_limit": 3.5}, True),
    ({"root_id": "r", "parent_id": "p", "group_id": "g", "group_index": 2}, True),
    ({"retries": 3, "reply_to": "somewhere"}, True),
    ({"ignore_result": True}, True),
    ({"retry": False}, True),
    ({"retry": True, "retry_policy": {"max_retries": 2}}, True),
    ({"replaced_task_nesting": 2}, True),
    ({"add_to_parent": False}, True),
    ({"countdown": 600}, False),
    ({"eta": datetime.datetime(2036, 1, 2, tzinfo=datetime.timezone.utc)}, False),
    ({"expires": 3600}, False),
    ({"expires": 3600, "countdown": 60}, False),
    ({"queue": "news"}, False),
    ({"exchange": "topic-ex", "routing_key": "news.today"}, False),
    ({"stamped_headers": ["by"], "by": "me"}, False),
    ({"message_id": "a-property"}, False),
]


@pytest.mark.parametrize("task", ["plain", "quiet", "limited"])
@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_the_same_bytes_for_all_kinds_of_arguments(
    twins: Callable[..., Any],
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    args: Any,
    kwargs: Any,
) -> None:
    celery, fast = twins()
    long = ways(fast, monkeypatch)
    first = celery.tasks[f"t.{task}"].apply_async(args, kwargs, task_id="the-id")
    expected = sent(store_url)
    second = fast.tasks[f"t.{task}"].apply_async(args, kwargs, task_id="the-id")
    assert sent(store_url) == expected
    assert long == [], "it went Celery's way"
    assert (second.id, second.ignored, type(second)) == (first.id, first.ignored, type(second))
    assert second.backend is fast.backend


@pytest.mark.parametrize(("options", "short"), OPTIONS)
def test_the_same_bytes_for_every_option(
    twins: Callable[..., Any],
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    short: bool,
) -> None:
    celery, fast = twins()
    long = ways(fast, monkeypatch)
    with celery.connection_for_write() as connection:
        celery.amqp.queues["news"](connection.default_channel).declare()
    celery.tasks["t.plain"].apply_async((1, 2), {"k": "v"}, task_id="the-id", **options)
    expected = without_times(sent(store_url))
    assert expected, "nothing was sent"
    fast.tasks["t.plain"].apply_async((1, 2), {"k": "v"}, task_id="the-id", **options)
    assert without_times(sent(store_url)) == expected
    assert long == ([] if short else ["t.plain"])


def test_every_known_argument_is_compared() -> None:
    compared = {name for options, short in OPTIONS for name in options if short}
    theirs = {"task_type", "result_cls", "expires", "immediate", "mandatory", "exchange"}
    canvas = {"link", "link_error", "chain", "chord"}  # in the next test
    assert compared | theirs | canvas == ours.ARGUMENTS


@pytest.mark.parametrize(
    "settings",
    [
        {"task_serializer": "pickle"},
        {"task_compression": "zlib"},
        {"task_default_delivery_mode": 1},
        {"task_default_queue": "other"},
        {"task_routes": {"t.plain": "other", "t.*": {"queue": "celery"}}},
        {"task_routes": [{"t.nothing": "other"}, {"t.pl*": {"queue": "fleeting"}}]},
        {"task_routes": {"t.plain": {"queue": "other", "priority": 9}}},
        {"task_routes": {"t.plain": {"priority": 9}, "t.limited": {"routing_key": "k"}}},
        {"task_routes": {"t.plain": {"queue": "news"}}},
        {"task_routes": [lambda *args, **kwargs: {"queue": "other"}]},
        {"task_repr_maxlevels": 1},
        {"task_repr_maxlevels": 0},
        {"task_queue_max_priority": 10},
        {"task_protocol": 1},
        {"broker_transport_options": {"priority_order": "redis"}},
        {"broker_pool_limit": None},
        {"broker_pool_limit": 1},
        {"task_publish_retry": False},
        {"timezone": "Europe/Berlin"},
    ],
)
def test_the_same_bytes_under_settings(
    twins: Callable[..., Any], store_url: str, settings: dict[str, Any]
) -> None:
    celery, fast = twins(**settings)

    def publish(app: Any) -> list[tuple[str, bytes, int, bool]]:
        a, b = app.tasks["t.plain"], app.tasks["t.limited"]
        for number in range(2):
            a.apply_async((1, [2, [3]]), {"x": {"y": 1}}, task_id=f"a{number}", priority=3)
        b.apply_async((1,), task_id="b", link=a.s(5), link_error=[a.s(6), b.s(7)])
        chain(a.si(1).set(task_id="c1"), b.si(2).set(task_id="c2")).apply_async(task_id="c")
        group(a.si(n).set(task_id=f"g{n}") for n in range(3)).apply_async(task_id="g")
        app.send_task("t.unknown", (1,), task_id="d")
        app.send_task("t.limited", (1,), task_id="e", queue="other")
        return without_times(sent(store_url))

    assert len(publish(celery)) == 9
    assert publish(fast) == publish(celery)


def test_a_setting_that_is_changed_later_counts(twins: Callable[..., Any], store_url: str) -> None:
    celery, fast = twins()
    for app in twins():
        app.tasks["t.plain"].delay(1)
    sent(store_url)
    found = []
    for app in (celery, fast):
        app.tasks["t.plain"].delay(0)
        sent(store_url)
        app.conf.task_default_queue = "other"
        app.conf.update(task_repr_maxlevels=1)
        app.tasks["t.plain"].apply_async(([[1]],), task_id="x")
        found.append(sent(store_url))
    assert found[0] == found[1]
    assert found[0][0][0] == "other"


def test_signals_and_the_event_are_the_same(twins: Callable[..., Any], store_url: str) -> None:
    celery, fast = twins(task_send_sent_event=True)
    seen: list[Any] = []

    def before(sender: Any = None, **kwargs: Any) -> None:
        kwargs["headers"]["traced"] = "yes"
        kwargs["properties"]["message_id"] = "m"
        seen.append(("before", sender, kwargs["routing_key"], kwargs["retry_policy"]))

    def after(sender: Any = None, **kwargs: Any) -> None:
        kwargs.pop("signal")
        seen.append(("after", sender, kwargs))

    def outcome(app: Any) -> Any:
        app.tasks["t.plain"].apply_async((1,), task_id="i")
        mine, seen[:] = list(seen), []
        return mine, sent(store_url)

    signals.after_task_publish.connect(after)
    try:
        assert outcome(celery)[0] == outcome(fast)[0] != []
        for app in (celery, fast):
            app.conf.task_send_sent_event = False
        expected = outcome(celery)
        assert outcome(fast) == expected
        signals.before_task_publish.connect(before)
        expected = outcome(celery)
        assert [each[0] for each in expected[0]] == ["before", "after"]
        assert b'"traced":"yes"' in expected[1][0][1]
        assert outcome(fast) == expected
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)


def test_sent_events_reach_who_listens(twins: Callable[..., Any]) -> None:
    _, fast = twins(task_send_sent_event=True)
    events: list[dict[str, Any]] = []
    with fast.connection_for_read() as connection:
        receiver = fast.events.Receiver(connection, handlers={"task-sent": events.append})
        with receiver.consumer_context() as (consuming, *_):
            fast.tasks["t.plain"].apply_async((1,), task_id="i")
            consuming.drain_events(timeout=10)
    assert [(e["uuid"], e["queue"], e["args"]) for e in events] == [("i", "celery", "(1,)")]


def test_a_task_inside_of_a_task_has_its_parent(twins: Callable[..., Any], store_url: str) -> None:
    found = []
    for app in twins():
        parent = app.tasks["t.limited"]
        parent.push_request(id="the-parent", root_id="the-root", children=[], called_directly=False)
        _task_stack.push(parent)
        try:
            app.tasks["t.plain"].apply_async((1,), task_id="child")
            app.tasks["t.plain"].apply_async((1,), task_id="stray", add_to_parent=False)
            children = [child.id for child in parent.request.children]
        finally:
            _task_stack.pop()
            parent.pop_request()
        found.append((children, sent(store_url)))
    assert found[0] == found[1]
    assert found[0][0] == ["child"]
    assert b'"root_id":"the-root","parent_id":"the-parent"' in found[0][1][0][1]


def test_a_producer_that_is_given_is_used(
    twins: Callable[..., Any], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fast = twins()
    elsewhere = f"shm://t-{uuid.uuid4().hex[:12]}?memory=32M"
    long = ways(fast, monkeypatch)
    try:
        with fast.connection_for_write(f"celeriac+{elsewhere}") as connection:
            fast.tasks["t.plain"].apply_async((1,), producer=fast.amqp.Producer(connection))
            assert long == []
            fast.tasks["t.plain"].apply_async((1,), connection=connection)
            assert long == ["t.plain"]
        assert sent(store_url) == []
        assert len(sent(elsewhere)) == 2
        with fast.connection_for_write("memory://") as connection:
            producer = fast.amqp.Producer(connection)
            fast.tasks["t.plain"].apply_async((1,), producer=producer)
            fast.tasks["t.plain"].apply_async((1,), producer=producer)
            queue = fast.amqp.queues["celery"](producer.channel)
            assert queue.queue_declare(passive=True).message_count == 2
    finally:
        celeriac.connect(elsewhere).destroy(force=True)


def test_errors_are_those_of_celery(twins: Callable[..., Any], store_url: str) -> None:
    full = Queue("full", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    celery, fast = twins(task_queues=[full], task_default_queue="full")
    fast.tasks["t.plain"].delay(1)
    errors = []
    for app in (celery, fast):
        with pytest.raises(OperationalError) as caught:
            app.tasks["t.plain"].delay(1)
        errors.append((caught.type, str(caught.value)))
        loop: list[Any] = []
        loop.append(loop)
        for args, kwargs in ((object(),), {}), ((loop,), {}), (("x",), {"y": object()}):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever Celery's is
                app.tasks["t.plain"].apply_async(args, kwargs)
            errors.append((caught.type, str(caught.value).split(" at 0x")[0]))
        with pytest.raises(TypeError) as caught:
            app.tasks["t.plain"].apply_async("text")
        errors.append((caught.type, str(caught.value)))
    assert errors[:5] == errors[5:]


def test_a_closed_connection_and_a_destroyed_store_are_no_end(
    twins: Callable[..., Any], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fast = twins()
    plain = fast.tasks["t.plain"]
    plain.delay(1)
    with fast.producer_pool.acquire() as producer:
        producer.connection.collect()
    fast.amqp._producer_pool = None
    plain.delay(2)
    celeriac.connect(store_url).destroy(force=True)
    plain.delay(3)
    plain.delay(4)
    assert len(sent(store_url)) == 2
    long = ways(fast, monkeypatch)
    plain.delay(5)
    assert long == [], "it never found back to the short way"


def test_a_forked_child_sends(twins: Callable[..., Any], store_url: str) -> None:
    _, fast = twins()
    fast.tasks["t.plain"].delay(1)
    child = os.fork()
    if not child:
        try:
            fast.tasks["t.plain"].delay(2)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    frames = [frame for _, frame, *_ in sent(store_url)]
    origins = [re.search(rb'"origin":"gen(\d+)@', frame) for frame in frames]
    assert [int(o[1]) for o in origins if o] == [os.getpid(), child]


def test_a_celery_whose_messages_differ_gets_its_own_way(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ours.CeleryAMQP.as_task_v2

    def newer(self: Any, *args: Any, **kwargs: Any) -> Any:
        message = original(self, *args, **kwargs)
        message[0]["new_in_celery"] = 1
        return message

    monkeypatch.setattr(ours.CeleryAMQP, "as_task_v2", newer)
    app = make(store_url, AMQP)
    app.tasks["t.plain"].delay(1)
    assert "send_task" not in vars(app)
    assert b"new_in_celery" in sent(store_url)[0][1]
    app.close()


def test_an_application_with_a_send_task_of_its_own_keeps_it(store_url: str) -> None:
    class Mine(Celery):
        def send_task(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["priority"] = 77
            return super().send_task(*args, **kwargs)

    app = Mine("mine", broker=f"celeriac+{store_url}", amqp=AMQP, set_as_current=False)

    @app.task(name="t", shared=False)
    def task() -> None: ...

    task.delay()
    task.delay()
    assert [priority for _, _, priority, _ in sent(store_url)] == [77, 77]
    app.close()


def test_identifiers_are_random_uuids() -> None:
    made = {ours.new_id() for _ in range(2000)}
    assert len(made) == 2000
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary()
values = st.recursive(
    plain, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner)
)


@given(st.lists(values, max_size=60).map(tuple), st.sampled_from([None, 0, 1, 3]))
def test_arguments_are_represented_as_by_celery(args: tuple[Any, ...], levels: int | None) -> None:
    assert ours.represented(args, 1024, levels) == saferepr(args, 1024, maxlevels=levels)


@pytest.mark.worker
def test_real_workers_with_it(
    store_url: str, worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_TEST_URL", store_url)
    monkeypatch.setenv("CELERIAC_TEST_AMQP", AMQP)
    sys.modules.pop("worker_app", None)
    import worker_app

    try:
        process = worker("w1")
        assert type(worker_app.app.amqp) is ours.AMQP
        task = worker_app.app.tasks
        add, total = task["worker_app.add"], task["worker_app.total"]
        assert add.delay(2, 3).get(timeout=PATIENCE) == 5
        assert group(add.s(i, i) for i in range(5))().get(timeout=PATIENCE) == [0, 2, 4, 6, 8]
        assert chain(add.s(1, 2), add.s(3))().get(timeout=PATIENCE) == 6
        assert chord((add.s(i, i) for i in range(5)), total.s())().get(timeout=PATIENCE) == 20
        assert task["worker_app.third_time_lucky"].delay().get(timeout=PATIENCE) == 2
        assert process.terminate() == 0
    finally:
        worker_app.app.close()
        sys.modules.pop("worker_app", None)
