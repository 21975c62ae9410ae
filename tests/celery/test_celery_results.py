"""The result backend without workers."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, GroupResult

import celeriac
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


def test_another_process_gets_the_result(app: Celery, store_url: str) -> None:
    import subprocess
    import sys

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
