"""The calls that C++ does are those of SyncCache: the same results, warnings and errors."""

from __future__ import annotations

import copy
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, CacheKeyWarning
from django.utils.safestring import SafeString

import celeriac
from celeriac import _core
from celeriac.django.cache import CeleriacCache
from celeriac.django.sync import SyncCache

Make = Callable[..., CeleriacCache]


@pytest.fixture
def native(backend: Make) -> CeleriacCache:
    cache = backend()
    cache.get("connects")
    return cache


@pytest.fixture
def python(native: CeleriacCache) -> SyncCache:
    """The same calls without C++, with keys of their own."""
    twin = SyncCache.__new__(SyncCache)
    twin.__dict__ = dict(native.__dict__)
    return twin


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call gives or raises, and what it warns of and where."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = ("gives", repr(call(*args, **kwargs)))
        except Exception as error:
            result = ("raises", f"{type(error).__name__}: {error}")
    return result, [(str(one.message), one.filename == __file__) for one in caught]


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


KEYS: list[Any] = [
    "key",
    "",
    "ключ",
    "日本" * 30,
    "\U0001f600",
    "x" * 247,
    "x" * 248,
    "é" * 247,
    "é" * 248,
    "a b",
    "tab\t",
    "\0",
    "del\x7f",
    "é \x7f",
    "\u2028",
    "\x80",
    "%s",
    "1234567",
    "12345678",
    "12345678 ",
    "1234567\n",
    "\ud800",
    5,
    None,
    b"bytes",
    ("a", 1),
    SafeString("safe"),
    Text("text"),
]
VERSIONS: list[Any] = [None, 1, 0, -7, 10**15, 2**63 - 1, 2**64, True, "v", "a b", 1.5]
TIMEOUTS: list[Any] = [DEFAULT_TIMEOUT, None, 60, 0, -1, 0.5, 1e-9, 1e300, math.inf, math.nan, True]
TIMEOUTS += [2**2000, -(2**2000), Decimal(5), "5", [], 31 * 86_400]


def both(native: Any, python: Any, name: str, *args: Any, **kwargs: Any) -> None:
    ours = outcome(getattr(native, name), *args, **kwargs)
    theirs = outcome(getattr(python, name), *args, **kwargs)
    assert ours == theirs, (name, args, kwargs)


