"""docs/celery.md: what it shows works as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state
from celery.exceptions import Reject, Retry
from kombu import Queue
from kombu.utils.imports import symbol_by_name

import celeriac
from celeriac.celery.amqp import AMQP
from celeriac.celery.beat import Scheduler

DOCUMENT = Path(__file__).parents[2] / "docs" / "celery.md"


@pytest.fixture
def shown() -> Iterator[dict[str, Any]]:
    """The names that the page's examples define, run one after the other."""
    names: dict[str, Any] = {"__name__": "shop"}
    shared = set(_state._on_app_finalizers)
    for block in re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S):
        exec(block, names)  # the page's own examples
        if "refresh_analytics" in names:
            names.setdefault("tasks", names["app"])
    yield names
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(shared)
    _state._set_current_app(None)


@pytest.fixture
def app(shown: dict[str, Any], store_url: str) -> Iterator[Celery]:
    """The page's application, with its settings, on the test's store."""
    app = shown["tasks"]
    settings = {k: v for k, v in shown.items() if k.startswith(("task_", "worker_", "beat_"))}
    app.conf.update(settings, broker_url=f"celeriac+{store_url}", result_backend=None)
    yield app
    app.close()


def call(task: Any, retries: int, *args: Any) -> Any:
    """Run a task's function as a worker that got it for the nth time would."""
    task.push_request(
        id="i", args=args, kwargs={}, retries=retries, called_directly=False, headers=None
    )
    try:
        return task(*args)
    finally:
        task.pop_request()


def test_queues_and_routes(app: Celery, store_url: str) -> None:
    with app.connection_for_write() as connection:
        for queue in app.conf.task_queues:
            assert isinstance(queue, Queue)
            queue(connection.default_channel).declare()
    app.tasks["shop.handle_event"].delay({})
    app.tasks["shop.notify_customer"].delay(1)
    for number in range(102):
        app.tasks["shop.refresh_analytics"].delay(number)
    store = celeriac.connect(store_url)
    ready = {name: store.queue(name).counts().ready for name in store.queues()}
    assert ready == {"webhook": 1, "notification": 1, "analytics": 100, "failed": 0}
    assert store.queue("webhook").ready()[0].priority == 9
    assert store.queue("notification").ready()[0].priority == 4


def test_a_rejected_event_is_among_the_failed(app: Celery, store_url: str) -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for queue in app.conf.task_queues:
            queue(channel).declare()
        app.tasks["shop.handle_event"].delay({})
        channel.basic_get("webhook").reject()
        failed = channel.basic_get("failed")
    assert failed.headers["x-first-death-queue"] == "webhook"
    assert failed.headers["task"] == "shop.handle_event"


def test_each_exception_has_its_retry(
    app: Celery, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = app.tasks["shop.handle_event"]
    raised: list[Exception] = []

    def apply_event(event: Any) -> Any:
        if raised:
            raise raised[0]
        return "done"

    monkeypatch.setitem(shown, "apply_event", apply_event)
    assert call(task, 0, {}) == "done"
    for error, retries, least, most in (
        (shown["RateLimited"](77), 0, 76, 78),
        (shown["RateLimited"](10**6), 3, 3599, 3601),
        (ConnectionError(), 0, 1, 3),
        (ConnectionError(), 7, 1, 257),
    ):
        raised[:] = [error]
        with pytest.raises(Retry) as caught:
            call(task, retries, {})
        assert least <= caught.value.when <= most
    raised[:] = [ConnectionError("still")]
    with pytest.raises(ConnectionError, match="still"):
        call(task, 8, {})
    raised[:] = [ValueError()]
    with pytest.raises(Reject) as rejected:
        call(task, 0, {})
    assert rejected.value.requeue is False


def test_the_other_examples_name_what_there_is(shown: dict[str, Any], store_url: str) -> None:
    last = shown["app"]
    assert last is not shown["tasks"]
    last.conf.update(broker_url=f"celeriac+{store_url}")
    assert type(last.amqp) is AMQP
    assert symbol_by_name(shown["beat_scheduler"]) is Scheduler
    last.close()
