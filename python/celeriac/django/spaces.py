"""Where the entries of a LOCATION are kept: a namespace for each prefix and version.

Keys in the store are those that Django's key function makes, prefix and version included. A
namespace of its own for each pair lets `clear_prefix()` drop it in one step, shows each in the
statistics, and costs nothing at a call. `clear()` clears them all, which are a bounded number.

- S1  Who has the same LOCATION, prefix and version has the same namespace, in every process.
- S2  A store has 128 namespaces, and they are never removed. Where there is none to be had, and for
  keys that another key function makes (who knows what of), the entries are kept together in
  OTHERS, which is made before the first namespace of a pair. A pair that has found no room never
  finds any later, so S1 holds there too.
"""

from __future__ import annotations

import hashlib
from typing import Any

import celeriac
from celeriac.errors import NotEnoughMemory

NAMESPACE = "django"
"""The namespace of the empty prefix and version 1, Django's defaults."""
OTHERS = "django.others"
_LONGEST = 200

Place = tuple[str, str] | None
"""Prefix and version; None for the keys of another key function."""


def name_of(place: Place) -> str:
    """The namespace for a place, if there is room for it."""
    if place is None:
        return OTHERS
    if place == ("", "1"):
        return NAMESPACE
    name = f"{NAMESPACE}:{place[0]}:{place[1]}"
    if len(name.encode()) > _LONGEST:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16)
        name = f"{NAMESPACE}:{digest.hexdigest()}"
    return name


def is_own(place: Place, cache: celeriac.Cache) -> bool:
    """Whether a cache holds the entries of this place and no others."""
    return place is not None and cache.name == name_of(place)


def open_space(store: celeriac.Store, place: Place, settings: dict[str, Any]) -> celeriac.Cache:
    """The cache for a place. Raises what `Store.cache` raises."""
    name = name_of(place)
    if name == NAMESPACE:
        return store.cache(name, **settings)
    others = store.cache(OTHERS, **settings)
    if name == OTHERS:
        return others
    try:
        return store.cache(name, **settings)
    except NotEnoughMemory:
        return others


def clear_all(store: celeriac.Store) -> None:
    """Remove the entries of all places."""
    for name in store.caches():
        if name in (NAMESPACE, OTHERS) or name.startswith(f"{NAMESPACE}:"):
            store.cache(name).clear()
