"""The result backend without workers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, GroupResult, ResultSet
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

import celeriac
from celeriac.celery import waiting
from celeriac.celery.results import ResultBackend


@pytest.fixture
def app(store_url: str) -> Iterator[Celery]:
    app = Celery("results", broker=f"celeriac+{store_url}", backend=f"celeriac+{store_url}")
    yield app
    app.close()


@pytest.fixture
def backend(app: Celery) -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


def test_states_and_results(backend: ResultBackend) -> None:
    assert backend.get_state("1") == states.PENDING
    backend.mark_as_started("1", pid=3)
    assert backend.get_state("1") == states.STARTED
    backend.mark_as_done("1", {"a": [1, None]})
    assert backend.get_state("1") == states.SUCCESS
    assert backend.get_result("1") == {"a": [1, None]}
    backend.mark_as_failure("2", KeyError("k"), traceback="tb")
    assert backend.get_state("2") == states.FAILURE
    assert isinstance(backend.get_result("2"), KeyError)
    assert backend.get_traceback("2") == "tb"
    backend.forget("2")
    assert backend.get_state("2") == states.PENDING
    if hasattr(backend, "task_result_exists"):  # since Celery 5.7
        assert backend.task_result_exists("1")
        assert not backend.task_result_exists("2")


def test_success_is_final(backend: ResultBackend) -> None:
    backend.store_result("1", "first", states.SUCCESS)
    for state in (states.STARTED, states.RETRY, states.FAILURE, states.SUCCESS):
        late = ValueError("late") if state in states.EXCEPTION_STATES else "late"
        backend.store_result("1", late, state)
    assert backend.get_task_meta("1", cache=False)["result"] == "first"


def test_failure_is_not(backend: ResultBackend) -> None:
    backend.store_result("1", ValueError("first"), states.FAILURE)
    backend.store_result("1", "second try", states.SUCCESS)
    assert backend.get_task_meta("1", cache=False)["result"] == "second try"


def test_of_many_successes_at_once_one_stays(app: Celery, store_url: str) -> None:
    barrier = threading.Barrier(8)

    def store(number: int) -> None:
        own = ResultBackend(app=app, url=store_url)
        barrier.wait(30)
        own.store_result("1", number, states.SUCCESS)
        seen.append(own.get_task_meta("1", cache=False)["result"])

    seen: list[int] = []
    threads = [threading.Thread(target=store, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_waiter_is_woken_by_the_result(
    backend: ResultBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    mget = backend.mget

    def counting(keys: Any) -> Any:
        nonlocal looks
        looks += 1
        return mget(keys)

    monkeypatch.setattr(backend, "mget", counting)
    timer = threading.Timer(1.2, backend.store_result, ("1", 42, states.SUCCESS))
    timer.start()
    assert AsyncResult("1", backend=backend).get(timeout=60) == 42
    timer.join()
    assert looks <= 3, "it polled"


def test_waiting_times_out(backend: ResultBackend) -> None:
    with pytest.raises(CeleryTimeout):
        AsyncResult("1", backend=backend).get(timeout=0.2)
    with pytest.raises(CeleryTimeout):
        AsyncResult("1", backend=backend).get(timeout=0)
    backend.store_result("1", 1, states.SUCCESS)
    assert AsyncResult("1", backend=backend).get(timeout=0) == 1


def test_the_interval_callback_is_called(backend: ResultBackend) -> None:
    calls: list[float] = []

    def on_interval() -> None:
        calls.append(time.monotonic())
        if len(calls) == 4:
            backend.store_result("1", 42, states.SUCCESS)

    meta = backend.wait_for("1", timeout=60, interval=0.1, on_interval=on_interval)
    assert meta["result"] == 42
    assert len(calls) == 4
    assert calls[3] - calls[0] >= 0.27, "it was called without a pause"


def test_a_failed_parent_ends_the_wait(app: Celery, backend: ResultBackend) -> None:
    parent = AsyncResult("parent", app=app)
    child = AsyncResult("child", parent=parent, app=app)
    timer = threading.Timer(0.3, backend.mark_as_failure, ("parent", ValueError("parent broke")))
    timer.start()
    with pytest.raises(ValueError, match="parent broke"):
        child.get(timeout=60, interval=0.1)
    timer.join()


def test_the_error_of_a_parent_comes_first(app: Celery, backend: ResultBackend) -> None:
    """As a chord's callback fails with the header that it waits for."""
    parent = AsyncResult("parent", app=app)
    child = AsyncResult("child", parent=parent, app=app)

    def work() -> None:
        backend.mark_as_failure("parent", ValueError("parent broke"))
        backend.mark_as_failure("child", KeyError("child broke"))

    timer = threading.Timer(0.3, work)
    timer.start()
    with pytest.raises(ValueError, match="parent broke"):
        child.get(timeout=60, interval=3600)
    timer.join()


