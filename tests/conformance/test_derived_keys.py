"""``@cached`` without ``key=``: only for functions whose name is theirs alone."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Store, cached, evict


@pytest.fixture
def cache(store: Store) -> Iterator[Cache]:
    celeriac.set_default(store)
    yield store.cache()
    celeriac.set_default(None)


class Callable:
    def __call__(self, x: int) -> int:
        return x

    def method(self, x: int) -> int:
        return x


def a_function_of_main(x: int) -> int:
    return x


a_function_of_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x, "all lambdas"),
        (functools.partial(divmod, 7), "a partial has no name of its own"),
        (Callable(), "a Callable has no name of its own"),
        (Callable().method, "a bound method has the name"),
        (a_function_of_main, "called __main__"),
        (functools.wraps(a_function_of_main)(lambda x: x), "called __main__"),
        ([].append, "no name of its own"),
    ],
)
def test_no_key_is_derived_where_others_would_share_it(
    cache: Cache, function: Any, reason: str
) -> None:
    def inner(x: int) -> int:
        return x

    for decorate in (cached, cached(60), cached(tags=["t"], prefix="p")):
        with pytest.raises(celeriac.ConfigurationError, match=f"{reason}.* give key="):
            decorate(function)
        with pytest.raises(celeriac.ConfigurationError, match=r"<locals>\.inner: .* give key="):
            decorate(inner)
    given = cached(key=lambda *args: f"k:{args[0]}")(function)
    assert given.cache_key(3) == "k:3"
    assert repr(given).startswith("<cached ")


def test_things_without_a_name(cache: Cache) -> None:
    halves = cached(key="half:{x}")(functools.partial(Callable().method))
    assert halves(3) == halves(3) == 3
    assert "half:3" in cache
    with pytest.raises(pickle.PicklingError, match="no name"):
        pickle.dumps(halves)
    with pytest.raises(celeriac.ConfigurationError, match=r"partial.*\(\) has no argument 'y'"):
        cached(key="{y}")(functools.partial(Callable().method))
    with pytest.raises(celeriac.ConfigurationError, match=r"partial.*\(\) has no argument 'y'"):
        evict("{y}")(functools.partial(Callable().method))
