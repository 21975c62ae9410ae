"""`celeriac.celery.RateLimit`: at most so many runs of a task in so much time, over all workers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery, chord
from celery.contrib.testing.worker import start_worker

import celeriac
from celeriac.celery import RateLimit

PATIENCE = 60


@pytest.fixture
def app(store_url: str) -> Celery:
    url = f"celeriac+{store_url}"
    app = Celery("limited", broker=url, backend=url, set_as_current=True)
    app.conf.worker_hijack_root_logger = False
    return app


def worker(app: Celery) -> Any:
    return start_worker(app, perform_ping_check=False, pool="threads", concurrency=4)


def test_what_is_over_the_limit_comes_later(app: Celery, store_url: str) -> None:
    runs: list[tuple[str, float]] = []

    @app.task(name="limited", bind=True)
    @RateLimit("20/s", key="of {whom}", burst=2)
    def limited(self: Any, whom: str, number: int) -> int:
        """Text."""
        assert self.request.retries == 0
        runs.append((whom, time.monotonic()))
        return number

    assert limited.__doc__ == "Text."
    with worker(app):
        begun = time.monotonic()
        results = [limited.delay("a", number) for number in range(8)]
        assert limited.delay("b", 9).get(timeout=PATIENCE) == 9
        assert [result.get(timeout=PATIENCE) for result in results] == list(range(8))
    times = sorted(at - begun for whom, at in runs if whom == "a")
    assert len(times) == 8, "each ran once"
    for number, at in enumerate(times[2:], 1):  # two at once, then one each twentieth of a second
        assert at >= number / 20 - 0.001
    assert celeriac.connect(store_url).queue("celery").counts()[:3] == (0, 0, 0)


def test_workers_are_not_held_up(app: Celery) -> None:
    @app.task(name="slow")
    @RateLimit("1/hour")
    def slow() -> None:
        """Once an hour."""

    @app.task(name="free")
    def free() -> str:
        return "free"

    with worker(app):
        slow.delay().get(timeout=PATIENCE)
        late = [slow.delay() for _ in range(20)]
        assert free.delay().get(timeout=PATIENCE) == "free"
        deadline = time.monotonic() + PATIENCE
        while any(result.state != "RETRY" for result in late):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_postponed_part_of_a_chord_is_waited_for(app: Celery) -> None:
    @app.task(name="part")
    @RateLimit("20/s", burst=1)
    def part(number: int) -> int:
        return number

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with worker(app):
        assert chord([part.s(number) for number in range(5)])(total.s()).get(timeout=PATIENCE) == 10


def test_limits_of_one_name_are_one(app: Celery) -> None:
    @app.task(name="one")
    @RateLimit("1/hour", name="shared", key="k")
    def one() -> str:
        return "ran"

    @app.task(name="two")
    @RateLimit("1/hour", name="shared", key="k")
    def two() -> str:
        return "ran"

    assert two() == two() == "ran", "called by itself it isn't limited"
    with worker(app):
        assert one.delay().get(timeout=PATIENCE) == "ran"
        late = two.delay()
        deadline = time.monotonic() + PATIENCE
        while late.state != "RETRY":
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (("often",), celeriac.ConfigurationError, "rate 'often'"),
        ((5,), TypeError, "int"),
        (("1/s",), celeriac.ConfigurationError, "nothing"),
    ],
)
def test_wrong(given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):

        @RateLimit(*given, key="of {nothing}")
        def task(number: int) -> None:
            """Never runs."""


def test_without_a_store() -> None:
    app = Celery("memory", broker="memory://", backend="cache+memory://", set_as_current=True)

    @app.task(name="homeless")
    @RateLimit("1/s")
    def homeless() -> None:
        """Never runs."""

    with pytest.raises(celeriac.ConfigurationError, match="RateLimit has no store"):
        homeless.apply(throw=True)