STEPS: list[tuple[str, Callable[[Any], tuple[Any, ...]]]] = [
    ("get", lambda key: (key,)),
    ("get", lambda key: (key, "default")),
    ("set", lambda key: (key, {"a": 1})),
    ("get", lambda key: (key, "default")),
    ("get_many", lambda key: ([key, "other"],)),
    ("touch", lambda key: (key, 50)),
    ("has_key", lambda key: (key,)),
    ("add", lambda key: (key, 1)),
    ("delete", lambda key: (key,)),
    ("delete", lambda key: (key,)),
    ("add", lambda key: (key, 1)),
    ("incr", lambda key: (key,)),
    ("incr", lambda key: (key, 2**63 - 1)),
    ("incr", lambda key: (key, 2**70)),
    ("set_many", lambda key: ({"first": 1, key: "many"},)),
    ("get_many", lambda key: (("first", key),)),
]


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_every_call_with_any_key(native: CeleriacCache, python: SyncCache, key: Any) -> None:
    ours = [outcome(getattr(native, name), *args(key)) for name, args in STEPS]
    kept = stored_keys(native)
    native.clear()
    assert ours == [outcome(getattr(python, name), *args(key)) for name, args in STEPS]
    assert kept == stored_keys(native)


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_any_version(native: CeleriacCache, python: SyncCache, version: Any) -> None:
    outcome(native.set, "key", "native", version=version)
    both(native, python, "get", "key", None, version)
    assert outcome(python.get, "key", version=version)[0] == ("gives", "'native'")
    assert outcome(python.delete, "key", version=version)[0] == ("gives", "True")
    both(native, python, "get", "key", "gone", version=version)
    both(native, python, "get_many", ["key"], version=version)


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=lambda v: repr(v)[:20])
def test_any_timeout(native: CeleriacCache, python: SyncCache, timeout: Any) -> None:
    for cache in (native, python):
        cache.set("there", 1)
    for name, args in (
        ("set", ("key", 1, timeout)),
        ("touch", ("there", timeout)),
        ("set_many", ({"many": 1}, timeout)),
    ):
        ours = outcome(getattr(native, name), *args)
        left = [outcome(native.ttl, key) for key in ("key", "there", "many")]
        native.set("there", 1)
        theirs = outcome(getattr(python, name), *args)
        assert ours == theirs
        assert left == [outcome(native.ttl, key) for key in ("key", "there", "many")]
        native.set("there", 1)
    native.delete("new")
    ours = outcome(native.add, "new", 1, timeout)
    native.delete("new")
    assert ours == outcome(python.add, "new", 1, timeout)


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get", (), {}),
    ("get", ("key", 1, 2, 3), {}),
    ("get", ("key",), {"key": "key"}),
    ("get", ("key",), {"defualt": 1}),
    ("get", (), {"key": "key", "default": 7, "version": 3}),
    ("set", ("key",), {}),
    ("set", ("key", 1), {"nx": True}),
    ("set", ("key", 1), {"xx": True}),
    ("set", ("key", 1), {"nx": True, "xx": True}),
    ("set", (), {"value": 1, "key": "key", "timeout": 4, "version": 2}),
    ("add", (), {}),
    ("touch", ("key",), {"timeout": None}),
    ("delete", ("key",), {"version": 9}),
    ("has_key", ("key", 1, 2), {}),
    ("incr", ("nowhere",), {}),
    ("incr", ("nowhere",), {"ignore_key_check": True}),
    ("incr", ("text",), {}),
    ("incr", ("key", "a"), {}),
    ("incr", ("key", 1.5), {}),
    ("get_many", (5,), {}),
    ("get_many", ("text",), {}),
    ("get_many", ([["unhashable"]],), {}),
    ("set_many", ([("key", 1)],), {}),
    ("set_many", ({},), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS)
def test_ways_to_call(
    native: CeleriacCache, python: SyncCache, name: str, args: Any, kwargs: Any
) -> None:
    def prepare() -> None:
        native.clear()
        native.set_many({"key": 1, "text": "text"})

    prepare()
    ours = outcome(getattr(native, name), *args, **kwargs)
    prepare()
    assert ours == outcome(getattr(python, name), *args, **kwargs)


def test_keys_from_an_iterator(native: CeleriacCache) -> None:
    native.set_many({"a": 1, "b": [2]})
    assert native.get_many(iter(["a", "b", "c"])) == {"a": 1, "b": [2]}
    assert native.get_many({"a": 0, "b": 0}) == {"a": 1, "b": [2]}
    assert native.get_many({"a": 0}.keys()) == {"a": 1}


# ------------------------------------------------------------------ what is swapped while it runs


def odd_key(key: str, prefix: str, version: Any) -> str:
    return f"odd-{prefix}-{version}-{key}"


def stored_keys(cache: CeleriacCache) -> list[Any]:
    store = cache.store
    return sorted(key for name in store.caches() for key in store.cache(name).keys("*"))


def test_swapped_attributes(native: CeleriacCache) -> None:
    native.set("key", 1)
    native.key_func = odd_key
    assert native.get("key") is None
    native.set("key", 2)
    assert native.get_many(["key"]) == {"key": 2}
    native.key_prefix = "p"
    native.set("key", 3)
    native.version = 5
    native.set("key", 4)
    assert stored_keys(native) == [":1:key", "odd--1-key", "odd-p-1-key", "odd-p-5-key"]
    del native.key_func
    native.key_func = BaseCache({}).key_func
    assert native.get("key") is None
    native.set("key", 5)
    assert ":1:key" in stored_keys(native)
    assert "p:5:key" in stored_keys(native)
    native.version, native.key_prefix = 1, ""
    assert native.get("key") == 1
    native.default_timeout = 7
    native.set("key", 1)
    assert native.ttl("key") == 7
    native.default_timeout = None
    native.touch("key")
    assert native.ttl("key") is None


