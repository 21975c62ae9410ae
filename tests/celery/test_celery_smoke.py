"""Celery's smoke scenarios as plain processes: how workers end, and what becomes of their tasks.

Each looks at the whole ledger: every start and every end of a task, in all workers.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, group
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from processes import wait_until

import celeriac

pytestmark = pytest.mark.worker

#: Seconds that a result may take before a test gives up. Nothing is measured with it.
PATIENCE = 60

WARM, COLD = "worker: Warm shutdown (MainProcess)", "worker: Cold shutdown (MainProcess)"
SOFT = "Initiating Soft Shutdown"
Start = Callable[..., Any]


def conf(**settings: Any) -> dict[str, str]:
    """Settings of a worker, for its environment."""
    return {"CELERIAC_TEST_CONF": json.dumps(settings)}


def ended(process: Any, *steps: tuple[signal.Signals, str]) -> int:
    """Send signals to the worker's main process, each when the one before was answered."""
    for number, answer in steps:
        process.process.send_signal(number)
        if answer:
            process.wait_for(answer)
    return int(process.process.wait(PATIENCE))


@pytest.fixture
def slow(app: Any) -> Any:
    return app.tasks["worker_app.slow"]


@pytest.fixture
def counts(store_url: str) -> Callable[[], Any]:
    queue = celeriac.connect(store_url).queue("celery")
    return lambda: queue.counts()[:3]


def test_warm_shutdown(slow: Any, worker: Start, counts: Callable[[], Any]) -> None:
    process = worker("w1", "--concurrency", "1")
    results = [slow.delay(str(number), 1.5) for number in range(3)]
    wait_until(lambda: process.noted() == ["start 0"], what="the first to start")
    assert ended(process, (signal.SIGTERM, WARM), *[(signal.SIGTERM, "")] * 3) == 0
    assert process.noted() == ["start 0", "end 0"]
    assert results[0].get(timeout=0) == "0"
    assert counts() == (2, 0, 0), "what was prefetched is given back"
    worker("w2", "--concurrency", "1")
    assert [result.get(timeout=PATIENCE) for result in results] == ["0", "1", "2"]
    assert [line.removesuffix(" again") for line in process.noted()] == [
        f"{what} {number}" for number in range(3) for what in ("start", "end")
    ]


@pytest.mark.parametrize(
    ("remap", "steps"),
    [
        ("", [(signal.SIGQUIT, COLD)]),
        ("", [(signal.SIGQUIT, COLD), (signal.SIGQUIT, "")]),
        ("", [(signal.SIGTERM, WARM), (signal.SIGQUIT, COLD), (signal.SIGQUIT, "")]),
        ("SIGQUIT", [(signal.SIGTERM, COLD)]),
        ("SIGQUIT", [(signal.SIGTERM, COLD), (signal.SIGTERM, "")]),
    ],
    ids=["cold", "hard from cold", "hard from warm", "remapped", "remapped, hard"],
)
def test_a_task_that_a_shutdown_ends_is_delivered_again(
    slow: Any,
    worker: Start,
    counts: Callable[[], Any],
    remap: str,
    steps: list[tuple[signal.Signals, str]],
) -> None:
    process = worker("w1", **({"REMAP_SIGTERM": remap} if remap else {}))
    result = slow.delay("x", 600, 0.1)
    wait_until(lambda: process.noted() == ["start x"], what="the task to start")
    ended(process, *steps)
    process.kill()  # its children too, should it have left any
    assert process.noted() == ["start x"]
    assert not result.ready()
    assert counts() == (1, 0, 0)
    worker("w2")
    assert result.get(timeout=PATIENCE) == "x"
    assert process.noted() == ["start x", "start x again", "end x"]


