"""The calls that go beyond Django's: those that django-redis added, under its names, and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, default_key_func
from django.utils.module_loading import import_string

import celeriac
from celeriac import checks
from celeriac.cache_entries import MISSING
from celeriac.entries import Named
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.fill import Fill, get_or_set
from celeriac.patterns import compiled, escape

from . import redis_compat
from .locks import Lock, is_locked
from .sync import SyncCache


class MoreCache(SyncCache):
    """`CeleriacCache` without its async half, and without the native calls."""

    def __init__(self, url: str, params: dict[str, Any]) -> None:
        super().__init__(url, params)
        reverse = params.get("REVERSE_KEY_FUNCTION")
        if isinstance(reverse, str):
            reverse = import_string(reverse)
        if reverse is not None and not callable(reverse):
            raise ConfigurationError(
                f"REVERSE_KEY_FUNCTION is a function or the path of one, not {reverse!r}"
            )
        self._reverse_key_func: Callable[[str], str] | None = reverse

    # ---- keys by pattern

    def reverse_key(self, full: str, version: Any = None) -> str:
        """The key that the key function made this full key of."""
        if self._reverse_key_func is not None:
            return self._reverse_key_func(full)
        if self.key_func is default_key_func:
            return full[len(self.make_key("", version)) :]
        return full.split(":", 2)[-1]  # as django-redis takes it, unless it is told better

    def _full_pattern(self, pattern: str, version: Any, prefix: str | None = None) -> str:
        if not isinstance(pattern, str):
            compiled(pattern)  # says what is wrong
        shown = self.version if version is None else version
        first = self.key_prefix if prefix is None else prefix
        return self.key_func(pattern, escape(first), escape(str(shown)))

    def _full_keys(self, pattern: str, version: Any, itersize: int | None) -> Iterator[str]:
        full = self._full_pattern(pattern, version)
        try:
            for key in self._at(version).iter_keys(full, _step(itersize)):
                if isinstance(key, str):
                    yield key
        except CeleriacError as error:
            self._tolerate(error)

    def iter_keys(
        self, search: str = "*", itersize: int | None = None, version: Any = None
    ) -> Iterator[str]:
        """The keys that match a glob (`product:*`), some at a time; without prefix and version."""
        return (
            self.reverse_key(key, version) for key in self._full_keys(search, version, itersize)
        )

    def keys(self, search: str = "*", version: Any = None) -> list[str]:
        """All keys that match a glob."""
        return list(dict.fromkeys(self.iter_keys(search, version=version)))

    def delete_pattern(
        self,
        pattern: str,
        version: Any = None,
        prefix: str | None = None,
        *,
        itersize: int | None = None,
    ) -> int:
        """Remove all keys that match a glob; how many. With `prefix` in place of KEY_PREFIX."""
        if prefix is not None:
            checks.text(prefix, "prefix")
        try:
            full = self._full_pattern(pattern, version, prefix)
            return self._at(version, prefix).delete_pattern(full, _step(itersize))
        except CeleriacError as error:
            self._tolerate(error)
            return 0

    # ---- tags and prefixes

    def invalidate(self, *tags: str, version: Any = None) -> None:
        """Let all entries with one of these tags be missing, at once, whatever their number.

        Tags belong to this alias's prefix and the version, as keys do."""
        try:
            self._at(version).invalidate(*tags)
        except CeleriacError as error:
            self._tolerate(error)

    def clear_prefix(self, version: Any = None) -> None:
        """Remove all entries of this alias's prefix and version, in one step; no others.

        One by one where a key function of the project's own makes the keys."""
        try:
            if self._place(version) is None or not self._at(version)._clear_alone():
                self.delete_pattern("*", version)
        except CeleriacError as error:
            self._tolerate(error)

    # ---- one computes

    def _look(self, key: str, version: Any) -> tuple[str, celeriac.Cache, Any]:
        """The full key, the cache, and what is there: a value, an entry to look into, MISSING."""
        full = self.make_and_validate_key(key, version)
        entries = self._at(version)
        return full, entries, entries.look(full)

    def _fill(
        self, key: str, full: str, entries: celeriac.Cache, timeout: Any, options: dict[str, Any]
    ) -> Fill:
        def make_room() -> None:
            self._make_room(entries, full)

        ttl = self.get_backend_timeout(timeout)
        return entries.fill(full, ttl, make_room=make_room, shown=key, **options)

    def get_or_set(
        self,
        key: str,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        lock: bool = True,
        wait: float | None = 5.0,
        stale: float = 0,
        stale_on_error: float = 0,
        early: float = 0,
        tags: Iterable[str] = (),
    ) -> Any:
        """The value; where there is none, that of `default` (called, if it is callable), stored.

        Of all who miss one key, in all processes, one calls `default`, the others wait for the
        result, at most `wait` seconds. The other options are those of `celeriac.Cache.get_or_set`.
        """
        once, looked = Once(default), False
        try:
            full, entries, found = self._look(key, version)
            looked = True
            if found is not MISSING and type(found) is not Named:
                return found
            options = {
                "lock": lock,
                "wait": wait,
                "stale": stale,
                "stale_on_error": stale_on_error,
                "early": early,
                "tags": tags,
                "found": found,
            }
            call = self._fill(key, full, entries, timeout, options)
            return get_or_set(call, once if callable(default) else default)
        except CeleriacError as error:
            if once.raised is error:
                raise
            self._tolerate(error, writing=looked)
            return once.result()

    # ---- locks

    def has_key(self, *arguments: Any, **named: Any) -> bool:
        """Whether the key is there, with a value or as that of a lock."""
        return super().has_key(*arguments, **named) or self._is_locked(*arguments, **named)

    def _is_locked(self, key: str, version: Any = None) -> bool:
        with suppress(CeleriacError):  # has_key() has just spoken of what is wrong with the store
            store = self._opened
            return store is not None and is_locked(store, self.make_key(key, version))
        return False

    def lock(
        self,
        key: str,
        version: Any = None,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        thread_local: bool = True,
    ) -> Lock:
        """A lock of the whole host; see `Lock`. `sleep` is accepted, and not needed.

        Raises TypeError, ValueError for a `timeout` that isn't above zero, and a
        `blocking_timeout` below it: None is no limit, as elsewhere, not -1 as in `threading`.
        """
        full = self.make_and_validate_key(key, version)
        return Lock(
            self.store,
            full,
            timeout=timeout,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            thread_local=thread_local,
        )


def _step(itersize: int | None) -> int:
    """About how many keys are looked at in one step."""
    found: int = redis_compat.setting("SCAN_ITERSIZE", 1000) if itersize is None else itersize
    return found


class Once:
    """What `get_or_set` was given, called at most once, and what came of it."""

    def __init__(self, default: Any) -> None:
        self._default = default
        self._results: list[Any] = []
        self.raised: BaseException | None = None

    def __call__(self) -> Any:
        try:
            self._results.append(self._default())
        except BaseException as error:
            self.raised = error
            raise
        return self._results[-1]

    def result(self) -> Any:
        """The result, computed now if it hasn't been."""
        if not callable(self._default):
            return self._default
        return self._results[-1] if self._results else self()
