"""Chords with real workers that are killed on their way: none hangs, none is sent twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from processes import wait_until

import celeriac

pytestmark = pytest.mark.worker

PATIENCE = 60


@pytest.fixture
def add(app: Any) -> Any:
    return app.tasks["worker_app.add"]


@pytest.fixture
def in_order(app: Any) -> Any:
    return app.tasks["worker_app.in_order"]


def dying(at: str, folder: Path) -> dict[str, str]:
    """For a worker's environment: the first process to come to that step is killed there."""
    return {"CELERIAC_TEST_DIE_AT": f"{at}@{folder / 'died'}"}


def callbacks(process: Any) -> list[str]:
    return [line for line in process.noted() if line.startswith("callback")]


@pytest.mark.parametrize("at", ["intended", "stored", "claimed", "joined", "marked"])
def test_an_idle_worker_finishes_what_a_killed_one_began(
    app: Any,
    add: Any,
    in_order: Any,
    celery: Callable[..., Any],
    worker: Callable[..., Any],
    tmp_path: Path,
    store_url: str,
    at: str,
) -> None:
    result = chord([add.s(i, 1) for i in range(3)])(in_order.s())
    idle = celery(
        "idle",
        *("--quiet", "worker", "--pool", "solo", "--queues", "other"),
        *("--hostname", "idle@test", "--loglevel", "INFO"),
    )
    idle.wait_for("idle@test ready.")
    first = worker("first", "-Q", "celery", pool="solo", **dying(at, tmp_path))
    wait_until(lambda: first.process.poll() is not None, what="the worker's death")
    queue = celeriac.connect(store_url).queue("celery")
    if at not in ("intended", "stored"):  # there it dies in the first part, and two are left
        wait_until(
            lambda: any(b"in_order" in waiting.body for waiting in queue.ready()),
            what="the callback, from a worker that does not consume from its queue",
        )
    worker("second", "-Q", "celery", pool="solo")
    assert result.get(timeout=PATIENCE) == [1, 2, 3]
    wait_until(lambda: queue.counts()[:3] == (0, 0, 0), what="parts that were delivered again")
    assert callbacks(idle) == [f"callback {result.id}"]


@pytest.mark.parametrize("at", ["stored", "claimed"])
def test_a_worker_that_starts_finishes_what_the_only_one_began(
    add: Any, in_order: Any, worker: Callable[..., Any], tmp_path: Path, at: str
) -> None:
    chord([add.s(1, 1)])(in_order.s())
    first = worker("first", pool="solo", **dying(at, tmp_path))
    wait_until(lambda: first.process.poll() is not None, what="the worker's death")
    second = worker("second", pool="solo")
    wait_until(lambda: len(callbacks(second)) == 1, what="the callback")


@pytest.mark.parametrize("at", ["intended", "stored", "claimed", "joined", "marked", "done"])
def test_a_child_of_the_pool_that_is_killed_costs_no_chord(
    add: Any, in_order: Any, worker: Callable[..., Any], tmp_path: Path, at: str
) -> None:
    process = worker("w1", **dying(at, tmp_path))
    result = chord([add.s(i, 1) for i in range(3)])(in_order.s())
    assert result.get(timeout=PATIENCE) == [1, 2, 3]
    assert callbacks(process) == [f"callback {result.id}"]
    wait_until((tmp_path / "died").exists, what="the death")


def test_a_callback_that_was_sent_by_one_who_died_then_is_sent_twice_at_most(
    add: Any, in_order: Any, worker: Callable[..., Any], tmp_path: Path
) -> None:
    process = worker("w1", **dying("sent", tmp_path))
    result = chord([add.s(i, 1) for i in range(3)])(in_order.s())
    assert result.get(timeout=PATIENCE) == [1, 2, 3]
    wait_until(lambda: len(callbacks(process)) == 2, what="the second")
    assert set(callbacks(process)) == {f"callback {result.id}"}


def test_chords_in_chains_groups_and_chords(
    app: Any, add: Any, in_order: Any, worker: Callable[..., Any]
) -> None:
    process = worker("w1")
    total = app.tasks["worker_app.total"]
    hundred = chord([add.s(i, i) for i in range(100)])(in_order.s())
    inner = chord([add.s(i, 1) for i in range(3)], total.s())
    chained = chain(inner, add.s(10), add.s(100))()
    nested = chord([inner, chain(add.s(1, 1), add.s(1)), group(add.s(5, 5))], total.s())()
    twice = chain(group(add.s(i, 1) for i in range(2)), in_order.s(), total.s())()
    assert hundred.get(timeout=PATIENCE) == [2 * i for i in range(100)]
    assert chained.get(timeout=PATIENCE) == 116
    assert nested.get(timeout=PATIENCE) == 6 + 3 + 10
    assert twice.get(timeout=PATIENCE) == 3
    assert len(callbacks(process)) == 2


def test_a_storm_of_kills_leaves_no_chord_hanging(
    app: Any, in_order: Any, worker: Callable[..., Any]
) -> None:
    """Late acknowledged parts, workers killed at any moment, chords of five."""
    slow = app.tasks["worker_app.slow"]
    results = [
        chord([slow.s(f"{n}.{i}", 0.01) for i in range(5)])(in_order.s().set(acks_late=True))
        for n in range(30)
    ]
    for number in range(4):
        process = worker(f"w{number}")
        before = len(process.noted())
        wait_until(lambda one=process, least=before + 20: len(one.noted()) >= least)
        process.kill()
    last = worker("last")
    for n, result in enumerate(results):
        parts = [f"{n}.{i}" for i in range(5)]
        if result.parent.get(timeout=PATIENCE) != parts:
            raise AssertionError(f"chord {n}")
    lost = [result.id for result in results if f"callback {result.id}" not in last.noted()]
    wait_until(
        lambda: all(f"callback {result.id}" in last.noted() for result in results),
        what=f"the callbacks {lost}",
    )