def test_a_group_is_complete_with_its_last_result(app: Celery, backend: ResultBackend) -> None:
    results = [AsyncResult(str(number), app=app) for number in range(5)]
    group = GroupResult("g", results, app=app)

    def work() -> None:
        for number in (4, 2, 0, 1, 3):
            time.sleep(0.05)
            backend.store_result(str(number), number * 10, states.SUCCESS)

    thread = threading.Thread(target=work)
    thread.start()
    assert group.get(timeout=60, interval=3600) == [0, 10, 20, 30, 40]
    thread.join()
    arrived = dict(backend.get_many(["0", "4"], timeout=1))
    assert arrived["4"]["result"] == 40


def test_groups_are_saved_and_restored(app: Celery, backend: ResultBackend) -> None:
    group = GroupResult("g", [AsyncResult("1", app=app)], app=app)
    group.save(backend=backend)
    restored = GroupResult.restore("g", backend=backend, app=app)
    assert restored is not None
    assert restored.results == group.results
    restored.delete(backend=backend)
    assert GroupResult.restore("g", backend=backend, app=app) is None


def test_counters_are_exact_between_threads(app: Celery, store_url: str) -> None:
    seen: list[int] = []

    def count() -> None:
        own = ResultBackend(app=app, url=store_url)
        seen.extend(own.incr(b"chord") for _ in range(50))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == list(range(1, 201))


def test_results_expire(app: Celery, store_url: str) -> None:
    short = ResultBackend(app=app, url=store_url, expires=0.2)
    short.store_result("1", 1, states.SUCCESS)
    short.set(b"other", b"x")
    forever = ResultBackend(app=app, url=store_url, expires=0)
    forever.store_result("2", 2, states.SUCCESS)
    time.sleep(0.4)
    assert short.get_task_meta("1", cache=False)["status"] == states.PENDING
    assert short.get(b"other") is None
    assert forever.get_task_meta("2", cache=False)["result"] == 2


def test_failures_can_expire_earlier(app: Celery, store_url: str) -> None:
    app.conf.result_failure_expires = 0.2
    backend = ResultBackend(app=app, url=store_url)
    backend.store_result("bad", ValueError("x"), states.FAILURE)
    backend.store_result("good", 1, states.SUCCESS)
    time.sleep(0.4)
    assert backend.get_task_meta("bad", cache=False)["status"] == states.PENDING
    assert backend.get_task_meta("good", cache=False)["result"] == 1


def test_expire_changes_how_long_a_key_lives(backend: ResultBackend) -> None:
    backend.set(b"k", b"v")
    backend.expire(b"k", 0.2)
    backend.set(b"kept", b"v")
    backend.expire(b"kept", 60)
    assert 0 < (backend.table.ttl(b"kept") or 0) <= 60
    backend.expire(b"kept", 0)
    assert backend.table.ttl(b"kept") is None
    time.sleep(0.4)
    assert backend.get(b"k") is None
    assert backend.get(b"kept") == b"v"
    backend.delete(b"kept")
    backend.delete(b"kept")
    assert backend.mget([b"k", b"kept"]) == [None, None]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_serializers(app: Celery, store_url: str, serializer: str) -> None:
    app.conf.update(result_serializer=serializer, accept_content=["json", "pickle"])
    backend = ResultBackend(app=app, url=store_url)
    backend.store_result("1", {"a": [1, "x"]}, states.SUCCESS)
    assert backend.get_result("1") == {"a": [1, "x"]}


@pytest.mark.skipif(
    not hasattr(KeyValueStoreBackend, "supports_result_compression"),
    reason="Celery compresses results since 5.7: pip install 'celery>=5.7'",
)
def test_compressed_results(app: Celery, store_url: str) -> None:
    app.conf.result_compression = "zlib"
    backend = ResultBackend(app=app, url=store_url)
    backend.store_result("1", "x" * 100_000, states.SUCCESS)
    assert backend.get_result("1") == "x" * 100_000
    assert len(backend.get(backend.get_key_for_task("1"))) < 10_000


def test_it_pickles_as_its_url(app: Celery, backend: ResultBackend) -> None:
    backend.store_result("1", 1, states.SUCCESS)
    app.set_current()
    copy = pickle.loads(pickle.dumps(backend))
    assert copy.url == backend.url
    assert copy.get_task_meta("1")["result"] == 1


