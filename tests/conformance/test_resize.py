"""Resize of memory while the store is in use: upward at once, downward by eviction."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resizing import MIB, fill, limit, sound, taken

import celeriac
from celeriac import aio

SEEDS = int(os.environ.get("CELERIAC_RESIZE_SEEDS", "1"))

Memory = Callable[[str], celeriac.Store]
Python = Callable[[str], "subprocess.Popen[str]"]


# ------------------------------------------------------------------------------- upward


def test_up_at_once(memory: Memory) -> None:
    store = memory("4M")
    cache = store.cache()
    with pytest.raises(celeriac.ValueTooLarge):
        cache.set("large", b"l" * (6 * MIB))
    assert store.resize("16M") == 16 * MIB
    cache.set("large", b"l" * (6 * MIB))
    assert cache.get("large") == b"l" * (6 * MIB)
    assert limit(store) == cache.stats().bytes_limit == 16 * MIB


def test_up_is_seen_by_others(memory: Memory, python: Python) -> None:
    store = memory("4M")
    other = python(
        "queue = store.queue('q')\n"
        "body = b'x' * 100_000\n"
        "def fill():\n"
        "    n = 0\n"
        "    while True:\n"
        "        try:\n"
        "            queue.put(body)\n"
        "        except celeriac.QueueFull:\n"
        "            return n\n"
        "        n += 1\n"
        "print(fill(), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(fill(), flush=True)\n"
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert 20 < int(other.stdout.readline()) < 42
    store.resize("8M")
    other.stdin.write("\n")
    other.stdin.flush()
    assert 30 < int(other.stdout.readline()) <= 42
    assert other.wait(30) == 0


def test_more_than_the_file_system_has(memory: Memory) -> None:
    store = memory("4M")
    for much in ("100T", 2**70):
        with pytest.raises(celeriac.NotEnoughMemory, match=r"need \d+ MiB, have \d+ MiB"):
            store.resize(much)
    assert limit(store) == 4 * MIB


def test_more_than_the_address_space(memory: Memory, python: Python) -> None:
    """A process under ulimit -v has reserved little; nothing changes."""
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("under AddressSanitizer, whose shadow memory takes terabytes of addresses")
    store = memory("4M")
    other = python(
        "import resource\n"
        "name = store.url\n"
        "store.close()\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "much = pages * resource.getpagesize() + (256 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (much, much))\n"
        "store = celeriac.connect(name)\n"
        "try:\n"
        "    store.resize('1G')\n"
        "except celeriac.NotEnoughMemory as error:\n"
        "    print(error, flush=True)\n"
    )
    said = other.communicate(timeout=60)[0]
    assert "address space" in said
    assert "memory=" in said
    assert limit(store) == 4 * MIB


# ------------------------------------------------------------------------------- downward


def test_down_evicts_and_gives_back(memory: Memory) -> None:
    store = memory("32M")
    cache = store.cache()
    n = fill(store, 24 * MIB)
    assert taken(store) > 24 * MIB
    hot = [f"k{i}" for i in random.Random(1).sample(range(n), 3000)]
    for _ in range(2):
        assert len(cache.get_many(hot)) == 3000
    evicted = cache.stats().evictions
    assert store.resize("8M") == 8 * MIB
    sound(store)
    assert limit(store) == cache.stats().bytes_limit == 8 * MIB
    assert len(cache) > 6 * MIB // 1030, "no more is evicted than must be"
    assert cache.stats().evictions - evicted == n - len(cache)
    assert len(cache.get_many(hot)) > 2900, "what was read stays"
    for key, value in cache.get_many([f"k{i}" for i in range(n)]).items():
        assert value == f"{key[1:]}|".ljust(1000, "v")
    fill(store, 24 * MIB)
    sound(store)


@pytest.mark.parametrize("value", [10, 100, 3000, 20_000, 70_000, 300_000])
def test_down_whatever_the_size_of_values(memory: Memory, value: int) -> None:
    size = 40 * MIB if value > 1000 else 8 * MIB
    store = memory("64M")
    n = fill(store, size, value)
    before = len(store.cache())
    store.resize(size * 2 // 5)
    sound(store)
    kept = store.cache().get_many([f"k{i}" for i in range(n)])
    assert before // 8 < len(kept) == len(store.cache()) < before
    for key, stored in kept.items():
        assert stored == f"{key[1:]}|".ljust(value, "v")
    store.resize("2M")
    sound(store)
    store.cache().set("k", "v")
    assert store.cache().get("k") == "v"


def test_the_oldest_leave(memory: Memory) -> None:
    store = memory("32M")
    n = fill(store, 20 * MIB)
    store.resize("16M")
    there = store.cache().get_many([f"k{i}" for i in range(n)])
    half = sum(int(key[1:]) < n // 2 for key in there)
    assert len(there) > n * 0.6
    assert half < len(there) * 0.45
    assert len(store.cache().get_many([f"k{i}" for i in range(n - n // 4, n)])) > n // 5


def test_garbage_and_what_expired_go_first(memory: Memory) -> None:
    store = memory("32M")
    cache = store.cache()
    n = fill(store, 20 * MIB)
    for i in range(n):
        if i % 3:
            cache.delete(f"k{i}")
    store.resize("12M")
    sound(store)
    assert len(cache) == len(range(0, n, 3)), "there was room for all"


def test_what_leaves_is_counted_once(memory: Memory) -> None:
    """As any other eviction, for the cache and by prefix of its keys; what moves isn't counted."""
    store = memory("32M")
    cache = store.cache()
    for i in range(2000):
        cache.set(f"short:{i}", "v" * 1000, ttl=0.01)
    for i in range(12_000):
        cache.set(f"{'ab'[i % 2]}:{i}", "v" * 1000)
    cache.set("alone", "v" * 300_000)
    time.sleep(0.05)
    store.resize("8M")
    sound(store)
    whole, rows = cache.stats(), cache.stats_by_prefix()
    for name in ("sets", "evictions", "expirations"):
        assert sum(getattr(row, name) for row in rows.values()) == getattr(whole, name), name
    assert (whole.sets, whole.expirations) == (14_001, 2000)
    assert (rows["short"].expirations, rows["short"].evictions) == (2000, 0)
    assert whole.evictions == 12_001 - len(cache)
    for prefix in ("a", "b"):
        there = len(cache.get_many([f"{prefix}:{i}" for i in range(12_000)]))
        assert 1000 < there == 6000 - rows[prefix].evictions


