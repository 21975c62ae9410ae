"""Resize of memory while other processes and threads read and write."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

from resizing import MIB, fill, limit, sound

import celeriac

Memory = Callable[[str], celeriac.Store]
Python = Callable[[str], "subprocess.Popen[str]"]


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
    fill(store, 40 * MIB, 300)
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
