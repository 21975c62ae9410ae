"""What comes in wrong, through Django's calls: keys, times, patterns, functions, serializers; and
a store's directory."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache, CacheKeyWarning

import celeriac
from celeriac import cached
from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]
TOLERANT = {"IGNORE_EXCEPTIONS": True}
LONG = "x" * 70_000
DAY = 86_400

# ---- keys


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_keys_over_64_kilobytes(backend: Make) -> None:
    cache = backend()
    for call in (
        lambda: cache.get(LONG),
        lambda: cache.set(LONG, 1),
        lambda: cache.add(LONG, 1),
        lambda: cache.get_many(["fine", LONG]),
        lambda: cache.delete(LONG),
        lambda: cache.get_or_set(LONG, 1),
        lambda: cache.incr(LONG),
        lambda: cache.ttl(LONG),
    ):
        with pytest.raises(celeriac.ValueTooLarge, match="a key of 70003 bytes is longer than"):
            call()
    tolerant = backend(OPTIONS=TOLERANT)
    tolerant.set("fine", 1)
    assert tolerant.get(LONG, "missed") == "missed"
    assert tolerant.set(LONG, 1) is False
    assert tolerant.get_or_set(LONG, lambda: "computed") == "computed"
    assert tolerant.get_many(["fine", LONG]) == {"fine": 1}
    for each in (cache, tolerant):
        assert each.set_many({"more": 2, LONG: 3}) == [LONG]
        assert each.get("more") == 2
        each.delete("more")


@pytest.mark.parametrize("key", ["", 5, None, 1.5, b"bytes", ("a", 1), True])
def test_keys_of_any_type_as_django_takes_them(backend: Make, key: Any) -> None:
    cache = backend()
    text = BaseCache({}).make_key(key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheKeyWarning)
        assert cache.set(key, "value") is True
        assert cache.get(key) == "value"
        assert cache.get_many([key]) == {key: "value"}
        assert cache.get_or_set(key, "other") == "value"
        assert cache.has_key(key)
        assert cache.keys() == [text.removeprefix(":1:")]
        assert cache.delete(key) is True


def test_the_warning_is_djangos(backend: Make) -> None:
    cache, django = backend(), BaseCache({})
    for key in ("a key", "x" * 300, "tab\t", "\x7f"):
        with pytest.warns(CacheKeyWarning) as expected:
            django.validate_key(django.make_key(key))
        for call in (cache.get, cache.has_key, cache.delete, cache.ttl, cache.persist):
            with pytest.warns(CacheKeyWarning) as caught:
                call(key)
            assert [str(one.message) for one in caught] == [str(one.message) for one in expected]
            assert [one.filename for one in caught] == [__file__]


# ---- times


@pytest.mark.parametrize(
    ("timeout", "left"),
    [
        (31 * DAY, 31 * DAY),  # memcached takes these for moments
        (365 * DAY, 365 * DAY),
        (True, 1),
        (False, 0),
        (0, 0),
        (-1, 0),
        (-0.001, 0),
        (None, None),
    ],
)
def test_timeouts(backend: Make, timeout: Any, left: int | None) -> None:
    cache = backend()
    for store in (
        lambda: cache.set("key", "value", timeout),
        lambda: cache.set_many({"key": "value"}, timeout),
        lambda: (cache.set("key", "value"), cache.touch("key", timeout)),
        lambda: (cache.delete("key"), cache.add("key", "value", timeout)),
        lambda: (cache.delete("key"), cache.get_or_set("key", "value", timeout)),
    ):
        cache.set("key", "before")
        store()
        assert cache.ttl("key") == left
        assert cache.get("key", "gone") == ("gone" if left == 0 else "value")


# ---- patterns


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_ten_thousand_stars(backend: Make) -> None:
    cache = backend(KEY_PREFIX="p*[")
    key = "a" * 20_000
    cache.set_many({key: 1, "b": 2})
    assert cache.keys("a*" * 10_000) == [key]
    assert cache.keys("a*" * 10_000 + "b") == []
    assert list(cache.iter_keys("*" * 10_000 + "b")) == ["b"]
    assert cache.delete_pattern("?*" * 10_000 + "b") == 0
    assert cache.delete_pattern("*a" * 10_000) == 1
    assert cache.keys() == ["b"]


# ---- functions of get_or_set


def raises() -> None:
    raise KeyError("mine")


@pytest.mark.parametrize("options", [{}, TOLERANT], ids=["strict", "tolerant"])
def test_functions(backend: Make, options: dict[str, Any]) -> None:
    cache = backend(OPTIONS=options)
    with pytest.raises(KeyError, match="mine"):
        cache.get_or_set("key", raises)
    assert not cache.has_key("key")
    calls = []
    for _ in range(2):
        assert cache.get_or_set("none", lambda: calls.append(1)) is None
    assert calls == [1]
    assert cache.get("none", "default") is None
    with pytest.raises(celeriac.DeadlockError, match="'key'"):
        cache.get_or_set("key", lambda: cache.get_or_set("key", list))
    assert cache.get_or_set("key", lambda: cache.get("key", "absent")) == "absent"
    with pytest.raises(SystemExit):
        cache.get_or_set("exits", sys.exit)
    assert cache.get_or_set("exits", 1) == 1
    assert cache.ignored_exceptions == 0


def test_a_function_that_never_returns(backend: Make) -> None:
    cache = backend()
    started, end = threading.Event(), threading.Event()

    def never() -> str:
        started.set()
        end.wait(60)
        return "late"

    thread = threading.Thread(target=cache.get_or_set, args=("key", never))
    thread.start()
    assert started.wait(30)
    assert backend().get_or_set("key", lambda: "ours", wait=0.05) == "ours"
    assert cache.get("key") == "ours"
    end.set()
    thread.join()
    assert cache.get("key") == "ours"


# ---- serializers


@pytest.mark.parametrize(
    ("serializer", "said"),
    [
        ("msgpack", "needs the package msgpack, which is not installed: pip install msgpack"),
        ("no.such.path", "serializer 'no.such.path' can't be imported"),
        ("yaml", "unknown serializer 'yaml'"),
    ],
)
def test_serializers_that_are_not_there(
    backend: Make, monkeypatch: pytest.MonkeyPatch, serializer: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    for options in ({}, TOLERANT):  # a mistake in the settings isn't an outage
        with pytest.raises(celeriac.ConfigurationError, match=said):
            backend(OPTIONS={"serializer": serializer, **options}).get("key")


class RaisesInTheMiddle:
    def __reduce__(self) -> Any:
        raise RuntimeError("in the middle")


@pytest.mark.parametrize(
    "options", [{}, TOLERANT, {"serializer": "pickle"}, {"compressor": "zlib"}]
)
def test_a_value_that_raises_in_the_middle(backend: Make, options: dict[str, Any]) -> None:
    cache = backend(OPTIONS=options)
    cache.set("key", "before", 100)
    value = ["x" * 2000, {"deep": [RaisesInTheMiddle()]}]
    for call in (
        lambda: cache.set("key", value),
        lambda: cache.add("new", value),
        lambda: cache.set_many({"a": 1, "new": value}),
        lambda: cache.get_or_set("new", lambda: value),
    ):
        with pytest.raises(celeriac.SerializationError, match="in the middle"):
            call()
    assert cache.get_many(["key", "new", "a"]) == {"key": "before"}
    assert cache.ttl("key") == 100
    assert cache.get_or_set("new", "fine") == "fine"


# ---- no thread of its own

ALONE = """
import os, sys, time
from celeriac.django.cache import CeleriacCache
cache = CeleriacCache(sys.argv[1], {"OPTIONS": {"memory": "8M"}})
for i in range(3000):
    cache.set(f"key:{i}", b"x" * 5000, 0.01 if i % 2 else 300)