def test_messages_and_tables_stay(memory: Memory) -> None:
    store = memory("32M")
    queue = store.queue("q")
    table = store.table("t")
    for i in range(2000):
        queue.put(f"{i}|".ljust(100 + i % 900, "m"))
        table.set(f"t{i}", i)
    for i in range(2000):
        store.cache().set(f"c{i}", "v" * 10_000)
    held = queue.get()
    assert held is not None
    store.resize("6M")
    sound(store)
    for i in range(1, 2000):
        message = queue.get(0)
        assert message is not None
        assert message.body == f"{i}|".ljust(100 + i % 900, "m").encode()
        message.ack()
    held.ack()
    assert queue.get(0) is None
    assert [table.get(f"t{i}") for i in range(2000)] == list(range(2000))


def test_refused_when_messages_do_not_fit(memory: Memory) -> None:
    store = memory("32M")
    queue = store.queue("q")
    for i in range(120):
        queue.put(f"{i}|".ljust(100_000, "m"))
    n = fill(store, 8 * MIB)
    before = store.stats()
    refusal = r"lowered to 8 MiB: need \d+ MiB"
    with pytest.raises(celeriac.NotEnoughMemory, match=refusal) as caught:
        store.resize("8M")
    assert "resize to" in str(caught.value)
    after = store.stats()
    assert after["memory_limit"] == 32 * MIB
    assert after["caches"] == before["caches"]
    assert len(store.cache()) == n, "nothing was evicted"
    needed = str(caught.value).rpartition("resize to ")[2].split()[0]
    store.resize(needed)
    sound(store)
    for i in range(120):
        message = queue.get(0)
        assert message is not None
        assert message.body == f"{i}|".ljust(100_000, "m").encode()
        message.ack()
    store.resize("8M")
    sound(store)


def test_delayed_messages_and_entries_without_end(memory: Memory) -> None:
    store = memory("16M")
    queue = store.queue("q")
    for i in range(500):
        queue.put(f"{i}", delay=1000)
    store.table("t").set("large", "t" * 500_000)
    for i in range(10_000):
        store.cache().set(f"k{i}", "v" * 1000, ttl=None)
    store.resize("4M")
    sound(store)
    assert queue.counts().delayed == 500
    assert store.table("t").get("large") == "t" * 500_000


