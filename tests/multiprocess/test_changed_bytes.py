"""What takes one step whatever the number of entries: seen by how much of a store it changes."""

from __future__ import annotations

import pytest
from changed_bytes import FEW, changed

from celeriac import Cache, Store


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


def test_many_changes_are_seen(store: Store, url: str) -> None:
    cache: Cache = store.cache()
    assert changed(url, lambda: cache.set_many({f"k{i}": i for i in range(500)})) > 500
    assert changed(url, lambda: cache.delete_pattern("*")) > 500