@pytest.mark.parametrize(
    "params",
    [
        {"KEY_PREFIX": "prefix", "VERSION": 3},
        {"KEY_PREFIX": "é" * 100, "VERSION": "ä" * 100},
        {"KEY_PREFIX": "x" * 300},
        {"KEY_PREFIX": "with space"},
        {"VERSION": None},
        {"KEY_FUNCTION": odd_key},
        {"TIMEOUT": 0},
        {"TIMEOUT": None},
        {"OPTIONS": {"MAX_ENTRIES": 3, "CULL_FREQUENCY": 0}},
        {"OPTIONS": {"max_entries": 3}},
        {"OPTIONS": {"serializer": "pickle"}},
    ],
    ids=lambda params: re.sub(" at 0x.*>", ">", str(params)),  # the same in each process
)
def test_settings(backend: Make, params: dict[str, Any]) -> None:
    native = backend(**params)
    outcome(native.get, "connects")
    python = SyncCache.__new__(SyncCache)
    python.__dict__ = native.__dict__
    for number in range(5):
        for version in (None, 1, 4):
            ours = outcome(native.set, f"key{number}", number, version=version)
            assert ours == outcome(python.set, f"key{number}", number, version=version)
            both(native, python, "get", f"key{number}", None, version)
            both(native, python, "ttl", f"key{number}", version)
    both(native, python, "get_many", [f"key{number}" for number in range(5)])
    both(native, python, "get", "x" * 60)
    both(native, python, "get", "x" * 60, None, 10**14)


class OwnKeys(CeleriacCache):
    def make_key(self, key: str, version: Any = None) -> str:
        return f"own {key}"

    def validate_key(self, key: str) -> None: ...


def test_a_subclass_with_keys_of_its_own(location: str) -> None:
    cache = OwnKeys(location, {})
    cache.set("key", 1)
    cache.set("key", 2)
    assert cache.get("key") == 2
    assert stored_keys(cache) == ["own key"]


def test_a_subclass_whose_calls_lead_here(location: str) -> None:
    class Louder(CeleriacCache):
        def get(self, key: str, default: Any = None, version: Any = None) -> Any:
            return ("loud", super().get(key, default, version))

    cache = Louder(location, {})
    cache.set("key", 1)
    assert cache.get("key") == ("loud", 1)
    assert cache.get_or_set("key", 2) == 1  # it looks for itself


def test_a_method_replaced_on_the_object_or_the_class(
    native: CeleriacCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.set("key", 1)
    with monkeypatch.context() as patch:
        patch.setattr(native, "make_key", lambda key, version=None: f"object-{key}")
        native.set("key", 2)
    with monkeypatch.context() as patch:
        patch.setattr(CeleriacCache, "make_key", lambda self, key, version=None: f"class-{key}")
        native.set("key", 3)
    with monkeypatch.context() as patch:
        patch.setattr(SyncCache, "get_backend_timeout", lambda self, timeout=None: 9)
        native.set("timed", 4)
        assert native.ttl("timed") == 9
    assert native.get("key") == 1
    native.set("timed", 4)
    assert native.ttl("timed") == 300
    assert stored_keys(native) == [":1:key", ":1:timed", "class-key", "object-key"]


def test_a_copy_and_a_twin_that_shares_attributes(native: CeleriacCache) -> None:
    native.set("key", 1)
    assert copy.copy(native).get("key") == 1
    twin = CeleriacCache.__new__(CeleriacCache)
    twin.__dict__ = native.__dict__
    assert twin.get("key") == 1
    with pytest.raises(AttributeError):
        CeleriacCache.__new__(CeleriacCache).get("key")


def test_the_warning_names_the_callers_line(native: CeleriacCache) -> None:
    for call in (
        lambda: native.get("a key"),
        lambda: native.set("a key", 1),
        lambda: native.get_many(["fine", "a key"]),
        lambda: native.set_many({"fine": 1, "a key": 1}),
        lambda: native.incr("a key"),
        lambda: native.delete("a key"),
    ):
        with pytest.warns(CacheKeyWarning, match="contains characters") as caught:
            call()
        assert [one.filename for one in caught] == [__file__]
        assert [one.lineno for one in caught] == [call.__code__.co_firstlineno]


# ------------------------------------------------------------------ bad values


class CountsReads:
    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("not on reading")

    def __reduce__(self) -> Any:
        return (CountsReads, (), {"a": 1})


def test_a_value_that_can_not_be_read(backend: Make) -> None:
    for ignore in (False, True):
        cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})
        cache.set("key", [CountsReads()])
        if ignore:
            assert cache.get("key", "default") == "default"
            assert cache.get_many(["key"]) == {}
        else:
            with pytest.raises(celeriac.SerializationError, match="not on reading"):
                cache.get("key")
            with pytest.raises(celeriac.SerializationError, match="not on reading"):
                cache.get_many(["key"])


