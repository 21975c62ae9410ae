"""``@cached`` without ``key=``: only for functions whose name is theirs alone."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


def typed(x: int) -> int:
    return x


typed.__module__ = "__main__"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x, "all lambdas"),
        (functools.partial(divmod, 7), "a partial has no name of its own"),
        (Callable(), "a Callable has no name of its own"),
        (Callable().method, "a bound method has the name"),
        (typed, "called __main__"),
        (functools.wraps(typed)(lambda x: x), "called __main__"),
        ([].append, "no name of its own"),
    ],
)
def test_no_key_is_derived_where_others_would_share_it(
    cache: Cache, function: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    for decorate in (cached, cached(60), cached(tags=["t"], prefix="p")):
        with pytest.raises(celeriac.ConfigurationError, match=f"{reason}.* give key="):
            decorate(function)
    given = cached(key=lambda *args: f"k:{args[0]}")(function)
    assert given.cache_key(3) == "k:3"
    assert repr(given).startswith("<cached ")


def adder(n: int, log: list[int]) -> Any:
    def add(x: int) -> int:
        log.append(x)
        return x + n

    return add


def test_functions_inside_of_functions(cache: Cache) -> None:
    calls: list[int] = []
    one, two = cached(adder(1, calls)), cached(adder(2, calls))
    assert [one(5), two(5), one(5), two(5)] == [6, 7, 6, 7]
    assert calls == [5, 5]
    twin = cached(adder(1, []))  # as another process makes it
    assert twin.cache_key(5) == one.cache_key(5) != two.cache_key(5)

    def add(x: int) -> int:
        return x

    first = cached(add)

    def add(x: int) -> int:  # type: ignore[no-redef]
        return -x

    assert [first(3), cached(add)(3)] == [3, -3]


def double(x: int) -> int:
    return 2 * x


def square(x: int) -> int:
    return x * x


class Repository:
    def get(self, x: int) -> int:
        return x


def test_what_a_function_closes_over_is_in_its_name(cache: Cache) -> None:
    def memo(function: Any) -> Any:
        @cached(60)
        def inner(x: int) -> Any:
            return sys.version, function(x)

        return inner

    def countdown(x: int) -> Any:
        return None if x == 0 else countdown(x - 1)

    assert [memo(double)(3)[1], memo(square)(3)[1], memo(countdown)(3)[1]] == [6, 9, None]
    assert cached(countdown)(3) is None
    with pytest.raises(celeriac.ConfigurationError, match="all lambdas"):
        memo(lambda x: x)
    repository = Repository()
    with pytest.raises(celeriac.ConfigurationError, match="a bound method"):
        memo(repository.get)

    def get(x: int) -> int:
        return repository.get(x)

    with pytest.raises(celeriac.ConfigurationError, match="its 'repository' from outside is a "):
        cached(get)
    assert cached(key="repository:{x}")(get)(3) == 3


SCRIPT = """
import sys, celeriac
celeriac.set_default(celeriac.connect(sys.argv[1]))
@celeriac.cached
def f(x): return [__file__, x]
assert f(1) == f(1)
print(f(1)[0])
"""


def test_scripts_do_not_share_their_functions(store: Store, tmp_path: Path) -> None:
    scripts = [tmp_path / "a.py", tmp_path / "b.py"]
    for script in scripts * 2:
        script.write_text(SCRIPT)
        done = subprocess.run(
            [sys.executable, str(script), store.url], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == (f"{script}\n", "")


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


def test_names_of_arguments_do_not_pass_for_values(cache: Cache) -> None:
    @cached
    def function(id: int, **options: Any) -> tuple[Any, ...]:
        return id, options

    odd = {"x=1,y": 2}
    assert function(1, x=1, y=2) == (1, {"x": 1, "y": 2})
    assert function(1, **odd) == (1, odd)
    assert function.cache_key(1, x=1, y=2).endswith(":id=1,x=1,y=2")


def test_all_keyword_arguments_are_no_argument() -> None:
    def function(id: int, *more: int, **options: Any) -> None: ...

    for decorate in (cached(key="u:{options}"), evict("u:{options}"), evict(tags="{options}")):
        with pytest.raises(celeriac.ConfigurationError, match="any number of arguments in 'opt"):
            decorate(function)
    assert cached(key="{id}:{more}:{other}")(function).cache_key(1, 2, other=3) == "1:(2,):3"


def test_what_no_key_can_be_made_of(cache: Cache) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=r"max.*says nothing about its arg.*wrap"):
        cached(key="k")(functools.partial(max, 1))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="its argument 'x' is nested too deeply, or holds itself"):
        cached(_identity)(endless)


def _identity(x: Any) -> Any:
    return x