def test_uris(app: Celery) -> None:
    backend = ResultBackend(app=app, url="redis://me:secret@h:1/0?x=1")
    assert backend.as_uri() == "celeriac+redis://me:**@h:1/0?x=1"
    assert backend.as_uri(include_password=True) == "celeriac+redis://me:secret@h:1/0?x=1"


def test_nothing_is_opened_before_it_is_used() -> None:
    app = Celery("lazy", backend="celeriac+smh://typo")
    backend = app.backend
    with pytest.raises(celeriac.ConfigurationError, match="shm"):
        backend.get_state("1")
    app.close()


def test_a_url_without_a_store_is_refused(app: Celery) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=r"celeriac\+shm://"):
        ResultBackend(app=app, url="celeriac://app").get_state("1")


def test_several_results_are_seen_as_they_come(backend: ResultBackend) -> None:
    """Whichever it is, and not at the next look of an interval."""

    def work() -> None:
        for number in (3, 0, 2, 1):
            time.sleep(0.05)
            stored[str(number)] = time.monotonic()
            backend.store_result(str(number), number, states.SUCCESS)

    stored: dict[str, float] = {}
    thread = threading.Thread(target=work)
    thread.start()
    order = []
    for task_id, meta in backend.get_many("0123", timeout=60, interval=3600):
        assert meta["result"] == int(task_id)
        order.append(task_id)
    thread.join()
    assert order == ["3", "0", "2", "1"]


def test_nobody_rings_when_nobody_listens(backend: ResultBackend) -> None:
    listeners = waiting.LISTENERS
    backend.store_result("1", 1, states.SUCCESS)
    rung = backend.table.get(waiting.BELL)
    arriving = backend.get_many(["1", "2", "3"], timeout=60)
    assert next(arriving)[0] == "1"
    assert len(backend.table.get(listeners)) == 1
    backend.store_result("2", 1, states.SUCCESS)
    assert backend.table.get(waiting.BELL) != rung
    arriving.close()
    assert backend.table.get(listeners) is None
    rung = backend.table.get(waiting.BELL)
    backend.store_result("3", 1, states.SUCCESS)
    assert backend.table.get(waiting.BELL) == rung


def test_a_listener_that_died_is_forgotten(backend: ResultBackend) -> None:
    child = os.fork()
    if child == 0:
        try:
            backend.store_result("0", 0, states.SUCCESS)
            arriving = backend.get_many("012", timeout=60)
            next(arriving)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(77)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(backend.table.get(waiting.LISTENERS)) == 1
    for number in "012":
        backend.store_result(number, int(number), states.SUCCESS)
    assert len(dict(backend.get_many("012", timeout=60))) == 3
    assert backend.table.get(waiting.LISTENERS) is None


def test_messages_and_callbacks(app: Celery, backend: ResultBackend) -> None:
    messages: list[str] = []

    def work() -> None:
        backend.store_result("1", {"done": 1}, "PROGRESS")
        while "PROGRESS" not in messages:
            time.sleep(0.01)
        backend.store_result("1", 42, states.SUCCESS)

    timer = threading.Timer(0.2, work)
    timer.start()
    called: list[tuple[str, Any]] = []
    value = AsyncResult("1", app=app).get(
        timeout=60,
        on_message=lambda meta: messages.append(meta["status"]),
        callback=lambda task_id, value: called.append((task_id, value)),
    )
    timer.join()
    assert value == 42
    assert messages == ["PROGRESS", states.SUCCESS]
    assert called == [("1", 42)]

    called.clear()
    backend.store_result("2", 43, states.SUCCESS)
    both = ResultSet([AsyncResult("1", app=app), AsyncResult("2", app=app)], app=app)
    both.get(timeout=60, callback=lambda task_id, value: called.append((task_id, value)))
    assert sorted(called) == [("1", 42), ("2", 43)]
    assert both.join(timeout=60) == [42, 43]
    assert sorted(task_id for task_id, _ in both.iter_native(timeout=60)) == ["1", "2"]


def test_a_tree_of_results_is_collected(app: Celery, backend: ResultBackend) -> None:
    request = Context({"id": "root"})
    request.children.append(AsyncResult("child", app=app))
    backend.store_result("child", 2, states.SUCCESS)
    backend.store_result("root", 1, states.SUCCESS, request=request)
    root = AsyncResult("root", app=app)
    assert [(each.id, value) for each, value in root.collect()] == [("root", 1), ("child", 2)]


