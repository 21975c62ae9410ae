"""What a queue does besides put, get and ack is the same after the arena was lost."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

import celeriac


def lose_arena(path: Path) -> None:
    (path / "arena").unlink()


class Moment(float):
    """A time that went through two clocks."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) < 0.05

    __hash__ = float.__hash__


def picture(store: celeriac.Store) -> dict[str, Any]:
    """All that can be seen of the queues, but for times to come."""
    seen: dict[str, Any] = {}
    for name in sorted(store.queues()):
        queue = store.queue(name, create=False)
        seen[name] = {
            "paused": queue.paused,
            "ready": [m[:5] for m in queue.ready(10_000)],
            "delayed": [(*m[:5], round(m.due_in / 50)) for m in queue.delayed(10_000)],
            "dead": [(*m[:6], Moment(m.when)) for m in queue.dead()],
            "done": [(*m[:5], Moment(m.when)) for m in queue.done()],
        }
    return seen


def settle(seen: dict[str, Any]) -> dict[str, Any]:
    """Redelivered messages go first in an arena, and have their place in a journal. What is due in
    the same millisecond has no order.
    """
    for queue in seen.values():
        queue["ready"].sort(key=lambda m: m[0])
        queue["delayed"].sort(key=lambda m: m[0])
    return seen


def one(queue: celeriac.Queue) -> celeriac.Message:
    message = queue.get(timeout=0)
    assert message is not None
    return message


