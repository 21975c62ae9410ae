"""The story of a victim that resizes its store's memory."""

from __future__ import annotations

import contextlib

from victims import Victim

import celeriac


def resize(v: Victim) -> None:
    """Down, where messages stay and structures of all kinds are above; and up again."""
    v.connect()
    v.set("t", "stays", space="table")
    for i in range(70):
        v.set(f"k{i}", "x")
    bulk = v.store.cache("bulk")

    def fill() -> None:
        bulk.set_many({f"b{i}": "s" * 1200 for i in range(3000)})

    v.call({"evict": "c"}, fill)
    for size in (2_500_000, "2M", 9 << 18, "4M"):
        v.put(f"m{size}", 3000, priority=0 if size == "4M" else 5)
        v.call({"evict": "c"}, fill)
        for key in ("k1", "k2"):
            v.set(key, str(size) * 30_000)
            v.call({"evict": "c"}, lambda: None)
        v.call({}, lambda: v.cache().get_many(["k1", "k2"]))
        with contextlib.suppress(celeriac.NotEnoughMemory):  # once in a while a message is above
            v.call({"evict": "c"}, lambda size=size: v.store.resize(size))
        v.set("k", str(size))
        v.call({"evict": "c"}, lambda: None)
    for key in ("k1", "k2"):
        v.delete(key)
    queue = v.queue()
    v.call({"purge": True}, queue.delete)
    v.call({"evict": "c"}, fill)  # as many segments as there ever were
