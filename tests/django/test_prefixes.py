"""Statistics by prefix of the keys that the application names, whatever stands before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from changed_bytes import FEW, changed

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "django"),
        ({"KEY_PREFIX": "shop", "VERSION": 3}, "django:shop:3"),
        ({"KEY_PREFIX": "a:b-ü"}, "django:a:b-ü:1"),
        ({"KEY_PREFIX": "x" * 210}, None),
        ({"KEY_FUNCTION": lambda key, prefix, version: key}, "celeriac.django.others"),
    ],
)
def test_prefixes_are_the_applications(backend: Make, params: Any, name: str | None) -> None:
    cache = backend(**params)
    cache.set("product:7", 7)
    cache.set_many({"product:8": 8, "alone": 1})
    assert cache.get("product:7") == 7
    assert cache.get_many(["product:8", "user:1"]) == {"product:8": 8}
    cache.incr("product:8")
    cache.delete("product:8")
    (found,) = cache.store.caches()
    assert name in (None, found)
    rows = cache.store.cache(found).stats_by_prefix()
    assert set(rows) == {"product", "user", ""}
    assert (rows["product"].sets, rows["product"].hits, rows["product"].deletes) == (2, 2, 1)
    assert (rows["product"].entries, rows[""].entries, rows[""].sets) == (1, 1, 1)
    assert (rows["user"].misses, rows["user"].hit_ratio) == (1, 0.0)


def test_the_lead_comes_again_with_a_place(backend: Make) -> None:
    cache = backend()
    cache.set("product:7", 7)
    cache.delete("product:7")
    for i in range(300):  # another name has the place by then
        cache.store.cache("n", version=i)
    cache.set("product:8", 8)
    rows = cache.store.cache("django").stats_by_prefix()
    assert {prefix: row.sets for prefix, row in rows.items()} == {"product": 1}


@pytest.mark.parametrize("entries", [10, 5000])
def test_a_prefix_is_cleared_in_one_step(backend: Make, location: str, entries: int) -> None:
    one, other = backend(KEY_PREFIX="one"), backend(KEY_PREFIX="other")
    for each in (one, other):
        each.set_many({f"k{i}": i for i in range(entries)})
    assert changed(location, one.clear_prefix) < FEW
    assert one.get("k1") is None
    assert other.get("k1") == 1
    assert len(other.keys()) == entries
