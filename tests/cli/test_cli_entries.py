"""`celeriac keys`, `get` and `clear`."""

from __future__ import annotations

import fractions
import io
import json
import os
import pickle
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, main


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    with celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M") as store:
        yield store
        store.destroy(force=True)


def run(*arguments: str) -> int:
    """The exit code, argparse's own included."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(str(end.code))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == FINE
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["keys", "get", "clear"])
def test_help_and_bad_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == FINE
    assert "usage: celeriac" in capsys.readouterr().out
    assert run(command) == BAD_USAGE
    arguments = ["k"] if command == "get" else []
    assert run(command, "nonsense://x", *arguments) == BAD_USAGE
    name = f"t-{secrets.token_hex(6)}"
    assert run(command, f"shm://{name}", *arguments) == FINDING
    assert name in capsys.readouterr().err
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect(f"shm://{name}", create=False)


@pytest.mark.parametrize("command", ["keys", "get", "clear"])
def test_a_cache_that_is_not_there(
    command: str, store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.cache("prices").set("k", 1)
    arguments = ["k"] if command == "get" else []
    assert run(command, store.url, *arguments, "--cache", "prizes") == FINDING
    error = capsys.readouterr().err
    assert "'prizes'" in error
    assert "there are: prices" in error
    assert store.caches() == ["prices"]


def test_keys(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys", store.url) == FINE
    assert "no key matches '*'" in capsys.readouterr().out
    store.cache("a").set("product:1", "x" * 1000, ttl=60)
    store.cache("b").set_many({b"\xff\n": 1, "product:2": 2}, ttl=None)
    store.cache("celeriac.health").set("product:3", 1)
    rows = answer(capsys, "keys", store.url)
    assert {row["key"] for row in rows} == {"product:1", "product:2", "\\xff\n"}
    (row,) = answer(capsys, "keys", store.url, "*:1")
    assert (row["key"], row["cache"]) == ("product:1", "a")
    assert 1000 < row["bytes"] < 1100
    assert 30 < row["ttl"] <= 60
    assert [row["ttl"] for row in answer(capsys, "keys", store.url, "--cache=b")] == [None, None]
    own = answer(capsys, "keys", store.url, "--cache", "celeriac.health")
    assert [row["key"] for row in own] == ["product:3"]
    assert run("keys", store.url, "--limit", "2") == FINE
    table = capsys.readouterr().out
    assert "more than 2" in table
    assert table.count("product") + table.count("\\xff") == 2
    assert run("keys", store.url, "--limit", "3") == FINE
    table = capsys.readouterr().out
    assert "more than" not in table
    assert all(line.isprintable() for line in table.splitlines())
    assert run("keys", store.url, "--limit=0") == BAD_USAGE


def test_keys_of_values_of_any_kind(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for serializer in ("native", "pickle", "json"):
        cache = store.cache(serializer, serializer=serializer)
        cache.set_many({"text": "x", "nothing": None, "list": [1, {"a": 2}]}, ttl=60)
        if serializer != "json":
            cache.set("object", fractions.Fraction(1, 2), ttl=60)
            cache.set("tagged", fractions.Fraction(1, 2), ttl=60, tags=["t"])
    rows = answer(capsys, "keys", store.url)
    assert len(rows) == sum(len(store.cache(name)) for name in store.caches()) == 13
    assert all(30 < row["ttl"] <= 60 for row in rows)
    assert [row["key"] for row in answer(capsys, "keys", store.url, "o*", "--cache=native")] == [
        "object"
    ]


def test_looking_counts_nothing(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    cache = store.cache("a")
    cache.set("k", 1)
    before = store.stats()["caches"]
    assert run("keys", store.url) == FINE
    assert run("get", store.url, "k") == FINE
    assert run("get", store.url, "other") == FINDING
    assert store.stats()["caches"] == before


def test_get(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    cache = store.cache("a")
    cache.set("k", {"price": [1, "\x1b[31m"]}, tags=["x"])
    cache.set(b"\xff", 7, ttl=None)
    store.cache("packed", compressor="zlib").set("long", "x" * 5000)
    assert run("get", store.url, "k") == FINE
    assert capsys.readouterr().out == "{'price': [1, '\\x1b[31m']}\n"
    found = answer(capsys, "get", store.url, "k")
    assert found["value"] == {"price": [1, "\x1b[31m"]}
    assert (found["cache"], found["tags"]) == ("a", ["x"])
    assert 0 < found["ttl"] <= 300
    assert run("get", store.url, os.fsdecode(b"\xff")) == FINE
    assert capsys.readouterr().out == "7\n"
    assert answer(capsys, "get", store.url, "long")["value"] == "x" * 5000
    cache.set("set", {1})
    assert answer(capsys, "get", store.url, "set")["value"] == "{1}"


def test_get_of_what_is_absent(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.cache("a", lead=":1:").set(":1:product:7", 1)
    assert run("get", store.url, "product:7") == FINDING
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no key 'product:7'" in captured.err
    assert "there is ':1:product:7'" in captured.err
    assert run("get", store.url, "product:8") == FINDING
    assert "there is" not in capsys.readouterr().err
    store.cache("a").set("tagged", 1, tags=["x"])
    store.cache("a").invalidate("x")
    assert run("get", store.url, "tagged") == FINDING
    assert "invalidated" in capsys.readouterr().err


def test_get_of_a_key_that_several_caches_have(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.cache("a").set("k", 1)
    store.cache("b").set("k", 2)
    assert run("get", store.url, "k") == BAD_USAGE
    assert "--cache, one of a, b" in capsys.readouterr().err
    assert run("get", store.url, "k", "--cache", "b") == FINE
    assert capsys.readouterr().out == "2\n"


class Trap:
    """Unpickling makes a directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("options", [{}, {"serializer": "pickle"}, {"compressor": "zlib"}])
