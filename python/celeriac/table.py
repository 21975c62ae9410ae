"""Tables of a store: caches whose entries are never evicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from celeriac import checks, green
from celeriac.cache import TTL, USE_DEFAULT, Cache, Key
from celeriac.cache_entries import MISSING
from celeriac.entries import Named
from celeriac.errors import NotEnoughMemory


@contextmanager
def _full(what: str) -> Iterator[None]:
    """Says which structure was full."""
    try:
        yield
    except NotEnoughMemory as error:
        raise NotEnoughMemory(f"{what}: {error}") from None


class Table(Cache):
    """A namespace whose entries are never evicted, for small shared state: full means
    :class:`~celeriac.NotEnoughMemory`. Its keys can be compared-and-set and waited for.
    """

    __slots__ = ()

    def set(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> None:
        """Store a value."""
        with _full(f"table {self.name!r}"):
            super().set(key, value, ttl, tags=tags)

    def add(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """Store a value if there is none; True when it was stored."""
        with _full(f"table {self.name!r}"):
            return super().add(key, value, ttl, tags=tags)

    def replace(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """Store a value if there is one already; True when it was stored."""
        with _full(f"table {self.name!r}"):
            return super().replace(key, value, ttl, tags=tags)

    def get_versioned(self, key: Key) -> tuple[Any, int]:
        """The value and its version, or ``(None, 0)`` when the key is missing."""
        value, version = self._core.get_versioned(key)
        if type(value) is Named:
            value = self._entries.open(key, value, MISSING)
        return (None, 0) if value is MISSING else (value, version)

    def compare_and_set(self, key: Key, version: int, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if the key still has ``version`` (0: is missing); True when stored."""
        checks.whole(version, "version", 0, 2**64 - 1)
        with _full(f"table {self.name!r}"):
            if version == 0:
                return self._entries.add(key, value, self._seconds(ttl))
            return self._core.compare_and_set(key, version, value, self._seconds(ttl))

    def compare_and_delete(self, key: Key, version: int) -> bool:
        """Remove a key if it still has ``version``; True when it was removed."""
        checks.whole(version, "version", 0, 2**64 - 1)
        return self._core.compare_and_delete(key, version)

    def items(self) -> list[tuple[Any, Any]]:
        """All entries: a moment's view of each, not of the whole."""
        found = []
        for key, value in self._core.items():
            shown = self._entries.open(key, value, MISSING) if type(value) is Named else value
            if shown is not MISSING:
                found.append((key, shown))
        return found

    def change_count(self, key: Key) -> int:
        """A number that changes whenever the key does (and now and then when another does)."""
        return self._core.change_count(key)

    def wait_for_change(self, key: Key, seen: int, timeout: float | None = None) -> bool:
        """Sleep until :meth:`change_count` isn't ``seen`` any more; False after ``timeout`` s.

        Woken by the change itself: there is no polling, but under gevent. Releases the interpreter
        lock.
        """
        checks.whole(seen, "seen", 0, 2**32 - 1)
        checks.check_ttl(timeout, "timeout")
        if green.patched():
            return green.wait(lambda: self._core.change_count(key) != seen, timeout)
        return self._core.wait_for_change(key, seen, timeout)
