"""Resize of memory while the store is in use: upward at once, downward by eviction."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac import aio

MIB = 1 << 20

Memory = Callable[[str], celeriac.Store]
Python = Callable[[str], "subprocess.Popen[str]"]


def limit(store: celeriac.Store) -> int:
    return int(store.stats()["memory_limit"])


def taken(store: celeriac.Store) -> int:
    """Bytes that the store's file takes of its file system."""
    return os.stat(os.path.join(store.path, "arena")).st_blocks * 512


def fill(store: celeriac.Store, size: int, value: int = 1000) -> int:
    """Sets about so many bytes of entries k0, k1 …; how many there are."""
    cache = store.cache()
    n = size // (value + 30)
    for i in range(n):
        cache.set(f"k{i}", f"{i}|".ljust(value, "v"))
    return n


def sound(store: celeriac.Store) -> None:
    """What holds after each resize that is done."""
    stats = store.stats()
    assert stats["memory_allocated"] <= stats["memory_limit"]
    assert taken(store) <= stats["memory_limit"]
    assert stats["corrupt"] == 0


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
    store = memory("64M")
    n = fill(store, 40 * MIB, value)
    before = len(store.cache())
    store.resize("16M")
    sound(store)
    kept = store.cache().get_many([f"k{i}" for i in range(n)])
    assert before // 8 < len(kept) == len(store.cache()) < before
    for key, stored in kept.items():
        assert stored == f"{key[1:]}|".ljust(value, "v")
    store.resize("3M")
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
    fill(store, 20 * MIB, 20)
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


def test_up_and_down_fifty_times(memory: Memory) -> None:
    store = memory("16M")
    draw = random.Random(7)
    cache, queue = store.cache(), store.queue("q")
    put: list[bytes] = []
    for round_ in range(50):
        size = draw.choice([4, 5, 7, 11, 16, 24]) * MIB + draw.randrange(4096)
        before = limit(store)
        try:
            assert store.resize(size) == size // 4096 * 4096
        except celeriac.NotEnoughMemory:  # a message has found room only where caches had left it
            assert limit(store) == before
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


# ------------------------------------------------------------------------------- while others work


WORK = """
import random
number = int(sys.stdin.readline())
draw = random.Random(number)
cache, queue = store.cache("busy"), store.queue("q")
put, taken = [], []
print("ready", flush=True)
end = time.monotonic() + 60
n = 0
while not store.table("t").get("end") and time.monotonic() < end:
    n += 1
    key = draw.randrange(20_000)
    size = draw.choice([10, 300, 3000, 60_000 if n % 50 == 0 else 30])
    cache.set(f"k{key}", f"{key}|".ljust(size, "v"))
    key = draw.randrange(20_000)
    value = cache.get(f"k{key}")
    assert value is None or value.rstrip("v") == f"{key}|", value[:30]
    if n % 6 == 0:
        body = f"{number}.{n}"
        try:
            queue.put(body + "|" + "m" * draw.randrange(900))
        except celeriac.QueueFull:
            continue
        put.append(body)
    if n % 5 == 0:
        message = queue.get(0)
        if message:
            taken.append(message.body.decode().partition("|")[0])
            message.ack()
print(n, " ".join(put))
print(" ".join(taken))
"""


def test_while_others_read_and_write(memory: Memory, python: Python) -> None:
    """Three processes use all of it meanwhile; each message is met once, in the end."""
    store = memory("24M")
    store.table("t")
    fill(store, 16 * MIB)
    others = [python(WORK) for _ in range(3)]
    for number, other in enumerate(others):
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(f"{number}\n")
        other.stdin.flush()
        assert other.stdout.readline() == "ready\n"
    done = 0
    for round_ in range(20):
        try:
            size = (6, 24, 10, 16)[round_ % 4] * MIB
            assert store.resize(size) == size
            sound(store)
            done += 1
        except celeriac.NotEnoughMemory:  # a message lies above, until it is taken
            assert limit(store) > size
    store.table("t").set("end", True)
    put, met = [], []
    for other in others:
        said = other.communicate(timeout=60)[0].splitlines()
        assert other.returncode == 0
        put += said[0].split()[1:]
        met += said[1].split()
    for message in store.queue("q").get_many(1_000_000):
        met.append(message.body.decode().partition("|")[0])
        message.ack()
    assert sorted(met) == sorted(put)
    assert done > 5
    assert store.stats()["corrupt"] == 0


def test_other_threads_run_meanwhile(memory: Memory) -> None:
    store = memory("64M")
    fill(store, 50 * MIB, 100)
    steps = [0]
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            steps[0] += 1
            store.cache().set(f"t{steps[0] % 100}", steps[0])

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = steps[0]
        store.resize("16M")
        assert steps[0] > before + 10
    finally:
        stop.set()
        thread.join()
    sound(store)


def test_two_at_a_time(memory: Memory) -> None:
    """The last one holds, and both come back."""
    store = memory("32M")
    fill(store, 20 * MIB)
    sizes = [[8, 32] * 5, [12, 6] * 5]

    def go(mine: list[int]) -> None:
        for size in mine:
            store.resize(size * MIB)

    threads = [threading.Thread(target=go, args=(mine,)) for mine in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit(store) in {32 * MIB, 6 * MIB}
    store.resize("6M")
    sound(store)


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
