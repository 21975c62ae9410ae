"""Where the entries of a LOCATION are kept: a namespace for each prefix and version.

Keys in the store are those that Django's key function makes, prefix and version included. A
namespace of its own for each pair lets `clear_prefix()` drop it in one step, shows each in the
statistics, and costs nothing at a call. `clear()` clears them all, which are a bounded number.

- S1  Who has the same LOCATION, prefix and version has the same namespace, in every process.
- S2  A store has places for 56 such namespaces that have entries at a time. Those of other pairs,
  and the keys that another key function makes (who knows what of), are kept together in OTHERS,
  and leave it when it is empty or cleared; who shall be where is the core's to say, so S1 holds
  there too (invariant N6 of `src/store/namespaces.hpp`). OTHERS has no `max_entries` (N9): of many
  that would bound each other none could say how many entries are its own.
"""

from __future__ import annotations

import hashlib
from typing import Any

import celeriac

NAMESPACE = "django"
"""The namespace of the empty prefix and version 1, Django's defaults."""
OTHERS = "celeriac.django.others"
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


def open_space(store: celeriac.Store, place: Place, settings: dict[str, Any]) -> celeriac.Cache:
    """The cache for a place. Raises what `Store.cache` raises."""
    name = name_of(place)
    if name == OTHERS or place is None:
        return store.cache(name, **settings)
    lead = f"{place[0]}:{place[1]}:"
    return store.cache(name, overflow=OTHERS, lead=lead, **settings)


def clear_all(store: celeriac.Store) -> None:
    """Remove the entries of all places."""

    def ours(name: str) -> bool:
        return name in (NAMESPACE, OTHERS) or name.startswith(f"{NAMESPACE}:")

    # Also of those that are kept in OTHERS.
    open_space(store, None, {})._spoil_flights(lambda name, key: ours(name))
    for name in store.caches():
        if ours(name):
            store.cache(name, overflow=None if name == OTHERS else OTHERS)._clear_alone()
