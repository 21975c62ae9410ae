"""A task that can't be sent is an OperationalError, as Celery says, and celeriac's error."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.exceptions import OperationalError

import celeriac
from celeriac.celery import errors
from celeriac.celery.broker import Broker

KINDS = ("QueueFull", "NotEnoughMemory", "LockTimeout")


@pytest.fixture
def small_app(store_url: str) -> Any:
    """An application on a store of 2 MiB."""
    url = store_url.partition("?")[0]
    with Celery("x", broker=f"celeriac+{url}?memory=2M", set_as_current=False) as app:
        yield app


def test_a_full_store(small_app: Any) -> None:
    for _ in range(10_000):
        try:
            small_app.send_task("t", args=["x" * 2000])
        except OperationalError as error:
            caught = error
            break
    assert isinstance(caught, celeriac.QueueFull)
    assert str(caught.__cause__) == str(caught)
    assert type(caught.__cause__) is celeriac.QueueFull


def test_a_file_system_that_is_too_small(store_url: str) -> None:
    url = store_url.partition("?")[0]
    with Celery("x", broker=f"celeriac+{url}?memory=500T", set_as_current=False) as app:
        with pytest.raises(OperationalError, match="memory=") as caught:
            app.send_task("t")
        assert isinstance(caught.value, celeriac.NotEnoughMemory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["publish", "declare", "bind"])
def test_each_kind_is_tried_once(
    kind: str, method: str, small_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(*args: Any, **kwargs: Any) -> None:
        tried.append(method)
        raise getattr(celeriac, kind)("full")

    monkeypatch.setattr(Broker, method, fail)
    with pytest.raises(OperationalError, match="full") as caught:
        small_app.send_task("t", retry=True, retry_policy={"max_retries": None})
    assert isinstance(caught.value, getattr(celeriac, kind))
    assert tried == [method]


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_pickled(kind: str) -> None:
    error = pickle.loads(pickle.dumps(getattr(errors, kind)("full")))
    assert type(error) is getattr(errors, kind)
    assert str(error) == "full"


def test_a_wrong_setting_is_no_operational_error(
    connect: Callable[..., kombu.Connection],
) -> None:
    with pytest.raises(celeriac.ConfigurationError) as caught:
        connect(connect_options={"memory": "x"}).connect()
    assert not isinstance(caught.value, OperationalError)