class Closes:
    """Closes the store while it is being pickled."""

    cache: Any = None

    def __reduce__(self) -> Any:
        Closes.cache.store.close()
        return (str, ("closed",))


def test_a_store_that_closes_while_a_value_is_pickled(native: CeleriacCache) -> None:
    Closes.cache = native
    with pytest.raises(celeriac.CeleriacError, match="closed"):
        native.set("key", [Closes()])
    assert native.get("key") is None


class Swaps:
    """Swaps the cache's settings while it is being unpickled."""

    cache: Any = None

    def __reduce__(self) -> Any:
        return (_swap, ())


def _swap() -> str:
    Swaps.cache.key_prefix = "other"
    Swaps.cache.get("key")
    return "swapped"


def test_settings_that_change_while_a_value_is_unpickled(native: CeleriacCache) -> None:
    Swaps.cache = native
    native.set_many({"a": [Swaps()], "b": [Swaps()]})
    assert native.get_many(["a", "b"]) == {"a": ["swapped"], "b": ["swapped"]}
    assert native.get("a") is None


PLAIN: dict[str, Callable[[CeleriacCache], Any]] = {
    "get": lambda c: c.get("key"),
    "get of a missing key": lambda c: c.get("missing"),
    "set": lambda c: c.set("key", 2),
    "add": lambda c: c.add("new", 2),
    "touch": lambda c: c.touch("key", 9),
    "touch of a missing key": lambda c: c.touch("missing", 9),
    "has_key": lambda c: c.has_key("key"),
    "in": lambda c: "key" in c,
    "has_key of a missing key": lambda c: c.has_key("missing"),
    "incr": lambda c: c.incr("key"),
    "decr": lambda c: c.decr("key"),
    "delete": lambda c: c.delete("key"),
    "delete of a missing key": lambda c: c.delete("missing"),
    "get_many": lambda c: c.get_many(["key", "missing"]),
    "set_many": lambda c: c.set_many({"a": 1, "b": [1]}),
}


@pytest.mark.parametrize("call", PLAIN)
def test_plain_keys_do_not_reach_python(native: CeleriacCache, call: str) -> None:
    native.set("key", 1)
    ours: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).parent.name == "django":
            ours.append(f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_name}")

    for _ in range(20):  # CPython knows of a class that it is unchanged after some calls
        native.get("key")
    sys.setprofile(watch)
    try:
        PLAIN[call](native)
    finally:
        sys.setprofile(None)
    assert [name for name in ours if name.startswith(("sync.py", "more.py", "cache.py"))] == (
        ["sync.py: decr"] if call == "decr" else []
    )


def test_functions_that_look_like_methods(native: CeleriacCache) -> None:
    assert native.incr.__func__ is CeleriacCache.incr
    assert native.incr.__self__ is native
    with pytest.raises(TypeError, match=r"object is no cache"):
        CeleriacCache.incr(object(), "key")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs its object"):
        CeleriacCache.incr()  # type: ignore[call-arg]


def test_they_show_the_parameters_of_the_calls_that_they_stand_for() -> None:
    names = {name for name in vars(_core.DjangoCalls) if name[0] != "_"}
    assert {"get", "set", "add", "touch", "delete", "incr", "get_many", "set_many"} < names
    for name in names:
        ours, theirs = (
            list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
            for kind in (CeleriacCache, SyncCache)
        )
        assert [p.name for p in ours] == [p.name for p in theirs], name
        assert [p.kind for p in ours] == [p.kind for p in theirs], name


def test_no_next_class() -> None:
    assert CeleriacCache.get is _core.DjangoCalls.get
    with pytest.raises(AttributeError):
        _core.DjangoCalls().get("key")