cache.get_or_set("key", lambda: 1)
cache.delete_pattern("key:1*")
print(len(os.listdir("/proc/self/task")), flush=True)
"""


def test_nothing_runs_beside_the_calls(location: str) -> None:
    """Expired entries need no thread that looks for them."""
    command = [sys.executable, "-c", ALONE, location]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")


# ---- a store that can't be used


def _not_mounted(store: Path) -> None:
    store.parent.rename(store.parent.with_name("elsewhere"))


def _replaced_by(kind: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(store: Path) -> None:
        store.rename(store.with_name("elsewhere"))
        kind(store)

    return replace


PLACES: dict[str, Callable[[Path], object]] = {
    "its parent isn't mounted": _not_mounted,
    "open to others": lambda store: store.chmod(0o777),
    "its file open to others": lambda store: (store / "arena").chmod(0o666),
    "a link": _replaced_by(lambda store: store.symlink_to(store.with_name("elsewhere"))),
    "a file": _replaced_by(lambda store: store.touch()),
    "a file with two names": lambda store: (store / "two").hardlink_to(store / "arena"),
    "a directory in the file's place": lambda store: (
        (store / "arena").unlink(),
        (store / "arena").mkdir(),
    ),
    "another's": lambda store: os.chown(store, 12345, 12345),
    "its file another's": lambda store: os.chown(store / "arena", 12345, 12345),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_directory_that_is_not_as_it_was_is_an_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    if "another's" in what and os.geteuid() != 0:
        pytest.skip("chown needs root: run these tests as root")
    (tmp_path / "disk").mkdir()
    store = tmp_path / "disk" / "store"
    celeriac.connect(f"file://{store}").close()
    PLACES[what](store)
    tolerant = CeleriacCache(f"file://{store}", {"OPTIONS": {"IGNORE_EXCEPTIONS": True}})
    with caplog.at_level(logging.WARNING, "celeriac.django"):
        assert tolerant.get("key", "default") == "default"
        assert tolerant.set("key", 1) is False
        assert tolerant.get_or_set("key", lambda: 2) == 2
        assert cached(60, key="key", cache=tolerant)(lambda: 3)() == 3
    assert tolerant.ignored_exceptions == 4
    assert len(caplog.records) == 1
    with pytest.raises(celeriac.ConfigurationError):
        CeleriacCache(f"file://{store}", {}).get("key")


@pytest.mark.parametrize("options", [{"memory": 1000}, {"mode": 0o660}, {"serializer": "no.such"}])
def test_settings_that_can_not_be_are_no_outage(
    backend: Make, location: str, options: dict[str, Any]
) -> None:
    celeriac.connect(location)
    with pytest.raises(celeriac.ConfigurationError):
        backend(OPTIONS={"IGNORE_EXCEPTIONS": True, **options}).get("key")
