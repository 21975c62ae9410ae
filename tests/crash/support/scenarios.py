"""Stories that lead through every crash point, and what other processes did before them.

Each scenario has a story, told by the victim, and a prologue: stories of processes that were killed
before, at a point or at their end, so that the victim meets what they left.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import limit_stories as limits
import lock_stories as locks
import metric_stories as metrics
import queue_stories as queues
from heap_picture import largest_object
from resizes import resize
from victims import Story, Victim

import celeriac

NODES = 1023  # of a lane; the number of no node
SETS_AND_PUTS = ("queue.", "owners.", "namespaces.", "store.", "cache.set.")
TAIL = 128  # bytes at a lane's end in which the head of its free nodes lies


@dataclass(frozen=True)
class Scenario:
    """`prologue`: (story, point or "end") of processes killed before; `deaths`: how many victims
    die one after the other; `nth`: at how many passages of each point; `company`: another process
    is attached all the while, so that no victim is alone and makes the lanes anew; `segments`: how
    many more of them a death may leave than an end: those of dead writers, or more entries;
    `others`: families of points at which other scenarios have victims die."""

    name: str
    story: Story
    prologue: tuple[tuple[Story, str], ...] = ()
    deaths: int = 1
    nth: int = 3
    company: bool = False
    segments: int = 8
    others: tuple[str, ...] = ()
    memory: str = "4M"


# ------------------------------------------------------------------------------- store and cache


def open_and_close(v: Victim) -> None:
    v.connect()
    v.queue("q", max_length=10, max_deliveries=3)
    v.cache()
    v.cache("table")
    v.call({}, v.store.close)


def destroy(v: Victim) -> None:
    v.connect()
    v.set("a", "1")
    v.call({"destroy": True}, lambda: v.store.destroy(force=True))


def cache_cycle(v: Victim) -> None:
    v.connect()
    v.set("n", 5)
    for value in ("short", "longer " * 30, "s", "y" * 3000):
        v.set("k", value)
    v.set("k2", "two")
    v.set("k2", "three", how="replace")
    v.set("k3", "new", how="add")
    v.incr("n", 5)
    v.incr("n", 6)
    cache = v.cache()
    v.call({}, lambda: cache.touch("k", 1000))
    v.call({}, lambda: cache.persist("k2"))
    v.delete("k")
    v.delete("k3")
    v.set("k", "again")


def cache_many(v: Victim) -> None:
    v.connect()
    for i in range(600):  # every shard's table grows
        v.set(f"k{i}", f"value {i} " * (i % 7))
    for i in range(0, 600, 3):
        v.delete(f"k{i}")


def cache_clear(v: Victim) -> None:
    v.connect()
    for i in range(20):
        v.set(f"k{i}", "x" * i)
    cache = v.cache()
    v.call({"clear": "c"}, cache.clear)
    for i in range(5):
        v.set(f"k{i}", "y" * i)
    v.call({"evict": "c"}, lambda: cache.cull(3))


def many_names(v: Victim) -> None:
    """More caches than there are places, one after another; then too many with entries."""
    v.connect()
    v.set("k", "stays")
    v.set("t", "stays", space="table")
    store = v.store
    for i in range(114):
        v.call({}, lambda name=f"n{i}": store.cache(name))
    for i in range(60):
        name = f"p{i}"
        pair = v.call({}, lambda name=name: store.cache(name, overflow="celeriac.over"))
        change = {"set": [name, "k", i]} if i < 56 else {}  # the others' are in the overflow
        v.call(change, lambda pair=pair, i=i: pair.set("k", i))
    v.call({}, lambda: pair.delete_pattern("*"))
    v.call({}, lambda: store.cache("late", overflow="celeriac.over"))
    over = store.cache("celeriac.over")
    v.call({}, over.clear)
    for i in range(2):  # as many entries at the end as there are in between
        v.call({}, lambda i=i: over.set(f"k{i}", i))
    v.set("k", "again")


def cache_of_prefixes(v: Victim) -> None:
    """Prefixes of keys get rows of statistics, which end when another name takes the place."""
    v.connect()
    for i in range(70):  # a table in every shard: keys of `gone` hash anew in another place
        v.set(f"k{i}", "x")
    for key in ("user:1", "order:1", "user:2", "alone"):
        v.set(key, 1, space="gone")
        v.set(key, 2)
    for key in ("user:1", "order:1", "user:2", "alone"):
        v.delete(key, space="gone")
    for i in range(113):
        v.call({}, lambda name=f"n{i}": v.store.cache(name))
    v.set("user:1", "again", space="gone")


def no_place(v: Victim) -> None:
    """All places are taken by tables, so that one more looks for what has expired."""
    v.connect()
    v.set("k", "stays")
    store = v.store
    for i in range(111):
        v.call({}, lambda name=f"t{i}": store.table(name))

    def one_more() -> None:
        with contextlib.suppress(celeriac.NotEnoughMemory):
            store.cache("one more")

    v.call({}, one_more)
    v.set("k", "again")


def cache_full(v: Victim) -> None:
    v.connect()
    v.set("pinned", "stays", space="table")
    for i in range(60):
        v.call({"evict": "c"}, lambda: None)
        v.set(f"k{i}", "z" * 100_000)
        v.call({"evict": "c"}, lambda: None)


def cache_of_segments(v: Victim) -> None:
    """More segments than the first records, each of one value; then all of them once more."""
    v.connect()
    for i in range(300):
        v.set(f"k{i}", "s" * 2500)
    for i in range(0, 300, 2):
        v.delete(f"k{i}")
    for i in range(20):
        v.set(f"k{i}", "s" * 2600)


def cache_of_log(v: Victim) -> None:
    """Small values, more than fit, some of them read: queues, ghosts, moves, garbage."""
    v.connect()
    cache = v.cache()
    v.call({}, lambda: cache._core.compare_and_set("k0", 1, "not stored", None))
    for i in range(3200):
        key = f"k{i * 11 % 2600}"
        v.call({"evict": "c"}, lambda: None)
        v.set(key, f"{i} " * 300)
        if i % 3 == 0:
            v.call({}, lambda key=key: (cache.get(key), cache.get(key)))
    v.call({"evict": "c"}, lambda: None)


def cache_of_ten_thousand(v: Victim) -> None:
    """So many that index words move to their other bucket. What isn't told isn't judged."""
    v.connect()
    for i in range(70):
        v.set(f"k{i}", "x")
    bulk = v.store.cache("bulk")
    v.call({}, lambda: [bulk.set(f"b{i}", i) for i in range(10_000)])
    v.set("k0", "y")


def cache_hot_and_large(v: Victim) -> None:
    v.connect()
    cache = v.cache()
    for i in range(60):
        v.call({"evict": "c"}, lambda: None)
        v.set(f"k{i % 40}", "z" * 100_000)
        v.call({}, lambda i=i: (cache.get(f"k{i % 40}"), cache.get(f"k{i % 40}")))
        v.call({"evict": "c"}, lambda: None)
    for i in range(10):
        v.set(f"t{i}", "t" * 100_000, space="table")
        v.call({"evict": "c"}, lambda: None)
    table = v.cache("table")
    v.call({"evict": "table"}, lambda: table.cull(1))


def cache_of_ten(v: Victim) -> None:
    v.connect()
    cache = v.cache("ten")
    for i in range(60):
        v.call({"evict": "ten"}, lambda: None)
        if i == 8:
            v.call({"evict": "ten"}, lambda: v.store.cache("ten", max_entries=10))
        v.set(f"k{i * i % 37}", f"value {i}", space="ten")
        v.call({}, lambda i=i: cache.get(f"k{i % 3}"))
    v.call({"evict": "ten"}, lambda: None)


def table_cycle(v: Victim) -> None:
    v.connect()
    v.set("t", "1", space="table")
    table = v.cache("table")
    value, version = table.get_versioned("t")
    change = {"set": ["table", "t", value + "2"]}
    v.call(change, lambda: table.compare_and_set("t", version, value + "2"))
    v.set("n", 1, space="table")
    v.incr("n", 1, space="table")
    v.call({}, lambda: table.compare_and_delete("t", version))  # it has another by now
    v.delete("t", space="table")
    for key in (f"old{i}" for i in range(40)):  # gone before anybody looks
        v.call({"set": ["table", key, None]}, lambda key=key: table.set(key, 1, 0.001))
    for i in range(60):  # as they come, the others go
        v.set(f"new{i}", "1", space="table")


# ------------------------------------------------------------------------------- what the dead left


def hold_two(v: Victim) -> None:
    v.connect()
    for name in ("h1", "h2", "h3"):
        v.put(name, 300)
    v.get()
    v.get()


def put_late(v: Victim) -> None:
    v.connect()
    v.put("late", 70, delay=0.01)


def set_key(v: Victim) -> None:
    v.connect()
    v.set("shared", "old" * 50)
    v.set("shared", "new" * 90)


def set_table(v: Victim) -> None:
    v.connect()
    v.set("shared", "old" * 50, space="table")


def set_large(v: Victim) -> None:
    v.connect()
    v.set("large", "l" * 50_000)


def set_again(v: Victim) -> None:
    v.connect()
    for space in ("c", "table"):
        v.set("shared", "newer" * 20, space=space)
        v.delete("shared", space=space)
        v.set("shared", "newest", space=space)


def recover(v: Victim) -> None:
    v.connect()
    v.call({}, v.store.recover)
    queue = v.queue()
    v.call({}, queue.counts)


def take_over(v: Victim) -> None:
    """Goes on with everything that others left, without asking for recovery."""
    v.connect()
    set_more = [("shared", "z" * 700), ("other", "o")]
    for key, value in set_more:
        v.set(key, value)
    v.put("more", 400)
    v.put("more late", 400, delay=0.001)
    time.sleep(0.03)
    v.take_all()


def make_lanes_leak(v: Victim) -> None:
    """Leaves a lane all of whose nodes are lost, as by more than a hundred deaths inside of it.

    The lane's list of free nodes is empty when the lane is full. That word is put back as it was
    then after the lane has been emptied.
    """
    v.connect()
    queue = v.queue()
    queue.put("x")
    queue.get(0).ack()
    _, end = largest_object(v.store.path)
    arena = Path(v.store.path) / "arena"

    def tail() -> list[int]:
        with arena.open("rb") as file:
            file.seek(end - TAIL)
            return list(struct.unpack(f"={TAIL // 2}H", file.read(TAIL)))

    empty = tail()
    for _ in range(NODES - 1):
        queue.put("x")
    full = tail()
    while (message := queue.get(0)) is not None:
        message.ack()
    # The last half word that says "none", behind all nodes.
    place = max(i for i, half in enumerate(full) if half == NODES and empty[i] != NODES)
    at = end - TAIL + 2 * place
    with arena.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        struct.pack_into("=H", memory, at, NODES)


def use_a_leaky_lane(v: Victim) -> None:
    v.connect()
    for i in range(20):
        v.put(f"l{i}", 10)
    for _ in range(10):
        v.ack(v.get())


def _of_locks() -> list[Scenario]:
    points = (
        "lock.enter.joined",
        "lock.grant.written",
        "lock.grant.unwoken",
        "lock.leave.bridged",
        "lock.leave.unlinked",
    )
    left = tuple((locks.hold, point) for point in ("end", *points))
    return [
        Scenario("locks", locks.cycle, nth=4),
        Scenario("many locks", locks.many, nth=2),
        Scenario("locks of the dead", locks.after_the_dead, left, deaths=2, company=True),
        Scenario("recover locks", locks.recover, left, deaths=3, company=True),
    ]


def _of_metrics() -> list[Scenario]:
    points = ("metrics.series.written", "metrics.stripe.used", "metrics.link.live")
    folded = tuple(
        (metrics.fold, f"metrics.fold.{place}") for place in ("noted", "half", "moved", "vacant")
    )
    left = tuple((metrics.count, point) for point in (*points, "end"))
    return [
        Scenario("metrics", metrics.count, nth=4),
        Scenario("metrics removed", metrics.remove),
        Scenario("many metrics", metrics.many, nth=2, memory="8M"),
        Scenario("metrics of the dead", metrics.count, left, deaths=2),
        Scenario("half a series", metrics.count, ((metrics.count, "metrics.series.written"),)),
        Scenario("fold", metrics.fold, ((metrics.count, "end"),), deaths=3, nth=6),
        Scenario("fold after deaths in it", metrics.fold, (*left, *folded), deaths=2),
    ]


def _scenarios() -> list[Scenario]:
    holder: tuple[tuple[Story, str], ...] = ((hold_two, "end"),)
    left: tuple[tuple[Story, str], ...] = (
        *holder,
        (put_late, "queue.put.published"),
        (put_late, "queue.put.body"),
        (set_key, "cache.set.linked"),
        (set_large, "cache.set.written"),
        (set_large, "heap.allocate.split"),
    )
    return [
        Scenario("open and close", open_and_close),
        Scenario("destroy", destroy),
        Scenario(
            "open after half a destroy",
            open_and_close,
            ((destroy, "store.destroy.marked"),),
            deaths=2,
        ),
        Scenario("cache", cache_cycle),
        Scenario("cache of many", cache_many, nth=2),
        Scenario("clear and cull", cache_clear),
        Scenario("a full cache", cache_full),
        Scenario("many names", many_names),
        Scenario("prefixes", cache_of_prefixes, nth=2),
        Scenario("no place", no_place),
        Scenario("many segments", cache_of_segments, nth=2),
        Scenario("a cache of a log", cache_of_log, nth=1),
        Scenario("resize", resize, nth=1, segments=200, others=SETS_AND_PUTS),
        Scenario(
            "resize anew",
            resize,
            ((resize, "heap.lower.stored"),),
            nth=1,
            segments=200,
            others=SETS_AND_PUTS,
        ),
        Scenario("ten thousand", cache_of_ten_thousand, nth=2),
        Scenario("hot and large", cache_hot_and_large, nth=2),
        Scenario("a cache of ten", cache_of_ten),
        Scenario("table", table_cycle),
        Scenario("queue", queues.cycle, nth=4),
        Scenario("delayed", queues.delayed),
        Scenario("many delayed", queues.many_delayed, nth=1),
        Scenario("a long queue", queues.many, nth=1, memory="8M"),
        Scenario("a queue of large messages", queues.of_large, nth=1),
        Scenario("purge", queues.purge, nth=5),
        Scenario("delete", queues.delete, nth=5),
        Scenario("dead", queues.dead),
        Scenario(
            "retry after a death", queues.dead, ((queues.dead, "queue.retain.decided"),), nth=1
        ),
        Scenario("dead letters", queues.dead_letters),
        Scenario("kept", queues.kept),
        Scenario("cancel and pause", queues.cancelled),
        Scenario("dedup", queues.deduplicated, nth=2),
        Scenario("visibility", queues.visibility, nth=2),
        Scenario("room", queues.room, nth=2),
        Scenario("rate limits", limits.rates, nth=4),
        Scenario(
            "rate limits after a death",
            limits.take_lists_again,
            ((limits.rates, "limits.together.half"),),
        ),
        Scenario("concurrency limits", limits.concurrency),
        Scenario(
            "many concurrency limits",
            limits.many_names,
            nth=1,
            others=("owners.", "namespaces.", "store.", "heap.", "mutex."),
            memory="8M",
        ),
        Scenario(
            "concurrency limits after a death",
            limits.wait_for_the_dead,
            ((limits.die_inside, "end"),),
            deaths=2,
        ),
        Scenario("poison", queues.after_poison, ((queues.poison, "end"),), deaths=2, nth=2),
        Scenario("put to a sleeper", queues.put_two, ((queues.blocked_consumer, "end"),)),
        *_of_locks(),
        *_of_metrics(),
        Scenario("recover", recover, left, deaths=3),
        Scenario("take over", take_over, left, deaths=2),
        Scenario("set after a death", set_again, ((set_table, "cache.set.pending"),)),
        Scenario("set after a death, unlinked", set_again, ((set_key, "cache.set.linked"),)),
        Scenario("set after a death, half made", set_again, ((set_key, "segments.add.pending"),)),
        Scenario(
            "a lane of which nothing is left",
            use_a_leaky_lane,
            ((make_lanes_leak, "end"),),
            memory="8M",
            company=True,
        ),
    ]


SCENARIOS = _scenarios()
