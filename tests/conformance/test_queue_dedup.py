"""Deduplication: one message for a key, of whatever many processes put it at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import FAR, after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store


def test_the_second_is_the_first(queue: Queue) -> None:
    first = queue.put(b"1", dedup_key="k")
    assert queue.put(b"2", dedup_key="k") == first
    assert queue.put(b"2", dedup_key=b"k", delay=5, priority=9) == first
    other = queue.put(b"3", dedup_key="other")
    assert other != first
    assert queue.counts() == Counts(2, 0, 0, 0, 0)
    assert bodies(queue) == [b"1", b"3"]


@pytest.mark.parametrize("delay", [0, FAR])
def test_free_again_when_it_is_done(queue: Queue, delay: float) -> None:
    first = queue.put(b"1", dedup_key="k")
    message = take(queue)
    assert queue.put(b"2", dedup_key="k") == first  # reserved
    message.nack(delay=delay)
    assert queue.put(b"2", dedup_key="k") == first  # ready, or delayed
    if delay:
        assert queue.purge() == 1
    else:
        take(queue).ack()
    second = queue.put(b"2", dedup_key="k")
    assert second != first
    assert bodies(queue) == [b"2"]


@pytest.mark.parametrize("how", ["purge", "cancel", "expire", "dead", "delete"])
def test_free_again_when_it_is_gone(store: Store, how: str) -> None:
    queue = store.queue("q", max_deliveries=1)
    first = queue.put(b"1", dedup_key="k", ttl=0.001 if how == "expire" else None)
    if how == "purge":
        queue.purge()
    elif how == "cancel":
        assert queue.cancel(first)
    elif how == "expire":
        after(0.001)
        assert queue.get(timeout=0) is None
    elif how == "dead":
        take(queue).nack()
    else:
        queue.delete()
    assert queue.put(b"2", dedup_key="k") != first
    assert bodies(queue) == [b"2"]


def test_the_window(store: Store) -> None:
    queue = store.queue("q", dedup_ttl=FAR)
    first = queue.put(b"1", dedup_key="k")
    assert bodies(queue) == [b"1"]
    assert queue.put(b"2", dedup_key="k") == first
    assert queue.put(b"2", dedup_key="k", dedup_ttl=0.001) == first
    assert bodies(queue) == []
    short = queue.put(b"3", dedup_key="short", dedup_ttl=0.05)
    after(0.05)
    again = queue.put(b"4", dedup_key="short", dedup_ttl=0.05)  # though the first is there still
    assert again != short
    assert bodies(queue) == [b"3", b"4"]
    whole = queue.put(b"5", dedup_key="whole", dedup_ttl=0)  # as long as it isn't done
    assert queue.put(b"6", dedup_key="whole") == whole
    assert bodies(queue) == [b"5"]
    assert queue.put(b"6", dedup_key="whole") != whole


def test_windows_of_purged_messages_last(store: Store) -> None:
    queue = store.queue("q", dedup_ttl=FAR)
    first = queue.put(b"1", dedup_key="k")
    assert queue.purge() == 1
    assert queue.put(b"1", dedup_key="k") == first
    assert queue.delete() is True
    assert queue.put(b"1", dedup_key="k") != first or queue.counts().ready == 1
    assert queue.counts().ready == 1


def test_keys_are_each_queues_own(store: Store) -> None:
    a, b = store.queue("a"), store.queue("b")
    assert a.put(b"x", dedup_key="k") != b.put(b"x", dedup_key="k")
    assert (a.counts().ready, b.counts().ready) == (1, 1)


def test_a_full_queue_has_it_already(store: Store) -> None:
    queue = store.queue("q", max_length=1)
    first = queue.put(b"1", dedup_key="k")
    assert queue.put(b"1", dedup_key="k") == first
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"2", dedup_key="other")
    take(queue).ack()
    queue.put(b"2", dedup_key="other")  # the key wasn't taken by the one that failed
    assert bodies(queue) == [b"2"]


def test_many_keys(memory: Callable[[str], Store]) -> None:
    queue = memory("64M").queue("q")
    ids = {i: queue.put(b"%d" % i, dedup_key=f"key {i}") for i in range(5000)}
    assert len(set(ids.values())) == 5000
    assert all(queue.put(b"x", dedup_key=f"key {i}") == ids[i] for i in range(5000))
    assert queue.counts().ready == 5000
    assert len(bodies(queue)) == 5000
    assert all(queue.put(b"x", dedup_key=f"key {i}") != ids[i] for i in range(5000))


def test_keys_that_are_free_take_no_memory(memory: Callable[[str], Store]) -> None:
    queue = memory("4M").queue("q")
    for i in range(60_000):  # their entries alone would be as much as there is
        queue.put(b"x", dedup_key=b"%d" % i)
        take(queue).ack()
    assert queue.counts().done == 60_000


def test_one_of_many_processes(
    store: Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue = store.queue("q", dedup_ttl=FAR)
    processes = [
        python("""
q = store.queue("q")
print("ready", flush=True)
sys.stdin.readline()
for i in range(500):
    print(q.put(str(i), dedup_key=f"k{i}"))
""")
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        said.append([process.stdout.readline().strip() for _ in range(500)])
        assert process.wait(60) == 0
    assert said[0] == said[1] == said[2]
    assert sorted(bodies(queue), key=int) == [b"%d" % i for i in range(500)]
    assert queue.counts().done == 500


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"dedup_key": 5}, TypeError, "dedup_key is str or bytes, not int"),
        ({"dedup_key": ""}, ValueError, "dedup_key has 0 bytes: 1 to 1024"),
        ({"dedup_key": "ü" * 513}, ValueError, "dedup_key has 1026 bytes: 1 to 1024"),
        ({"dedup_ttl": 5}, ValueError, "dedup_ttl=5 without a dedup_key"),
        ({"dedup_key": "k", "dedup_ttl": "5"}, TypeError, "dedup_ttl is a number of seconds"),
        ({"dedup_key": "k", "dedup_ttl": -1}, ValueError, "dedup_ttl=-1"),
    ],
)
def test_wrong(queue: Queue, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        queue.put(b"x", **options)
    assert queue.counts().ready == 0
