"""Arguments that can't be: an error that says which and what it was, and nothing changed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]
FINITE = "a finite number of seconds, or None for no limit"


def calls_with(cache: CeleriacCache, timeout: Any) -> list[Callable[[], object]]:
    return [
        lambda: cache.set("key", 1, timeout),
        lambda: cache.set("new", 1, timeout, nx=True),
        lambda: cache.set("key", 1, timeout, xx=True),
        lambda: cache.add("new", 1, timeout),
        lambda: cache.touch("key", timeout),
        lambda: cache.set_many({"key": 1}, timeout),
        lambda: cache.get_or_set("new", list, timeout),
        lambda: cache.expire("key", timeout),
        lambda: cache.pexpire("key", timeout),
        lambda: asyncio.run(cache.aset("key", 1, timeout)),
        lambda: asyncio.run(cache.atouch("key", timeout)),
        lambda: asyncio.run(cache.aget_or_set("new", list, timeout)),
    ]


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(
    ("timeout", "error", "said"),
    [
        (math.nan, ValueError, f"timeout=nan: {FINITE}"),
        (math.inf, ValueError, f"timeout=inf: {FINITE}"),
        (-math.inf, ValueError, f"timeout=-inf: {FINITE}"),
        (2**2000, ValueError, FINITE),
        ("60", TypeError, f"timeout is {FINITE}, not str"),
        ([60], TypeError, f"timeout is {FINITE}, not list"),
    ],
    ids=lambda value: repr(value)[:10],
)
def test_timeouts(
    backend: Make, ignore: bool, timeout: Any, error: type[Exception], said: str
) -> None:
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})
    cache.set("key", "before", 100)
    for call in calls_with(cache, timeout):
        with pytest.raises(error, match=said):
            call()
    assert cache.keys() == ["key"]
    assert (cache.get("key"), cache.ttl("key")) == ("before", 100)
    assert cache.ignored_exceptions == 0


@pytest.mark.parametrize("when", [None, "now", math.nan, math.inf, -math.inf])
def test_moments(backend: Make, when: Any) -> None:
    cache = backend()
    cache.set("key", "before", 100)
    for call in (cache.expire_at, cache.pexpire_at):
        with pytest.raises((TypeError, ValueError), match="when"):
            call("key", when)
    assert cache.ttl("key") == 100


def test_numbers_of_any_kind(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value", Decimal(30))
    assert cache.ttl("key") == 30
    cache.pexpire("key", Decimal(20_000))
    assert cache.ttl("key") == 20


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"timeout": -1}, ValueError, "timeout=-1: a finite number of seconds, above 0, or None"),
        ({"timeout": 0}, ValueError, "timeout=0: .*, above 0, or None for no limit"),
        ({"timeout": math.nan}, ValueError, "timeout=nan: .*, above 0"),
        ({"timeout": math.inf}, ValueError, "timeout=inf: .*, above 0"),
        ({"timeout": "5"}, TypeError, "timeout is a finite number of seconds.* not str"),
        ({"blocking_timeout": -1}, ValueError, "blocking_timeout=-1: .* at least 0, or None"),
        ({"blocking_timeout": math.nan}, ValueError, "blocking_timeout=nan: .* at least 0"),
        ({"blocking_timeout": "5"}, TypeError, "blocking_timeout is a .* not str"),
    ],
)
def test_locks(backend: Make, options: dict[str, Any], error: Any, said: str) -> None:
    cache = backend()
    with pytest.raises(error, match=said):
        cache.lock("key", **options)
    lock = cache.lock("key", timeout=60)
    for name, value in options.items():
        if name == "blocking_timeout":
            with pytest.raises(error, match=said):
                lock.acquire(**{name: value})
        assert not lock.locked()
    assert lock.acquire(blocking_timeout=0)
    for wrong in (math.nan, math.inf, "5", None):
        with pytest.raises((TypeError, ValueError), match="additional_time"):
            lock.extend(wrong)  # type: ignore[arg-type]
    lock.release()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.set_many([("key", 1)]), "data is a mapping such as a dict, not list"),
        (lambda c: c.set_many("key"), "data is a mapping such as a dict, not str"),
        (lambda c: c.invalidate(["t"]), "a tag is a str, not list"),
        (lambda c: c.set("key", 1, tags=[["t"]]), "a tag is a str, not list"),
        (lambda c: c.keys(5), "a pattern is a str, not int"),
        (lambda c: list(c.iter_keys("*", itersize="9")), "itersize is an int, not str"),
        (lambda c: c.incr("n", 1.5), "delta is an int, not float"),
        (lambda c: c.decr("n", "1"), "delta is an int, not str"),
        (lambda c: c.get_or_set("new", 1, wait="5"), "wait is a number of seconds, not str"),
    ],
)
def test_other_arguments(backend: Make, call: Callable[[CeleriacCache], object], said: str) -> None:
    cache = backend()
    cache.set_many({"key": "before", "n": 5}, None)
    with pytest.raises(TypeError, match=said):
        call(cache)
    assert cache.get_many(["key", "n", "new"]) == {"key": "before", "n": 5}
