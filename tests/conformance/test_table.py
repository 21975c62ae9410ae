"""Tables: what caches do, and versions, changes, and no eviction."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

import celeriac
from celeriac import Store, Table


@pytest.fixture
def table(store: Store) -> Table:
    return store.table("t")


def test_tables_do_what_caches_do(table: Table) -> None:
    table.set("a", 1)
    assert table.add("a", 2) is False
    assert table.replace("a", 3) is True
    assert table.incr("a") == 4
    assert table.set_many({"b": None, "c": [1]}) == []
    assert table.get_many("abcd") == {"a": 4, "b": None, "c": [1]}
    assert table.delete("a") is True
    assert table.delete_many(["b", "x"]) == 1
    assert "c" in table
    assert len(table) == 1
    table.clear()
    assert len(table) == 0


def test_entries_stay_by_default(store: Store, table: Table) -> None:
    table.set("k", 1)
    assert table.ttl("k") is None
    table.set("k", 1, 60)
    assert 59 < (table.ttl("k") or 0) <= 60
    store.table("other", ttl=60).set("k", 1)
    assert 59 < (store.table("other").ttl("k") or 0) <= 60


def test_what_has_expired_goes_as_others_come(store: Store) -> None:
    """Nobody asks for those keys again, and memory isn't short."""
    table = store.table("sessions", ttl=0.05)
    for i in range(4000):
        table.set(f"old {i}", "x" * 100)
    time.sleep(0.06)
    for i in range(4000):
        table.set(f"new {i}", i, None)
    stats = store.stats()["tables"]["sessions"]
    assert 4000 <= stats["entries"] < 4400
    assert stats["expirations"] > 3600
    assert all(table.get(f"new {i}") == i for i in range(4000))


def test_items(table: Table) -> None:
    assert table.items() == []
    table.set_many({"a": 1, b"\xff": [2], "": None, "gone": 1, "ü": "x" * 5000})
    table.set("gone", 1, 0.001)
    time.sleep(0.01)
    assert sorted(table.items(), key=repr) == sorted(
        [("a", 1), (b"\xff", [2]), ("", None), ("ü", "x" * 5000)], key=repr
    )


def test_items_of_many(table: Table) -> None:
    expected = {f"key {i}": i for i in range(3000)}
    table.set_many(expected)
    items = table.items()
    assert len(items) == 3000
    assert dict(items) == expected


# ------------------------------------------------------------------ versions


def test_versions(table: Table) -> None:
    assert table.get_versioned("k") == (None, 0)
    table.set("k", None)
    value, first = table.get_versioned("k")
    assert value is None
    assert first != 0
    assert table.get_versioned("k") == (None, first)
    table.touch("k", 50)
    table.get("k")
    assert table.get_versioned("k") == (None, first)


def test_every_write_is_another_version(table: Table) -> None:
    seen = {0}
    for value in ("x", "x", b"x", None, None, [1], [1], "x" * 5000, 5, True):
        table.set("k", value)
        got, version = table.get_versioned("k")
        assert got == value
        assert version not in seen
        seen.add(version)
    table.delete("k")
    assert table.get_versioned("k") == (None, 0)


def test_compare_and_set(table: Table) -> None:
    assert table.compare_and_set("k", 5, "a") is False
    assert "k" not in table
    assert table.compare_and_set("k", 0, "a") is True
    assert table.compare_and_set("k", 0, "b") is False
    value, version = table.get_versioned("k")
    assert value == "a"
    assert table.compare_and_set("k", version, "b", 60) is True
    assert table.get("k") == "b"
    assert 59 < (table.ttl("k") or 0) <= 60
    assert table.compare_and_set("k", version, "c") is False
    assert table.get("k") == "b"


def test_compare_and_set_knows_what_came_between(table: Table) -> None:
    for between in (
        lambda: table.set("k", "a"),
        lambda: table.set("k", "other"),
        lambda: table.delete("k"),
        lambda: (table.delete("k"), table.add("k", "a")),
        lambda: table.set("k", "a", 0.001),
        table.clear,
    ):
        table.set("k", "a")
        version = table.get_versioned("k")[1]
        between()
        time.sleep(0.002)
        assert table.compare_and_set("k", version, "mine") is False
        assert table.get("k") != "mine"


def test_compare_and_set_of_counters(table: Table) -> None:
    table.set("n", 5)
    version = table.get_versioned("n")[1]
    table.incr("n")
    assert table.compare_and_set("n", version, 100) is False
    assert table.get("n") == 6
    assert table.compare_and_set("n", table.get_versioned("n")[1], 100) is True


def test_an_expired_key_is_missing(table: Table) -> None:
    table.set("k", 1, 0.001)
    time.sleep(0.01)
    assert table.get_versioned("k") == (None, 0)
    assert table.compare_and_set("k", 0, 2) is True