@pytest.mark.parametrize("remap", ["", "SIGQUIT"])
def test_soft_shutdown_lets_short_tasks_finish_and_gives_back_long_ones(
    slow: Any, worker: Start, counts: Callable[[], Any], remap: str
) -> None:
    settings = conf(worker_soft_shutdown_timeout=3)
    process = worker("w1", **settings, **({"REMAP_SIGTERM": remap} if remap else {}))
    both = group(slow.s("short", 1), slow.s("long", 600, 0.1))()
    wait_until(lambda: len(process.noted()) == 2, what="both to start")
    ended(process, (signal.SIGTERM if remap else signal.SIGQUIT, SOFT))
    assert COLD in process.text()
    assert sorted(process.noted()) == ["end short", "start long", "start short"]
    assert both.results[0].get(timeout=0) == "short"
    assert counts() == (1, 0, 0)
    worker("w2")
    assert both.get(timeout=PATIENCE) == ["short", "long"]
    assert process.noted()[3:] == ["start long again", "end long"]


def test_soft_shutdown_with_no_task_finished(
    slow: Any, worker: Start, counts: Callable[[], Any]
) -> None:
    process = worker("w1", **conf(worker_soft_shutdown_timeout=1))
    both = group(slow.s("a", 600, 0.1), slow.s("b", 600, 0.1))()
    wait_until(lambda: len(process.noted()) == 2, what="both to start")
    ended(process, (signal.SIGQUIT, SOFT))
    assert counts() == (2, 0, 0)
    worker("w2")
    assert both.get(timeout=PATIENCE) == ["a", "b"]
    assert sorted(process.noted()) == sorted(
        line.format(name) for name in "ab" for line in ("start {}", "start {} again", "end {}")
    )


def test_hard_shutdown_from_soft(slow: Any, worker: Start, counts: Callable[[], Any]) -> None:
    process = worker("w1", **conf(worker_soft_shutdown_timeout=60))
    slow.delay("x", 600, 0.1)
    wait_until(lambda: process.noted() == ["start x"], what="the task to start")
    ended(
        process,
        (signal.SIGQUIT, SOFT),
        (signal.SIGQUIT, "Waiting gracefully for cold shutdown to complete"),
        (signal.SIGQUIT, ""),
    )
    process.kill()
    assert counts() == (1, 0, 0)


def test_soft_shutdown_of_an_idle_worker_leaves_what_has_an_eta(
    slow: Any, worker: Start, counts: Callable[[], Any]
) -> None:
    settings = conf(worker_soft_shutdown_timeout=1, worker_enable_soft_shutdown_on_idle=True)
    process = worker("w1", **settings)
    sent = time.time()
    result = slow.apply_async(("x", 0.1), countdown=6)
    ended(process, (signal.SIGQUIT, SOFT))
    assert counts() == (0, 1, 0)
    worker("w2")
    assert result.get(timeout=PATIENCE) == "x"
    assert time.time() - sent >= 5.9
    assert process.noted() == ["start x", "end x"]


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_what_has_an_eta_outlives_every_worker(
    slow: Any, worker: Start, counts: Callable[[], Any], how: str
) -> None:
    process = worker("w1", pool="solo")
    sent = time.time()
    results = [slow.apply_async((str(number), 0), countdown=4) for number in range(5)]
    getattr(process, how)()
    assert counts() == (0, 5, 0)
    worker("w2", pool="solo")
    assert [result.get(timeout=PATIENCE) for result in results] == list("01234")
    assert time.time() - sent >= 3.9
    assert sorted(process.noted()) == sorted(
        f"{what} {number}" for number in range(5) for what in ("start", "end")
    )


def test_a_restart_between_the_tasks_of_a_chain(slow: Any, worker: Start) -> None:
    process = worker("w1", "-Q", "celery", pool="solo")
    second = slow.si("second", 0.1).set(queue="other").freeze()
    first = chain(slow.si("first", 0.1), slow.si("second", 0.1).set(queue="other"))
    result = first.delay()
    assert second is not None
    assert result.parent.get(timeout=PATIENCE) == "first"
    assert process.terminate() == 0
    worker("w2", pool="solo")
    assert result.get(timeout=PATIENCE) == "second"
    assert process.noted() == ["start first", "end first", "start second", "end second"]