def test_reasons_ends_and_what_is_kept(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        queue = store.queue("q", max_deliveries=2, keep_done=(10, None), keep_failed=(10, None))
        for body in ("dies", "is done", "comes back"):
            queue.put(body, headers={"h": body})
        one(queue).nack(reason="first")
        one(queue).nack(reason="second")
        one(queue).ack()
        one(queue).nack(reason="once")
        before = picture(store)
        assert [m.reason for m in queue.dead()] == ["max_deliveries=2 reached; given back: second"]
        assert [m.body for m in queue.done()] == [b"is done"]
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert picture(store) == before
        queue = store.queue("q", create=False)
        message = one(queue)
        assert (message.deliveries, message.reason) == (2, "given back: once")
        message.nack(reason="twice")
        assert len(queue.dead()) == 2
        assert queue.retry_dead() == 2
        after = picture(store)
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert picture(store) == after
        queue = store.queue("q", create=False)
        assert [one(queue).body for _ in range(2)] == [b"dies", b"comes back"]
        assert queue.purge_dead() == 0


def test_dead_letter_queue(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        store.queue("failed").put("was there before")
        queue = store.queue("q", max_deliveries=1, dead_letter="failed")
        queue.put("dies", ttl=3600)
        queue.put("expires", ttl=0.05)
        one(queue).nack(reason="no")
        time.sleep(0.1)
        assert queue.get(timeout=0) is None
        before = picture(store)
        assert [m.body for m in store.queue("failed").ready()] == [
            b"was there before",
            b"dies",
            b"expires",
        ]
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert picture(store) == before
        failed = store.queue("failed", create=False)
        assert one(failed).body == b"was there before"
        m = one(failed)
        assert m.body == b"dies"
        assert m.reason == "max_deliveries=1 reached; given back: no"
        assert (m.deliveries, m.id) == (1, before["failed"]["ready"][1][0])
        m.ack()
        queue = store.queue("q", create=False)
        queue.put("dies, too")
        one(queue).nack()
        assert failed.counts().ready == 2
    lose_arena(path)
    with celeriac.connect(url) as store:
        left = [m.body for m in store.queue("failed", create=False).ready()]
        assert sorted(left) == [b"dies, too", b"expires", b"was there before"]


def test_settings_and_pause(url: str, path: Path) -> None:
    options: dict[str, Any] = {
        "max_length": 3,
        "visibility": 0.2,
        "dedup_ttl": 60,
        "keep_done": (5, None),
        "keep_failed": (7, 3600),
        "dead_letter": 'with "quotes" and ü',
        "max_deliveries": 4,
    }
    with celeriac.connect(url) as store:
        store.queue("q", **options).put("x")
        store.queue("other").pause()
        store.queue("third").pause()
        store.queue("third").resume()
    lose_arena(path)
    with celeriac.connect(url) as store:
        queue = store.queue("q", create=False)
        assert [store.queue(n, create=False).paused for n in ("q", "other", "third")] == [
            False,
            True,
            False,
        ]
        one(queue)
        again = queue.get(timeout=10)  # its reservation ended by itself
        assert again is not None
        assert again.deliveries == 2
        again.ack()
        assert len(queue.done()) == 1
        first = queue.put("k", dedup_key="k")
        one(queue).ack()
        assert queue.put("k", dedup_key="k") == first, "dedup_ttl"
        for _ in range(3):
            queue.put("x")
        with pytest.raises(celeriac.QueueFull, match="max_length of 3"):
            queue.put("x")


def test_keys(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        queue = store.queue("q", max_deliveries=1)
        waits = queue.put("1", dedup_key="waits", delay=3600)
        done = queue.put("2", dedup_key="done", dedup_ttl=3600)
        over = queue.put("3", dedup_key="over")
        short = queue.put("4", dedup_key="short", dedup_ttl=0.05)
        dead = queue.put("5", dedup_key="dead")
        for _ in range(3):
            one(queue).ack()
        one(queue).nack()
    time.sleep(0.1)
    for _ in range(2):  # the second one after the keys were written again
        lose_arena(path)
        with celeriac.connect(url) as store:
            queue = store.queue("q", create=False)
            assert queue.put("1", dedup_key="waits") == waits
            assert queue.put("2", dedup_key="done") == done
    with celeriac.connect(url) as store:
        queue = store.queue("q", create=False)
        assert queue.put("3", dedup_key="over") != over
        assert queue.put("4", dedup_key="short") != short
        assert queue.put("5", dedup_key="dead") != dead


def test_keys_outlive_segments_and_backups(url: str, path: Path, tmp_path: Path) -> None:
    with celeriac.connect(url, durability="process") as store:
        queue = store.queue("q")
        done = queue.put("2", dedup_key="done", dedup_ttl=3600)
        one(queue).ack()
        first = path / "journal.0000000000000001"
        end = time.monotonic() + 60
        while first.exists() and time.monotonic() < end:
            queue.put(bytes(1 << 20))
            one(queue).ack()
        assert not first.exists()
        store.backup(tmp_path / "backup")
    lose_arena(path)
    celeriac.restore(f"file://{tmp_path / 'copy'}", tmp_path / "backup")
    for place in (url, f"file://{tmp_path / 'copy'}"):
        with celeriac.connect(place) as store:
            assert store.queue("q", create=False).put("2", dedup_key="done") == done
            assert store.queue("q", create=False).put("3", dedup_key="other") != done
            if place != url:
                store.destroy()


def step(rng: random.Random, store: celeriac.Store, held: list[celeriac.Message]) -> None:
    queue = store.queue(rng.choice(["a", "b", "c"]), create=False)
    what = rng.randrange(12)
    if what < 4:
        key = rng.choice([None, None, f"k{rng.randrange(5)}"])
        queue.put(
            rng.randbytes(rng.choice([0, 10, 3000])),
            priority=rng.randrange(3),
            delay=rng.choice([0, 0, 0, 500]),
            ttl=rng.choice([None, None, 7200]),
            headers={"n": rng.random()},
            dedup_key=key,
            dedup_ttl=rng.choice([None, 900]) if key else None,
        )
    elif what < 7:
        message = queue.get(timeout=0)
        if message is not None:
            held.append(message)
    elif what < 10 and held:
        message = held.pop(rng.randrange(len(held)))
        how = rng.randrange(4)
        if how < 2:
            message.ack()
        else:
            message.nack(
                delay=rng.choice([0, 500]), reason=rng.choice([None, "because", "of that"])
            )
    elif what == 10:
        dead = queue.dead()
        if dead:
            queue.retry_dead([rng.choice(dead).id])
    elif what == 11:
        ready = queue.ready(10)
        if ready:
            queue.cancel(rng.choice(ready).id)


@pytest.mark.parametrize("seed", range(12))
def test_random_histories(url: str, path: Path, seed: int) -> None:
    rng = random.Random(seed)
    held: list[celeriac.Message] = []
    with celeriac.connect(url) as store:
        store.queue("a", max_deliveries=2, keep_done=(4, None), keep_failed=(6, None))
        store.queue("b", max_deliveries=3, dead_letter="c")
        store.queue("c", max_deliveries=2, dedup_ttl=900)
    for _ in range(4):
        with celeriac.connect(url) as store:
            for _ in range(150):
                step(rng, store, held)
            for message in held:
                message.nack()
            held.clear()
            before = settle(picture(store))
        lose_arena(path)
        with celeriac.connect(url) as store:
            assert settle(picture(store)) == before
