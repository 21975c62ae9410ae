"""Real workers: every kind of task, on three pools."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from processes import wait_until

import celeriac

pytestmark = pytest.mark.worker

#: Seconds that a result may take before a test gives up. Nothing is measured with it.
PATIENCE = 60


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_every_kind_of_task(
    app: Any, worker: Callable[..., Any], store_url: str, pool: str
) -> None:
    process = worker(pool=pool)
    tasks = app.tasks

    def task(name: str) -> Any:
        return tasks[f"worker_app.{name}"]

    add, total = task("add"), task("total")
    assert add.delay(2, 3).get(timeout=PATIENCE) == 5

    group_of_ten = group(add.s(i, i) for i in range(10))()
    assert group_of_ten.get(timeout=PATIENCE) == [2 * i for i in range(10)]
    assert group_of_ten.completed_count() == 10

    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=PATIENCE) == 10
    assert chord((add.s(i, i) for i in range(10)), total.s())().get(timeout=PATIENCE) == 90
    nested = chord([group(add.s(i, 1) for i in range(3)), add.s(5, 5)], total.s())
    assert nested().get(timeout=PATIENCE) == 16

    with pytest.raises(ValueError, match="as ordered"):
        task("boom").delay("as ordered").get(timeout=PATIENCE)
    failing = chord([add.s(1, 1), task("boom").s("in a chord")], total.s())()
    with pytest.raises(Exception, match="in a chord"):
        failing.get(timeout=PATIENCE)

    assert task("third_time_lucky").delay().get(timeout=PATIENCE) == 2
    assert task("reject_once").delay().get(timeout=PATIENCE) is True

    described = task("describe").apply_async(queue="other").get(timeout=PATIENCE)
    assert described["queue"] == "other"
    assert described["redelivered"] is False

    results = [add.delay(i, 0) for i in range(200)]
    assert [result.get(timeout=PATIENCE) for result in results] == list(range(200))

    counts = celeriac.connect(store_url).queue("celery").counts
    wait_until(lambda: counts().reserved == 0, what="the last acknowledgements")
    assert process.terminate() == 0
    assert counts()[:3] == (0, 0, 0)


def test_countdown_waits_in_the_store_and_not_in_the_worker(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    process = worker(pool="solo")
    result = app.tasks["worker_app.add"].apply_async((1, 2), countdown=3)
    counts = celeriac.connect(store_url).queue("celery").counts()
    assert (counts.ready, counts.delayed, counts.reserved) == (0, 1, 0)
    assert f"Task worker_app.add[{result.id}] received" not in process.text()
    assert result.get(timeout=PATIENCE) == 3
    assert f"Task worker_app.add[{result.id}] received" in process.text()


def test_a_task_that_expires_in_the_queue_is_revoked(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    """Its message isn't dropped, as others are that expire: somebody may wait for its result."""
    result = app.tasks["worker_app.add"].apply_async((1, 2), expires=0.2)
    kept = app.tasks["worker_app.add"].apply_async((1, 2), expires=600)
    time.sleep(0.5)
    worker(pool="solo")
    assert kept.get(timeout=PATIENCE) == 3
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)
    assert celeriac.connect(store_url).queue("celery").dropped() == 0


def test_a_child_that_is_killed_gets_its_task_redelivered(
    app: Any, worker: Callable[..., Any]
) -> None:
    worker(pool="prefork")
    assert app.tasks["worker_app.kill_own_process_once"].delay().get(timeout=PATIENCE) is True


def test_every_worker_gets_a_broadcast(app: Any, worker: Callable[..., Any]) -> None:
    first, second = worker("w1"), worker("w2")
    app.tasks["worker_app.note_everywhere"].delay("hello")
    expected = sorted(f"hello {process.pid}" for process in (first, second))
    wait_until(lambda: sorted(first.noted()) == expected, what=str(expected))


def test_a_worker_without_prefetch_leaves_tasks_to_others(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    process = worker("w1", CELERIAC_TEST_DISABLE_PREFETCH="1")
    slow = app.tasks["worker_app.slow"]
    for number in range(6):
        slow.delay(str(number), 600)
    wait_until(lambda: len(process.noted()) == 2, what="both children busy")
    counts = celeriac.connect(store_url).queue("celery").counts()
    assert (counts.reserved, counts.ready) == (2, 4)
    assert "only supported for Redis" not in process.text()


def test_prefetched_tasks_return_when_a_worker_is_stopped(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    first = worker("w1", pool="solo")
    slow = app.tasks["worker_app.slow"]
    results = [slow.delay(str(number), 1) for number in range(3)]
    wait_until(lambda: "start 0" in first.noted(), what="first task")
    assert first.terminate() == 0
    counts = celeriac.connect(store_url).queue("celery").counts()
    assert counts.reserved == 0
    assert counts.ready >= 1
    worker("w2", pool="solo")
    assert [result.get(timeout=PATIENCE) for result in results] == ["0", "1", "2"]
