"""What tests of a store's memory look at."""

from __future__ import annotations

import os

import celeriac

MIB = 1 << 20


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
