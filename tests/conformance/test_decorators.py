"""``@cached`` and ``@evict``."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import pickle
import sys
import threading
import time
import types
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import celeriac
import celeriac.aio
from celeriac import Cache, Store, cached, evict


@pytest.fixture
def cache(store: Store) -> Iterator[Cache]:
    celeriac.set_default(store)
    yield store.cache()
    celeriac.set_default(None)


class User:
    def __init__(self, pk: Any) -> None:
        self.pk = pk


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int


# ------------------------------------------------------------------ keys


def test_template(cache: Cache) -> None:
    calls = []

    @cached(60, key="product:{id}")
    def product(id: int, currency: str = "EUR") -> list[int]:
        """Fetch a product."""
        calls.append(id)
        return [id]

    assert product(7) == product(7) == product(id=7) == [7]
    assert calls == [7]
    assert product.cache_key(7) == product.cache_key(id=7) == "product:7"
    assert cache.get("product:7") == [7]
    assert 59 < (cache.ttl("product:7") or 0) <= 60
    assert product(8) == [8]
    assert product.__name__ == "product"
    assert product.__doc__ == "Fetch a product."


def test_template_of_attributes_defaults_and_many(cache: Cache) -> None:
    @cached(key="{user.pk}:{page}:{rest[0]}:{sort}:{extra}", prefix="p")
    def page(user: User, page: int = 1, *rest: int, sort: str = "name", **more: int) -> str:
        return "page"

    assert page.cache_key(User(3), 2, 9, extra=5) == "p:3:2:9:name:5"
    with pytest.raises(KeyError, match="extra"):
        page.cache_key(User(3), 2, 9)


def test_callable_key(cache: Cache) -> None:
    @cached(key=lambda a, b=2: f"{a}/{b}", prefix="pre:")
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert add(1) == 3
    assert cache.keys() == ["pre:1/2"]
    wrong = cached(key=lambda a: a)(lambda a: a)
    with pytest.raises(TypeError, match=r"made a int .* not a str"):
        wrong(1)


@cached
def double(x: Any, *args: Any, y: Any = 0, **more: Any) -> Any:
    return "value"


def test_derived_key(cache: Cache) -> None:
    def key(*args: Any, **kwargs: Any) -> str:
        made = double.cache_key(*args, **kwargs)
        assert isinstance(made, str)
        assert len(made) < 250
        assert made.isprintable()
        assert " " not in made
        return made

    assert double(1) == "value"
    assert double.cache_key(1) in cache
    assert key(1) == key(x=1) == key(1, y=0)
    values = [
        1, "1", 1.0, True, None, b"1", (1,), [1], {1}, {1: 1}, {1: "1"}, "a b", "ü" * 300,
        Color.RED,
        decimal.Decimal(1), datetime.date(2026, 1, 1), datetime.timedelta(1), uuid.UUID(int=1),
        Point(1, 2), Point(2, 1), User(1), User(2), User, Point, [[1], [2]], [[1, 2]], "a,y=1",
    ]  # fmt: skip
    keys = [key(value) for value in values]
    assert len(set(keys)) == len(values)
    assert [key(value) for value in values] == keys
    assert key({1, 2, 3}) == key({3, 2, 1})
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key(1, 2) != key(1, y=2) != key(1, z=2)
    for value in (object(), lambda: 1, User(None), [threading.Lock()]):
        with pytest.raises(TypeError, match=r"argument 'x' has a .*; give key="):
            double(value)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("product:{sku}", celeriac.ConfigurationError, "has no argument 'sku'; it has id, more"),
        ("product:{}", celeriac.ConfigurationError, "no argument ''"),
        ("product:{0}", celeriac.ConfigurationError, "no argument '0'"),
        ("product:{id", celeriac.ConfigurationError, "is no template"),
        (7, TypeError, "key= is a template or a callable, not int"),
    ],
)
def test_wrong_keys_are_errors_at_once(key: Any, error: type[Exception], message: str) -> None:
    def product(id: int, more: int = 1) -> None: ...

    with pytest.raises(error, match=message):
        cached(key=key)(product)
    if isinstance(key, str):
        with pytest.raises(error, match=message):
            evict(key)(product)
        with pytest.raises(error, match=message.replace("key", "tag")):
            cached(key="k", tags=[key])(product)


def test_what_can_not_be_cached() -> None:
    def generator() -> Iterator[int]:
        yield 1

    for wrong in (generator, property(lambda self: 1), classmethod(lambda cls: 1), 5):
        with pytest.raises(TypeError):
            cached(ttl=60)(wrong)
    with pytest.raises((TypeError, ValueError)):
        cached(ttl="soon", key="k")(lambda: 1)
    with pytest.raises(TypeError, match="missing a required argument"):
        cached(key="{a}")(lambda a: a)()


# ------------------------------------------------------------------ calls


def test_invalidate_bypass_refresh(cache: Cache) -> None:
    calls = iter(range(100))

    @cached(key="n:{x}")
    def count(x: int) -> int:
        return next(calls)

    assert count(1) == count(1) == 0
    assert count.bypass(1) == 1
    assert count(1) == 0
    assert count.refresh(1) == 2
    assert count(1) == 2
    assert count.invalidate(1) is True
    assert count.invalidate(1) is False
    assert count(1) == 3


def test_none_and_errors(cache: Cache) -> None:
    calls = []

    @cached(key="k:{x}")
    def function(x: Any) -> None:
        calls.append(x)
        if x == "raise":
            raise LookupError(x)

    assert function(1) is function(1) is None
    assert calls == [1]
    for _ in range(2):
        with pytest.raises(LookupError):
            function("raise")
    assert calls == [1, "raise", "raise"]


class Shop:
    def __init__(self, pk: int) -> None:
        self.pk = pk
        self.calls = 0

    @cached(key="shop:{self.pk}:{item}")
    def price(self, item: str) -> int:
        self.calls += 1
        return self.pk * 10

    @cached
    def derived(self) -> int:
        return self.pk

    @staticmethod
    @cached(key="static:{x}")
    def static(x: int) -> int:
        return x

    @classmethod
    @cached
    def of_class(cls, x: int) -> str:
        return cls.__name__


class Other(Shop):
    pass


def test_methods(cache: Cache) -> None:
    one, two = Shop(1), Shop(2)
    assert [one.price("a"), one.price("a"), two.price("a")] == [10, 10, 20]
    assert one.calls == 1
    assert one.price.cache_key("a") == Shop.price.cache_key(one, "a") == "shop:1:a"
    assert one.price.invalidate("a") is True
    assert one.price.bypass("b") == 10
    assert (one.derived(), two.derived()) == (1, 2)
    assert Shop.static(5) == one.static(5) == 5
    assert (Shop.of_class(1), Other.of_class(1)) == ("Shop", "Other")


def test_tags_and_stale(cache: Cache) -> None:
    calls = iter(range(100))

    @cached(60, key="k:{id}", tags=["all", "id:{id}"], stale=100)
    def function(id: int) -> int:
        return next(calls)

    assert (function(1), function(2)) == (0, 1)
    cache.invalidate("id:1")
    assert (function(1), function(2)) == (2, 1)
    cache.invalidate("all")
    assert (function(1), function(2)) == (3, 4)
    tagged = cached(key="t:{x}", tags=lambda x: [f"x{x}"])(lambda x: next(calls))
    assert tagged(1) == tagged(1) == 5
    cache.invalidate("x1")
    assert tagged(1) == 6


def test_one_thread_computes(cache: Cache) -> None:
    calls = []

    @cached(key="slow")
    def slow() -> int:
        calls.append(1)
        time.sleep(0.05)
        return 1

    threads = [threading.Thread(target=slow) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_recursion_over_other_keys(cache: Cache) -> None:
    @cached(key="fib:{n}")
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(40) == 102334155

    @cached(key="always")
    def wrong(n: int) -> int:
        return wrong(n - 1)

    with pytest.raises(celeriac.DeadlockError):
        wrong(5)


@pytest.mark.parametrize("name", ["stale", "stale_on_error", "early", "wait"])
@pytest.mark.parametrize(("given", "error"), [(-5, ValueError), ("60", TypeError)])
def test_wrong_seconds_are_errors_at_once(name: str, given: Any, error: Any) -> None:
    with pytest.raises(error, match=f"{name}.* a number of seconds"):
        cached(60, **{name: given})


# ------------------------------------------------------------------ which cache


def test_named_caches(store: Store) -> None:
    other = store.cache("other")
    for given in (other, lambda: other, lambda: celeriac.aio.AsyncCache(other)):
        other.clear()
        assert cached(key="k", cache=given)(lambda: "value")() == "value"
        assert other.keys() == ["k"]
    with pytest.raises(TypeError, match="cache= is a cache or a function that gives one, not int"):
        cached(key="k", cache=5)(lambda: 1)()


def test_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    celeriac.set_default(None)
    function = cached(key="k")(lambda: 1)
    with pytest.raises(celeriac.ConfigurationError, match=r"call celeriac\.set_default\(store\)"):
        function()
    with pytest.raises(celeriac.ConfigurationError, match="no default cache"):
        function.invalidate()


def test_another_default(cache: Cache, connect: Any) -> None:
    function = cached(key="k")(lambda: "value")
    function()
    store = connect()
    celeriac.set_default(store)
    assert function() == "value"
    store.close()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        function()


@cached(key="module:{x}")
def of_this_module(x: int) -> int:
    return x


def test_it_pickles_as_a_function_does(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(__name__)  # pytest imports this file under no name
    module.of_this_module = of_this_module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, __name__, module)
    assert pickle.loads(pickle.dumps(of_this_module)) is of_this_module


# ------------------------------------------------------------------ async


def test_async(cache: Cache) -> None:
    calls = []

    @cached(60, key="a:{x}", tags=["t"])
    async def function(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.01)
        return x * 2

    class Thing:
        pk = 9

        @cached(key="thing:{self.pk}")
        async def method(self) -> str:
            return "method"

    assert asyncio.iscoroutinefunction(function)
    if hasattr(inspect, "markcoroutinefunction"):
        assert inspect.iscoroutinefunction(function)

    async def main() -> None:
        assert await asyncio.gather(*(function(2) for _ in range(10))) == [4] * 10
        assert calls == [2]
        assert await function.bypass(2) == 4
        assert await function.refresh(2) == 4
        assert calls == [2, 2, 2]
        assert await function.invalidate(2) == 1
        assert not function.invalidate(2)
        assert await function(2) == 4
        cache.invalidate("t")
        assert await function(2) == 4
        assert len(calls) == 5
        assert await Thing().method() == "method"
        assert Thing().method.cache_key() == "thing:9"

    asyncio.run(main())


# ------------------------------------------------------------------ evict


def test_evict(cache: Cache) -> None:
    cache.set_many({"product:7": 1, "product:8": 2, "list:7:1": 3, "list:7:2": 4, "list:8:1": 5})
    cache.set("tagged", 1, tags=["tag:7"])

    @evict("product:{id}", "list:{id}:*", tags=["tag:{id}"])
    def save(id: object) -> str:
        """Save it."""
        assert "product:8" in cache
        return "saved"

    assert save(7) == "saved"
    assert sorted(cache.keys()) == ["list:8:1", "product:8"]
    save("*")  # an argument is no pattern
    assert sorted(cache.keys()) == ["list:8:1", "product:8"]
    assert save.__doc__ == "Save it."


def test_evict_with_prefix_and_callables(cache: Cache) -> None:
    @cached(key="product:{id}", prefix="shop*")
    def product(id: int) -> int:
        return id

    product(1), product(2), cache.set("shopper:product:1", 1)

    @evict("product:*", prefix="shop*")
    def everything() -> None: ...

    @evict(lambda id: f"product:{id}", tags=lambda id: [f"t{id}"], prefix="shop*")
    def one(id: int) -> None: ...

    one(1)
    assert sorted(cache.keys()) == ["shop*:product:2", "shopper:product:1"]
    everything()
    assert cache.keys() == ["shopper:product:1"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_evict_before_or_after(cache: Cache, before: bool, is_async: bool) -> None:
    seen = []

    def function(fail: bool = False) -> None:
        seen.append("k" in cache)
        if fail:
            raise LookupError

    async def coroutine(fail: bool = False) -> None:
        function(fail)

    wrapped = evict("k", before=before)(coroutine if is_async else function)

    def call(**options: bool) -> None:
        result = wrapped(**options)
        if is_async:
            asyncio.run(result)

    cache.set("k", 1)
    call()
    assert seen == [not before]
    assert "k" not in cache
    cache.set("k", 1)
    with pytest.raises(LookupError):
        call(fail=True)
    assert ("k" in cache) is not before


def test_evict_takes_parentheses(cache: Cache) -> None:
    def key(id: int) -> str: return f"product:{id}"  # fmt: skip

    with pytest.raises(TypeError, match="@evict without parentheses"):

        @evict
        def save(id: int) -> None: ...

    with pytest.raises(TypeError, match="@evict without parentheses"):

        @evict
        @cached(60, key="k")
        @functools.cache
        def product(
            id: int,
            currency: str = "EUR",
        ) -> str:
            """Fetch."""
            return currency

    namespace = {"evict": evict}  # as typed into an interpreter: each begins with line 1
    exec("def key(id):\n    return f'product:{id}'", namespace)
    exec("@evict(key)\ndef save(id): pass", namespace)
    exec("@evict(lambda id: 'product:2')\ndef drop(id): pass", namespace)

    @evict(key)
    def fine(id: int) -> None: ...

    calls: list[tuple[Any, int]] = [(fine, 1), (namespace["drop"], 2), (namespace["save"], 3)]
    for call, id in calls:
        cache.set(f"product:{id}", 1)
        call(id)
        assert f"product:{id}" not in cache
    with pytest.raises(TypeError, match="@evict takes a function, not int"):
        evict("k")(5)  # type: ignore[type-var]


def test_generators_evict_nothing() -> None:
    def generator() -> Any:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match="is a generator: it would evict before"):
            evict("k")(function)