def test_nothing_is_lost_between_writers(
    table: Table, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = """
t = store.table("t")
for i in range(300):
    while True:
        value, version = t.get_versioned("k")
        if t.compare_and_set("k", version, (value or b"") + b"x"):
            break
"""
    writers = [python(code) for _ in range(3)]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    assert table.get("k") == b"x" * 900


# ------------------------------------------------------------------ changes


def test_every_change_counts(table: Table) -> None:
    seen = table.change_count("k")
    assert table.change_count("k") == seen
    version = 0
    for change in (
        lambda: table.set("k", 1),
        lambda: table.incr("k"),
        lambda: table.incr("k", 2**70),
        lambda: table.replace("k", "x"),
        lambda: table.compare_and_set("k", table.get_versioned("k")[1], "y"),
        lambda: table.delete("k"),
        lambda: table.add("k", 1),
        lambda: table.set("k", 1, 0),
    ):
        change()
        version = table.change_count("k")
        assert version != seen
        seen = version


def test_what_changes_nothing_does_not_count(table: Table) -> None:
    table.set("k", 1)
    seen = table.change_count("k")
    table.get("k")
    table.add("k", 2)
    table.compare_and_set("k", 0, 2)
    table.delete("missing")
    table.replace("missing", 1)
    assert table.change_count("k") == seen


def test_wait_for_change(table: Table) -> None:
    seen = table.change_count("k")
    assert table.wait_for_change("k", seen, 0) is False
    begin = time.monotonic()
    assert table.wait_for_change("k", seen, 0.05) is False
    assert time.monotonic() - begin >= 0.05
    table.set("k", 1)
    assert table.wait_for_change("k", seen, 10) is True
    assert table.wait_for_change("k", seen, None) is True
    assert table.wait_for_change("k", seen) is True


def test_a_change_by_another_thread_wakes(table: Table) -> None:
    seen = table.change_count("k")
    changed: list[bool] = []
    waiter = threading.Thread(target=lambda: changed.append(table.wait_for_change("k", seen, 30)))
    waiter.start()
    time.sleep(0.05)
    table.set("k", 1)
    waiter.join(30)
    assert changed == [True]


def test_a_change_by_another_process_wakes_all(
    table: Table, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = """
t = store.table("t")
seen = t.change_count("k")
print("ready", flush=True)
print(t.wait_for_change("k", seen, 30), t.get("k"), flush=True)
"""
    waiters = [python(code) for _ in range(2)]
    for waiter in waiters:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "ready\n"
    time.sleep(0.05)
    table.set("k", "new")
    assert [w.communicate(timeout=30)[0] for w in waiters] == ["True new\n"] * 2


# ------------------------------------------------------------------ no eviction


def fill(table: Table, size: int) -> tuple[int, str]:
    """Values stored before there was no room, and what was said then."""
    for i in range(10_000):
        try:
            table.set(f"k{i}", b"%06d" % i * (size // 6))
        except celeriac.NotEnoughMemory as error:
            return i, str(error)
    pytest.fail("it never was full")


def test_a_full_table_says_so_and_keeps_all(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    table, cache = store.table("t"), store.cache()
    cache.set("evicted first", b"x" * 100_000)
    stored, error = fill(table, 30_000)
    assert re.search(r"table 't'.*8 MiB.*memory=", error)
    assert 100 < stored < 280
    assert "evicted first" not in cache
    assert len(table) == stored
    for i in range(stored):
        assert table.get(f"k{i}") == b"%06d" % i * 5000
    for call in (
        lambda: table.set("k0", b"x" * 100_000),
        lambda: table.add("new", b"x" * 100_000),
        lambda: table.compare_and_set("new", 0, b"x" * 100_000),
    ):
        with pytest.raises(celeriac.NotEnoughMemory, match="table 't'"):
            call()
    assert table.get("k0") == b"000000" * 5000
    assert "new" not in table
    assert table.set_many({"new": b"x" * 100_000}) == ["new"]
    table.delete_many(f"k{i}" for i in range(100))
    table.set("new", b"x" * 100_000)
    assert table.get("new") == b"x" * 100_000


def test_a_cache_beside_a_full_table_still_takes_small_values(
    memory: Callable[[str], Store],
) -> None:
    store = memory("8M")
    table, cache = store.table("t"), store.cache()
    fill(table, 3000)
    table.delete("k0")
    cache.set("k", "value")
    assert cache.get("k") == "value"


def test_cull_leaves_tables_alone_unless_asked(store: Store, table: Table) -> None:
    table.set_many({str(i): i for i in range(10)})
    store.cache().set_many({str(i): i for i in range(10)})
    assert store.cache().cull(100) == 10
    assert len(table) == 10


def test_compare_and_delete(table: Table) -> None:
    assert not table.compare_and_delete("k", 0)
    table.set("k", 1)
    _, version = table.get_versioned("k")
    table.set("k", 1)
    assert not table.compare_and_delete("k", version), "it has been set since"
    _, version = table.get_versioned("k")
    assert table.touch("k", 60), "which changes no value"
    seen = table.change_count("k")
    assert table.compare_and_delete("k", version)
    assert table.change_count("k") != seen
    assert "k" not in table
    assert not table.compare_and_delete("k", version)
    table.set("k", 1, 0.001)
    _, version = table.get_versioned("k")
    time.sleep(0.01)
    assert not table.compare_and_delete("k", version), "it has expired"
    with pytest.raises(TypeError):
        table.compare_and_delete("k", "1")  # type: ignore[arg-type]