@pytest.mark.parametrize("tagged", [False, True])
def test_get_runs_no_code_unless_told(
    store: celeriac.Store,
    options: dict[str, Any],
    tagged: bool,
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = store.cache("a", compress_above=10, **options)
    tags = ["x"] if tagged else []
    cache.set("trap", Trap(str(tmp_path / "there")), tags=tags)
    cache.set("number", fractions.Fraction(1, 3), tags=tags)
    for key in ("trap", "number"):
        assert run("get", store.url, key) == FINDING
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "--unpickle" in captured.err
    assert list(tmp_path.iterdir()) == []
    assert run("get", store.url, "number", "--unpickle") == FINE
    assert capsys.readouterr().out == "Fraction(1, 3)\n"
    assert run("get", store.url, "trap", "--unpickle") == FINE
    assert len(list(tmp_path.iterdir())) == 1


def test_get_of_a_class_that_is_not_there(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Fleeting", type("Fleeting", (), {}), raising=False)
    fleeting = sys.modules[__name__].Fleeting  # type: ignore[attr-defined]
    fleeting.__module__, fleeting.__qualname__ = __name__, "Fleeting"
    store.cache("a").set("k", fleeting())
    monkeypatch.undo()
    assert run("get", store.url, "k", "--unpickle") == FINDING
    assert "Fleeting" in capsys.readouterr().err


def test_clear(
    store: celeriac.Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b, table = store.cache("a"), store.cache("b"), store.table("results")
    a.set_many({"x": 1, "y": 2})
    b.set("z", 3)
    table.set("k", b"v")
    store.queue("q").put("m")
    for said in ("n\n", ""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        assert run("clear", store.url) == FINDING
        assert "nothing was removed" in capsys.readouterr().out
    assert (len(a), len(b)) == (2, 1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("clear", store.url, "--cache", "a") == FINE
    output = capsys.readouterr().out
    assert "remove all entries of a in shm://" in output
    assert "2 removed" in output
    assert (len(a), len(b)) == (0, 1)
    assert run("clear", store.url, "--yes") == FINE
    assert "1 removed" in capsys.readouterr().out
    assert (len(b), table.get("k"), store.queue("q").counts().ready) == (0, b"v", 1)


def test_clear_a_prefix(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    plain, django = store.cache("a"), store.cache("b", lead=":1:")
    plain.set_many({"product:1": 1, "product:2": 1, "products:1": 1, "product": 1})
    django.set_many({":1:product:1": 1, ":1:user:1": 1})
    assert run("clear", store.url, "--prefix", "product", "--yes") == FINE
    assert "3 removed" in capsys.readouterr().out
    assert sorted(plain.keys()) == ["product", "products:1"]
    assert django.keys() == [":1:user:1"]
    assert run("clear", store.url, "--prefix", "products:", "--cache", "a", "--yes") == FINE
    assert plain.keys() == ["product"]
    assert run("clear", store.url, "--prefix", "", "--cache", "a", "--yes") == FINE
    assert plain.keys() == []
    assert run("clear", store.url, "--prefix", "(other)", "--yes") == BAD_USAGE
    assert len(django) == 1


def test_no_traceback_for_a_key_that_is_no_text(store: celeriac.Store) -> None:
    command = [sys.executable, "-m", "celeriac", "get", store.url, b"\xfe"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == FINDING
    assert done.stderr.startswith(b"celeriac: no key ")
    assert pickle.dumps(done.stderr).count(b"\n") <= 2