def test_extended_results(app: Celery, store_url: str) -> None:
    app.conf.result_extended = True
    backend = ResultBackend(app=app, url=store_url)
    request = Context(
        {
            "id": "1",
            "task": "proj.add",
            "args": [1, 2],
            "kwargs": {"z": 3},
            "hostname": "w1@h",
            "retries": 2,
            "delivery_info": {"routing_key": "celery"},
        }
    )
    backend.store_result("1", 3, states.SUCCESS, request=request)
    result = AsyncResult("1", backend=backend, app=app)
    assert (result.name, result.args, result.kwargs) == ("proj.add", [1, 2], {"z": 3})
    assert (result.worker, result.retries, result.queue) == ("w1@h", 2, "celery")
    assert result.date_done is not None


def test_no_task_is_scheduled_to_clean_up(app: Celery) -> None:
    from celery.beat import Scheduler

    scheduler = Scheduler(app=app)
    assert "celery.backend_cleanup" not in scheduler.schedule


def test_an_unknown_task_is_pending(app: Celery, backend: ResultBackend) -> None:
    result = AsyncResult("never-heard-of", app=app)
    assert (result.state, result.result, result.ready()) == (states.PENDING, None, False)
    result.forget()


@pytest.mark.parametrize("reader", ["json", "pickle"])
def test_content_that_is_not_accepted_is_refused(app: Celery, store_url: str, reader: str) -> None:
    """Whatever the reader writes itself: it is what was written that counts."""
    writer = Celery("writer", backend=f"celeriac+{store_url}")
    writer.conf.update(result_serializer="pickle", accept_content=["pickle"])
    writer.backend.store_result("1", {1, 2}, states.SUCCESS)
    app.conf.update(result_serializer=reader, accept_content=["json"])
    with pytest.raises(ContentDisallowed, match="pickle"):
        AsyncResult("1", app=app).get(timeout=5)
    with pytest.raises(ContentDisallowed, match="pickle"):
        AsyncResult("1", app=app).state  # noqa: B018
    writer.close()


def test_a_damaged_value_is_an_error_of_kombu(backend: ResultBackend) -> None:
    backend.table.set(backend.get_key_for_task("1"), b'Sj{"status": ')
    with pytest.raises(DecodeError):
        backend.get_state("1")
    with pytest.raises(EncodeError):
        backend.store_result("2", object(), states.SUCCESS)


def test_what_another_serializer_wrote_is_read_where_it_is_accepted(
    app: Celery, store_url: str
) -> None:
    writer = Celery("writer", backend=f"celeriac+{store_url}")
    writer.conf.update(result_serializer="pickle", accept_content=["pickle"])
    writer.backend.store_result("1", {1, 2}, states.SUCCESS)
    writer.backend.store_result("2", KeyError("k"), states.FAILURE)
    app.conf.update(result_serializer="json", accept_content=["json", "pickle"])
    assert AsyncResult("1", app=app).get(timeout=5) == {1, 2}
    assert isinstance(AsyncResult("2", app=app).result, KeyError)
    writer.close()


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, sys, time
from celery import Celery
from celery.result import AsyncResult, ResultSet
app = Celery("x", backend=sys.argv[1])
ticks = [0]
def tick():
    while True:
        gevent.sleep(0.01)
        ticks[0] += 1
gevent.spawn(tick)
app.backend.table  # opened, which takes longer than what follows
gevent.sleep(0.05)  # and the loop's clock is that of now
ticks[0] = 0
gevent.spawn_later(0.3, app.backend.store_result, "1", 1, "SUCCESS")
assert AsyncResult("1", app=app).get(timeout=60) == 1
assert ticks[0] >= 5, ticks
gevent.spawn_later(0.1, app.backend.store_result, "3", 3, "SUCCESS")
gevent.spawn_later(0.3, app.backend.store_result, "2", 2, "SUCCESS")
before = ticks[0]
both = ResultSet([AsyncResult("2", app=app), AsyncResult("3", app=app)], app=app)
assert both.get(timeout=60) == [2, 3]
assert ticks[0] >= before + 5, ticks
"""


def test_waiting_stops_no_other_greenlet(store_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GEVENT, f"celeriac+{store_url}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_another_process_gets_the_result(app: Celery, store_url: str) -> None:
    code = (
        "import sys\nfrom celery import Celery\n"
        "app = Celery('x', backend=sys.argv[1])\n"
        "app.backend.store_result('1', 'from elsewhere', 'SUCCESS')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"celeriac+{store_url}"])
    try:
        assert AsyncResult("1", app=app).get(timeout=60) == "from elsewhere"
    finally:
        assert process.wait(60) == 0
