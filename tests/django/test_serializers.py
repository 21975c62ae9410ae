"""Serializers behind the backend: what Django's encoder writes, and whose mistake an error is."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import pickle
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import lazystr

import celeriac
from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]

UTC = datetime.timezone.utc
VALUES = [
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678901),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3.5))),
    datetime.date(2026, 1, 2),
    datetime.time(3, 4, 5, 678901),
    datetime.time(3, 4, 5),
    datetime.timedelta(days=-3, hours=5, microseconds=7),
    datetime.timedelta(days=400),
    decimal.Decimal("-1.50E+7"),
    uuid.uuid5(uuid.NAMESPACE_DNS, "celeriac"),
    lazystr("later"),
    (1, [2.5, None, True], {"ü": "\u2028"}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_json_is_what_djangos_encoder_writes(backend: Make, value: Any) -> None:
    cache = backend(OPTIONS={"serializer": "json"})
    for given in (value, {"in": [value]}):
        cache.set("key", given)
        assert cache.get("key") == json.loads(json.dumps(given, cls=DjangoJSONEncoder))


@pytest.mark.parametrize("serializer", ["native", "json"])
@pytest.mark.parametrize("ignore", [False, True])
def test_a_value_that_can_not_be_written_is_the_callers_mistake(
    backend: Make, serializer: str, ignore: bool
) -> None:
    cache = backend(OPTIONS={"serializer": serializer, "IGNORE_EXCEPTIONS": ignore})
    cache.set("key", "old")
    value = {"frame": sys._getframe()}
    calls: list[Callable[[], object]] = [
        lambda: cache.set("key", value),
        lambda: cache.add("other", value),
        lambda: cache.set_many({"other": value}),
        lambda: cache.get_or_set("other", lambda: value),
        lambda: asyncio.run(cache.aset("key", value)),
        lambda: asyncio.run(cache.aget_or_set("other", value)),
    ]
    for call in calls:
        with pytest.raises(celeriac.SerializationError):
            call()
    assert cache.get("key") == "old"
    assert "other" not in cache
    assert cache.ignored_exceptions == 0


def test_set_many_with_max_entries_stores_all_or_none(backend: Make) -> None:
    for options in ({"MAX_ENTRIES": 10}, {"MAX_ENTRIES": 10, "serializer": "json"}):
        cache = backend(OPTIONS=options)
        with pytest.raises(celeriac.SerializationError):
            cache.set_many({"a": 1, "bad": sys._getframe()})
        assert "a" not in cache


@pytest.fixture
def unreadable(backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry whose class is gone, as after a deployment."""
    module = types.ModuleType("gone_soon")
    module.Thing = type("Thing", (), {"__module__": "gone_soon"})  # type: ignore[attr-defined]
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "gone_soon", module)
        backend().set("key", module.Thing())


@pytest.mark.usefixtures("unreadable")
def test_an_entry_that_can_not_be_read_is_a_miss_if_errors_are_ignored(backend: Make) -> None:
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": True})
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    cache.set("readable", 1)
    assert cache.get_many(["key", "readable", "none"]) == {"readable": 1}
    assert asyncio.run(cache.aget("key")) is None
    assert cache.ignored_exceptions >= 4
    cache.set("key", "new")
    assert cache.get("key") == "new"


@pytest.mark.usefixtures("unreadable")
def test_else_it_is_an_error(backend: Make) -> None:
    cache = backend()
    for call in (cache.get, lambda key: cache.get_many([key])):
        with pytest.raises(pickle.PickleError):
            call("key")


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("written", "options"),
    [({}, {}), ({}, {"tags": ["t"]}), ({}, {"stale": 60}), ({"compressor": "zlib"}, {})],
)
def test_get_or_set_and_cached_replace_it(
    backend: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    written: dict[str, Any],
    options: dict[str, Any],
    asynchronous: bool,
    ignore: bool,
) -> None:
    monkeypatch.setattr("celeriac.cache_entries._told", set())
    module = types.ModuleType("gone_soon")
    module.Thing = type("Thing", (), {"__module__": "gone_soon"})  # type: ignore[attr-defined]
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "gone_soon", module)
        for key in ("key", "other"):
            value = [module.Thing(), "x" * 5000]
            backend(OPTIONS=written).get_or_set(key, value, 60, **options)
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})
    if asynchronous:
        assert asyncio.run(cache.aget_or_set("key", lambda: "computed")) == "computed"
    else:
        assert cache.get_or_set("key", lambda: "computed") == "computed"
    assert celeriac.cached(60, key="other", cache=cache)(lambda: "anew")() == "anew"
    assert cache.get_many(["key", "other"]) == {"key": "computed", "other": "anew"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the value of ':1:key' in cache 'django' is computed anew" in line


class ReadInThreads:
    """Like what asks Django's database while it is read: not on an event loop."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_in_threads, ()


def _read_in_threads() -> str:
    if asyncio._get_running_loop() is not None:
        raise SynchronousOnlyOperation
    return "read"


@pytest.mark.parametrize("options", [{}, {"tags": ["t"]}])
def test_what_can_not_be_read_on_an_event_loop_stays(
    backend: Make, options: dict[str, Any]
) -> None:
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": True})
    cache.set("key", ReadInThreads(), **options)
    with pytest.raises(celeriac.SerializationError):
        asyncio.run(cache.aget_or_set("key", lambda: "computed"))
    assert cache.get("key") == "read"
