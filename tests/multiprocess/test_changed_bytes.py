"""What takes one step whatever the number of entries: seen by how much of a store it changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Cache, Store
from celeriac.django.cache import CeleriacCache
from celeriac.url import parse_url

PAGE, WORD = 4096, 8
FEW = 60


def arena(url: str) -> bytes:
    """The store's memory as it is now."""
    root = Path(os.environ.get("CELERIAC_SHM_DIR", "/dev/shm"))
    return (root / f"celeriac-{os.geteuid()}" / parse_url(url).name / "arena").read_bytes()


def changed(url: str, call: Callable[[], object]) -> int:
    """How many words of the store a call changes."""
    before = arena(url)
    call()
    after = arena(url)
    pages = [
        (before[at : at + PAGE], after[at : at + PAGE])
        for at in range(0, len(after), PAGE)
        if before[at : at + PAGE] != after[at : at + PAGE]
    ]
    return sum(
        one[at : at + WORD] != other[at : at + WORD]
        for one, other in pages
        for at in range(0, len(other), WORD)
    )


@pytest.mark.parametrize("entries", [10, 5000])
def test_a_tag_is_invalidated_in_one_step(store: Store, url: str, entries: int) -> None:
    cache = store.cache("tagged")
    cache.set_many({f"k{i}": i for i in range(entries)}, tags=["product:7", "all"])
    assert changed(url, lambda: cache.invalidate("product:7")) < FEW
    assert cache.get("k0") is None
    assert cache.get_many(f"k{i}" for i in range(entries)) == {}


@pytest.mark.parametrize("entries", [10, 5000])
def test_a_cache_is_cleared_in_one_step(store: Store, url: str, entries: int) -> None:
    cache, other = store.cache("one"), store.cache("other")
    for each in (cache, other):
        each.set_many({f"k{i}": i for i in range(entries)})
    assert changed(url, cache.clear) < FEW
    assert (len(cache), len(other)) == (0, entries)


@pytest.mark.parametrize("entries", [10, 5000])
def test_a_prefix_of_django_is_cleared_in_one_step(url: str, entries: int) -> None:
    one, other = CeleriacCache(url, {"KEY_PREFIX": "one"}), CeleriacCache(url, {"KEY_PREFIX": "b"})
    for each in (one, other):
        each.set_many({f"k{i}": i for i in range(entries)})
    assert changed(url, one.clear_prefix) < FEW
    assert one.get("k1") is None
    assert other.get("k1") == 1
    assert len(other.keys()) == entries


def test_many_changes_are_seen(store: Store, url: str) -> None:
    cache: Cache = store.cache()
    assert changed(url, lambda: cache.set_many({f"k{i}": i for i in range(500)})) > 500
    assert changed(url, lambda: cache.delete_pattern("*")) > 500
