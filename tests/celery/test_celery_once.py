"""`celeriac.celery.lock_once`: of tasks of one key one runs at a time, on all workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore

import celeriac
from celeriac.celery import lock_once

PATIENCE = 60


@pytest.fixture
def app(store_url: str) -> Celery:
    url = f"celeriac+{store_url}"
    app = Celery("once", broker=url, backend=url, set_as_current=True)
    app.conf.worker_hijack_root_logger = False
    return app


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_second_task_of_a_key_is_dropped_or_tried_again(app: Celery, store_url: str) -> None:
    go, began, order = threading.Event(), threading.Semaphore(0), []

    @app.task(name="drop", shared=False)
    @lock_once("drop:{shop}", skipped="skipped")
    def drop(shop: int, force: bool = False) -> str:
        """Text."""
        began.release()
        go.wait(PATIENCE)
        return f"did {shop}"

    @app.task(name="again", shared=False, bind=True)
    @lock_once("again", retry=0.05)
    def again(self: Any, number: int) -> int:
        assert self.name == "again"
        began.release()
        order.append(number)
        go.wait(PATIENCE)
        return number

    assert drop.__doc__ == "Text."
    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=4):
        first = drop.delay(1)
        assert began.acquire(timeout=PATIENCE)
        store = celeriac.connect(store_url)
        assert [(info.kind, info.name) for info in store.locks()] == [("lock", "celery:drop:1")]
        assert drop.delay(1, force=True).get(timeout=PATIENCE) == "skipped"
        other = again.delay(1)
        assert began.acquire(timeout=PATIENCE)
        retried = again.delay(2)
        until(lambda: retried.state == "RETRY")
        go.set()
        assert first.get(timeout=PATIENCE) == "did 1"
        assert other.get(timeout=PATIENCE) == 1
        assert retried.get(timeout=PATIENCE) == 2
        assert order == [1, 2]
        assert drop.delay(1).get(timeout=PATIENCE) == "did 1"
        until(lambda: store.locks() == [])


def test_keys_of_arguments(app: Celery, store_url: str) -> None:
    @app.task(name="names", shared=False, bind=True)
    @lock_once()
    def names(self: Any, shop: int, day: str = "today") -> list[str]:
        return [info.name for info in celeriac.connect(store_url).locks()]

    @app.task(name="plain", shared=False)
    @lock_once(store=lambda: celeriac.connect(store_url))
    def plain(shop: int) -> list[str]:
        return [info.name for info in celeriac.connect(store_url).locks()]

    (bound,) = names.apply((3,)).get()
    assert bound.startswith("celery:")
    assert bound.endswith("shop=3,day='today'") or len(bound) > 30
    assert names.apply((3,), {"day": "today"}).get() == [bound]
    assert names.apply((4,)).get() != [bound]
    assert len(plain(5)) == 1, "called by itself, without Celery"
    with celeriac.connect(store_url).lock(bound):
        assert names.apply((3,)).get() is None
        assert names.apply((4,)).get() is not None


def test_what_a_skipped_task_gives(app: Celery, store_url: str) -> None:
    @app.task(name="ignored", shared=False)
    @lock_once("x", skipped=Ignore())
    def ignored() -> None: ...

    with celeriac.connect(store_url).lock("celery:x"), pytest.raises(Ignore):
        ignored()


def test_an_error_frees_the_lock(app: Celery, store_url: str) -> None:
    @app.task(name="fails", shared=False)
    @lock_once("x")
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert celeriac.connect(store_url).locks() == []


def test_without_a_store_of_ours() -> None:
    Celery("none", broker="memory://", set_as_current=True)

    @lock_once("x")
    def work() -> int:
        return 1

    with pytest.raises(celeriac.ConfigurationError, match="lock_once has no store: neither"):
        work()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retry": -1}, ValueError, "retry=-1"),
        ({"timeout": "1"}, TypeError, "timeout is a finite number"),
        ({"key": "x:{nothing}"}, celeriac.ConfigurationError, "has no argument 'nothing'"),
        ({"key": 5}, TypeError, "key= is a template or a callable, not int"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    def work(shop: int) -> None: ...

    with pytest.raises(error, match=text):
        lock_once(**options)(work)