def test_groups_across_restarts(slow: Any, worker: Start) -> None:
    """Warm: no task runs twice. 12 tasks, two at a time, three workers one after the other."""
    result = group(slow.s(str(number), 0.5) for number in range(12))()
    for number in range(2):
        process = worker(f"w{number}")
        done = len(process.noted())
        wait_until(lambda before=done, one=process: len(one.noted()) > before, what="a task")
        assert process.terminate() == 0
    last = worker("last")
    assert result.get(timeout=PATIENCE) == [str(number) for number in range(12)]
    lines = [line.removesuffix(" again") for line in last.noted()]
    assert sorted(lines) == sorted(
        f"{what} {number}" for number in range(12) for what in ("start", "end")
    )


@pytest.mark.parametrize("late", [True, False], ids=["acks late", "acks early"])
def test_a_task_that_a_process_was_just_given_does_not_run_twice(
    slow: Any, worker: Start, counts: Callable[[], Any], late: bool
) -> None:
    """The worker is told to stop when it has written the task and not heard of it again."""
    settings = conf(task_annotations={slow.name: {"acks_late": late}})
    first = worker("w1", "--concurrency", "1", CELERIAC_TEST_SLOW_ACCEPT="1", **settings)
    result = slow.delay("x", 0.1)
    wait_until(lambda: first.noted() == ["given"], what="the task to be written")
    assert first.terminate() == 0
    assert first.noted() == ["given", "start x", "end x"]
    assert result.get(timeout=PATIENCE) == "x"
    assert counts() == (0, 0, 0)


def test_the_pool_is_restarted_during_a_task(app: Any, slow: Any, worker: Start) -> None:
    process = worker("w1", **conf(worker_pool_restarts=True))
    result = slow.delay("x", 1)
    wait_until(lambda: process.noted() == ["start x"], what="the task to start")
    app.control.pool_restart(destination=["w1@test"])
    assert result.get(timeout=PATIENCE) == "x"
    assert slow.delay("y", 0).get(timeout=PATIENCE) == "y"
    assert process.noted() == ["start x", "end x", "start y", "end y"]


def test_all_workers_are_killed_one_after_the_other(slow: Any, worker: Start) -> None:
    first, second = (worker(name, **conf(worker_prefetch_multiplier=1)) for name in ("w1", "w2"))
    results = [slow.delay(str(number), 600, 0.1) for number in range(4)]
    wait_until(lambda: len(first.noted()) == 4, what="all to start, two in each")
    first.kill()
    second.kill()
    worker("w3")
    assert [result.get(timeout=PATIENCE) for result in results] == list("0123")
    assert sorted(second.noted()) == sorted(
        line.format(number)
        for number in range(4)
        for line in ("start {}", "start {} again", "end {}")
    )


@pytest.mark.parametrize(
    ("how", "settings", "error"),
    [
        ("kill", {"task_reject_on_worker_lost": False}, WorkerLostError),
        ("exit", {"task_reject_on_worker_lost": False}, WorkerLostError),
        ("wait", {"task_time_limit": 1}, TimeLimitExceeded),
    ],
    ids=["SIGKILL", "SystemExit", "time limit"],
)
def test_a_child_that_ends_fails_its_task_and_is_replaced(
    app: Any,
    slow: Any,
    worker: Start,
    counts: Callable[[], Any],
    how: str,
    settings: dict[str, Any],
    error: type[Exception],
) -> None:
    process = worker("w1", **conf(**settings))
    result = app.tasks["worker_app.end_child"].delay("x", how)
    with pytest.raises(error):
        result.get(timeout=PATIENCE)
    assert slow.delay("y", 0).get(timeout=PATIENCE) == "y"
    assert process.noted() == ["start x", "start y", "end y"]
    wait_until(lambda: counts() == (0, 0, 0), what="the acknowledgements")


def test_a_child_that_is_killed_has_its_task_delivered_again(
    app: Any, worker: Start, counts: Callable[[], Any]
) -> None:
    process = worker("w1", **conf(task_reject_on_worker_lost=True))
    result = app.tasks["worker_app.end_child"].delay("x", "kill")
    assert result.get(timeout=PATIENCE) == "x"
    assert process.noted() == ["start x", "start x again", "end x"]
    wait_until(lambda: counts() == (0, 0, 0), what="the acknowledgements")