def test_a_cache_with_a_limit(memory: Memory) -> None:
    store = memory("32M")
    few = store.cache("few", max_entries=5000)
    for i in range(20_000):
        few.set(f"k{i}", "v" * 1000)
    store.resize("4M")
    sound(store)
    assert 1000 < len(few) < 5000
    for i in range(20_000):
        few.set(f"k{i}", "v" * 100)
    assert len(few) == 5000


def test_cleared_memory_goes_back_too(memory: Memory) -> None:
    store = memory("32M")
    fill(store, 6 * MIB, 20)
    store.cache().clear()
    store.resize("3M")
    sound(store)
    store.resize("32M")
    assert fill(store, 20 * MIB) == len(store.cache())


def test_the_same_again_gives_back_what_is_free(memory: Memory) -> None:
    store = memory("16M")
    queue = store.queue("q")
    for _ in range(100):
        queue.put("m" * 100_000)
    queue.purge()
    assert taken(store) > 9 * MIB
    assert store.resize("16M") == 16 * MIB
    assert taken(store) < 9 * MIB


@pytest.mark.parametrize("seed", range(SEEDS))
def test_up_and_down_fifty_times(memory: Memory, seed: int) -> None:
    store = memory("16M")
    draw = random.Random(seed)
    cache, queue = store.cache(), store.queue("q")
    put: list[bytes] = []
    refused = 0
    for round_ in range(50):
        size = draw.choice([4, 5, 7, 11, 16, 24]) * MIB + draw.randrange(4096)
        before = limit(store)
        try:
            assert store.resize(size) == size // 4096 * 4096
        except celeriac.NotEnoughMemory:  # a message has found room only where caches had left it
            assert limit(store) == before
            refused += 1
            for body in put:
                message = queue.get(0)
                assert message is not None
                assert message.body == body
                message.ack()
            put.clear()
            assert store.resize(size) == size // 4096 * 4096
        sound(store)
        for i in range(2000):
            cache.set(f"{round_}.{i}", "v" * draw.randrange(4000))
        if len(put) < 100:
            put.append(f"{round_}|".ljust(draw.randrange(3000), "m").encode())
            queue.put(put[-1])
        sound(store)
        assert cache.get(f"{round_}.1999") is not None
    assert [message.body for message in queue.get_many(100)] == put
    assert refused <= 1


# ------------------------------------------------------------------------------- whose ceiling


def test_who_connects(memory: Memory, url: str) -> None:
    """A larger memory= raises the ceiling; none, or a smaller one, leaves it."""
    store = memory("16M")
    store.resize("8M")
    with celeriac.connect(url) as other:
        assert limit(other) == 8 * MIB
    with celeriac.connect(url, memory="4M") as other:
        assert limit(other) == 8 * MIB
    with celeriac.connect(url, memory="12M") as other:
        assert limit(other) == limit(store) == 12 * MIB


def test_a_pickled_handle_does_not_undo_it(memory: Memory, url: str) -> None:
    store = memory("16M")
    store.resize("8M")
    with pickle.loads(pickle.dumps(store)) as other:
        assert limit(other) == 8 * MIB
    assert store.url == f"{url}?memory={8 * MIB}"
    with celeriac.connect(url) as plain:
        plain.resize("6M")
        assert plain.url == url


def test_asyncio(memory: Memory, url: str) -> None:
    store = memory("16M")
    fill(store, 10 * MIB)

    async def main() -> int:
        async with aio.connect(url) as twin:
            assert await twin.resize("12M") == 12 * MIB
            with pytest.raises(celeriac.ConfigurationError):
                await twin.resize("much")
            return await twin.resize("6M")

    assert asyncio.run(main()) == 6 * MIB
    sound(store)


# ------------------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    "wrong",
    [None, True, 1.5, -1, "", "much", "12X", "-4M", b"4M", [], 0, 1, "1M", (2 << 20) - 1],
    ids=repr,
)
def test_wrong_arguments(memory: Memory, wrong: Any) -> None:
    store = memory("4M")
    with pytest.raises(celeriac.ConfigurationError, match="memory="):
        store.resize(wrong)
    assert limit(store) == 4 * MIB


def test_a_closed_store(memory: Memory) -> None:
    store = memory("4M")
    store.close()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        store.resize("8M")
