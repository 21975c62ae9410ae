"""The calls of the backend, all but the async ones: Django's, and those that django-redis added.

Each call makes the key (Django's prefix, version and key function), hands it to the store, and
turns an error of the store into a miss where IGNORE_EXCEPTIONS asks for it. Three kinds of error
are never ignored, being mistakes in the project and not an outage: a ConfigurationError (unless it
is about the store's directory), a value that can't be serialized, and a DeadlockError.

The handle on the store is made at the first call, so that settings may be read, and a backend be
made, while the store is away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func
from django.core.exceptions import SynchronousOnlyOperation

import celeriac
from celeriac import checks
from celeriac.errors import (
    CeleriacError,
    ConfigurationError,
    DeadlockError,
    NotEnoughMemory,
    SerializationError,
    ValueTooLarge,
)

from . import keys, location, options, spaces

_MISSING = object()
_MOST_SPACES = 256  # handles kept, by prefix and version


class SyncCache(BaseCache):
    """`CeleriacCache` without its async half; see there for what is promised."""

    key_func: Callable[[str, str, Any], str]
    key_prefix: str
    version: Any
    default_timeout: float | None

    def __init__(self, url: str, params: Mapping[str, Any]) -> None:
        parsed = options.parse(url, params)
        super().__init__(params)
        self._max_entries: int | None = parsed.max_entries
        self._cull_frequency: int = parsed.cull_frequency
        self._ignore_exceptions = parsed.ignore_exceptions
        self._log_ignored_exceptions = parsed.log_ignored
        self._cache_options = parsed.cache
        self._location = location.at(parsed.url)
        self._opened: celeriac.Store | None = None
        self._spaces: dict[tuple[str, str] | None, celeriac.Cache] = {}  # caches of `_opened`

    # ---- the store behind it

    @property
    def store(self) -> celeriac.Store:
        """The celeriac store of this LOCATION, for queues, statistics and what else it has."""
        return self._location.store()

    @property
    def ignored_exceptions(self) -> int:
        """How many errors at this LOCATION this process has turned into misses so far."""
        return self._location.ignored

    def _place(self, version: Any, prefix: str | None = None) -> tuple[str, str] | None:
        """What the entries of a version are kept under; see `spaces.py`."""
        if self.key_func is not default_key_func:
            return None
        shown = self.version if version is None else version
        return self.key_prefix if prefix is None else prefix, str(shown)

    def _at(self, version: Any = None, prefix: str | None = None) -> celeriac.Cache:
        """The cache that holds the entries of a version (and of another prefix than ours).

        Of the store that is open now: it may have been closed or destroyed, here, through another
        alias or by another process, since it was last used."""
        store = self._location.store()
        if store is not self._opened:
            self._spaces, self._opened = {}, store
        place = self._place(version, prefix)
        found = self._spaces.get(place)
        if found is None:
            settings = {"ttl": self.default_timeout, **self._cache_options}
            if len(self._spaces) >= _MOST_SPACES:
                self._spaces = {}
            found = self._spaces[place] = spaces.open_space(store, place, settings)
        return found

    def _tolerate(self, error: CeleriacError, *, writing: bool = False) -> None:
        """Raise the error again, or count it where it shall be a miss."""
        closed = self._opened is not None and self._opened.closed
        mistake = isinstance(error, DeadlockError)
        if isinstance(error, ConfigurationError):
            mistake = not (closed or location.is_outage(error))
        elif isinstance(error, SerializationError):
            mistake = writing or isinstance(error.__cause__, SynchronousOnlyOperation)
        if mistake or not self._ignore_exceptions:
            raise error
        self._location.ignore(error, always=self._log_ignored_exceptions)

    def _not_replaced(self, key: str, version: Any, error: CeleriacError) -> None:
        """A new value could not be stored: the old one is stale now, so it goes."""
        if isinstance(error, (NotEnoughMemory, ValueTooLarge)):
            with suppress(CeleriacError):
                self._at(version).delete(key)
        self._tolerate(error, writing=True)

    # ---- keys and timeouts

    def validate_key(self, key: str) -> None:
        """Warn (CacheKeyWarning, at the caller's line) about a key that memcached would refuse."""
        if not keys.is_plain(key):
            keys.warn(key)

    def get_backend_timeout(self, timeout: float | None = DEFAULT_TIMEOUT) -> float | None:
        """Seconds from now, None for ever, 0 for a timeout that has already passed.

        Raises TypeError, ValueError for what is no finite number."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        checks.limited(timeout, "timeout")
        return max(0, timeout)

    def _make_room(self, entries: celeriac.Cache, key: str) -> None:
        """Cull as Django's local-memory cache does, if MAX_ENTRIES was given and is reached.

        Overwriting adds no entry, so it culls nothing.
        """
        limit = self._max_entries
        if limit is None:
            return
        count = len(entries)
        if count < limit or key in entries:
            return
        if self._cull_frequency == 0:
            entries.clear()
        else:
            entries.cull(max(0, count // self._cull_frequency))

    def _native_state(self) -> tuple[Any, ...] | bool | None:
        """What `_core.DjangoCalls` needs to do a call without us; its source says how it is used.

        None: not connected yet. False: not with these attributes, for keys aren't made as Django
        makes them by default, all of them would bring a warning, entries are counted, or values
        are written by another serializer or compressor.
        """
        entries = self._spaces.get(self._place(None))
        if entries is None:
            return None
        head = f"{self.key_prefix}:", f"{self.version}:"
        if (
            type(entries) is not celeriac.Cache
            or entries.max_entries is not None
            or self._max_entries is not None
            or not entries.is_plain
            or self.key_func is not default_key_func
            or not keys.is_plain("".join(head))
            or any(getattr(getattr(self, name), "__func__", 0) is not own for name, own in _OWN)
        ):
            return False
        assert self._opened is not None  # the caches are of it
        try:
            beside = self._opened._core, *entries.native_flights()
        except CeleriacError:
            return None  # closed meanwhile
        return entries._core, *head, self.default_timeout, DEFAULT_TIMEOUT, beside

    def _open_packed(self, full: str, entry: Any, default: Any) -> Any:
        """For `_core.DjangoCalls`: the value of an entry that has more in it than a value."""
        try:
            return self._at().opened(full, entry, default)
        except CeleriacError as error:
            self._tolerate(error)
            return default

    # ---- Django's calls, one key each

    def get(self, key: str, default: Any = None, version: Any = None) -> Any:
        """The value of a key, or `default`. A stored None is a value."""
        full = self.make_and_validate_key(key, version)
        try:
            return self._at(version).get(full, default)
        except CeleriacError as error:
            self._tolerate(error)
            return default

    def set(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        nx: bool = False,
        xx: bool = False,
        tags: Iterable[str] = (),
    ) -> bool:
        """Store a value, and say whether it was stored. For `tags` see `invalidate`.

        With `nx` only if the key is missing, with `xx` only if it is there. A value that the store
        can't hold removes the old one, then raises ValueTooLarge or NotEnoughMemory.
        """
        if nx and xx:
            raise ValueError("nx and xx exclude each other")
        if nx:
            return self.add(key, value, timeout, version, **({"tags": tags} if tags else {}))
        full = self.make_and_validate_key(key, version)
        ttl = self.get_backend_timeout(timeout)
        try:
            entries = self._at(version)
            if xx:
                return entries.replace(full, value, ttl, tags=tags)
            self._make_room(entries, full)
            entries.set(full, value, ttl, tags=tags)
        except CeleriacError as error:
            self._not_replaced(full, version, error)
            return False
        return True

    def add(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: Iterable[str] = (),
    ) -> bool:
        """Store a value if the key is missing, in one step; True if it was missing."""
        full = self.make_and_validate_key(key, version)
        ttl = self.get_backend_timeout(timeout)
        try:
            entries = self._at(version)
            self._make_room(entries, full)
            return entries.add(full, value, ttl, tags=tags)
        except CeleriacError as error:
            self._tolerate(error, writing=True)
            return False

    def touch(self, key: str, timeout: float | None = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give a key a new timeout; False if it is missing."""
        full = self.make_and_validate_key(key, version)
        ttl = self.get_backend_timeout(timeout)
        return self._change(version, lambda entries: entries.touch(full, ttl))

    def delete(self, key: str, version: Any = None) -> bool:
        """Remove a key; False if it is missing."""
        full = self.make_and_validate_key(key, version)
        return self._change(version, lambda entries: entries.delete(full))

    def has_key(self, key: str, version: Any = None) -> bool:
        """Whether the key is there, whatever its value."""
        full = self.make_and_validate_key(key, version)
        return self._change(version, lambda entries: full in entries)

    def _change(self, version: Any, call: Callable[[celeriac.Cache], bool]) -> bool:
        try:
            return call(self._at(version))
        except CeleriacError as error:
            self._tolerate(error)
            return False

    def incr(
        self,
        key: str,
        delta: int = 1,
        version: Any = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """Add to an integer in one step, and return the sum. The timeout stays what it was.

        A missing key raises ValueError, or with `ignore_key_check` counts as a 0 that never
        expires. Anything but an integer raises TypeError. There is no largest sum.
        """
        full = self.make_and_validate_key(key, version)
        try:
            while True:
                try:
                    return self._at(version).incr(full, delta)
                except CeleriacError:
                    raise
                except ValueError:
                    if not ignore_key_check:
                        raise ValueError(f"Key '{key}' not found") from None
                if self._at(version).add(full, delta, None):
                    return delta
        except CeleriacError as error:
            self._tolerate(error)
            raise ValueError(f"Key '{key}' not found") from error

    def decr(
        self,
        key: str,
        delta: int = 1,
        version: Any = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """Subtract from an integer; see `incr`."""
        minus = -checks.integer(delta, "delta")
        if ignore_key_check:
            return self.incr(key, minus, version, ignore_key_check=True)
        return self.incr(key, minus, version)

    def incr_version(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """Move a key to another version, with its value and the rest of its timeout.

        Returns the new version. A missing key raises ValueError; a `delta` of 0 changes nothing.
        """
        if version is None:
            version = self.version
        old = self.make_and_validate_key(key, version)
        new = self.make_and_validate_key(key, version + delta)
        try:
            source = self._at(version)
            value = source.get(old, _MISSING)
            if value is _MISSING:
                raise KeyError(old)
            if old != new:
                left, tags = source.ttl(old), source.tags_of(old)
                self._at(version + delta).set(new, value, left, tags=tags)
                source.delete(old)
        except KeyError:
            raise ValueError(f"Key '{key}' not found") from None
        except CeleriacError as error:
            self._tolerate(error)
            raise ValueError(f"Key '{key}' not found") from error
        return version + delta

    # ---- Django's calls, many keys each

    def get_many(self, keys: Iterable[str], version: Any = None) -> dict[str, Any]:
        """The values of those keys that are there."""
        full = {self.make_and_validate_key(key, version): key for key in keys}
        try:
            found = self._at(version).get_many(list(full))
        except CeleriacError as error:
            about_one = isinstance(error, (SerializationError, ValueTooLarge))
            if not about_one or not self._ignore_exceptions:
                self._tolerate(error)
                return {}
            found = self._those_to_read(list(full), version)
        return {full[key]: value for key, value in found.items()}

    def _those_to_read(self, keys: list[str], version: Any) -> dict[str, Any]:
        """The values of the full keys, one by one: those that can't be read are missing."""
        found = {}
        for key in keys:
            try:
                value = self._at(version).get(key, _MISSING)
            except CeleriacError as error:
                self._tolerate(error)
            else:
                if value is not _MISSING:
                    found[key] = value
        return found

    def set_many(
        self,
        data: Mapping[str, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: Iterable[str] = (),
    ) -> list[str]:
        """Store several values; returns the keys whose value the store could not hold.

        Those keys are gone then, as after a `set` that failed.
        """
        checks.mapping(data, "data")
        full = {self.make_and_validate_key(key, version): key for key in data}
        ttl = self.get_backend_timeout(timeout)
        try:
            entries = self._at(version)
            failed = []
            if self._max_entries is None:
                failed = entries.set_many({key: data[full[key]] for key in full}, ttl, tags=tags)
            else:
                entries.check_values(data[own] for own in full.values())
                for key, own in full.items():
                    self._make_room(entries, key)
                    failed += entries.set_many({key: data[own]}, ttl, tags=tags)
            for key in failed:
                with suppress(ValueTooLarge):  # the key itself
                    entries.delete(key)
        except CeleriacError as error:
            self._tolerate(error, writing=True)
            return list(data)
        return [full[key] for key in failed]

    def delete_many(self, keys: Iterable[str], version: Any = None) -> int | None:
        """Remove several keys; returns how many were there, or None if none were named."""
        full = [self.make_and_validate_key(key, version) for key in keys]
        if not full:
            return None
        try:
            return self._at(version).delete_many(full)
        except CeleriacError as error:
            self._tolerate(error)
            return 0

    def clear(self) -> None:
        """Remove every entry of the LOCATION: all aliases, versions and prefixes that share it.

        Queues and whatever else is in the same store stay.
        """
        try:
            spaces.clear_all(self.store)
        except CeleriacError as error:
            self._tolerate(error)

    def close(self, **kwargs: Any) -> None:
        """Nothing: Django calls it after each request, and the mapping is the process's."""

    # ---- what django-redis added

    def ttl(self, key: str, version: Any = None) -> int | None:
        """Seconds that a key has left, rounded up; None if it never expires, 0 if it is missing."""
        left = self._left(key, version)
        return left if left is None else math.ceil(round(left, 2))

    def pttl(self, key: str, version: Any = None) -> int | None:
        """Milliseconds that a key has left; otherwise as `ttl`."""
        left = self._left(key, version)
        return left if left is None else math.ceil(left * 1000)

    def _left(self, key: str, version: Any) -> float | None:
        full = self.make_and_validate_key(key, version)
        try:
            return self._at(version).ttl(full)
        except KeyError:
            return 0
        except CeleriacError as error:
            self._tolerate(error)
            return 0

    def persist(self, key: str, version: Any = None) -> bool:
        """Take the timeout from a key; False if it is missing, or has none."""
        full = self.make_and_validate_key(key, version)

        def persist(entries: celeriac.Cache) -> bool:
            with suppress(KeyError):
                return entries.ttl(full) is not None and entries.persist(full)
            return False

        return self._change(version, persist)

    def expire(self, key: str, timeout: float | timedelta | None, version: Any = None) -> bool:
        """Let a key expire after so many seconds; False if it is missing."""
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return self.touch(key, seconds, version)

    def pexpire(self, key: str, timeout: float | timedelta | None, version: Any = None) -> bool:
        """Let a key expire after so many milliseconds; False if it is missing."""
        if (
            timeout is not None
            and not isinstance(timeout, timedelta)
            and timeout != DEFAULT_TIMEOUT
        ):
            timeout = checks.limited(timeout, "timeout") / 1000
        return self.expire(key, timeout, version)

    def expire_at(self, key: str, when: float | datetime, version: Any = None) -> bool:
        """Let a key expire at a datetime or Unix time in seconds; False if it is missing.

        A datetime without a time zone is local time. A moment that has passed expires the key.
        """
        at = checks.moment(when, "when")
        if math.isinf(at):
            raise ValueError(f"when={when!r}: a moment; persist() lets a key never expire")
        return self.expire(key, at - time.time(), version)

    def pexpire_at(self, key: str, when: float | datetime, version: Any = None) -> bool:
        """Let a key expire at a datetime or Unix time in milliseconds; else as `expire_at`."""
        at = when if isinstance(when, datetime) else checks.moment(when, "when") / 1000
        return self.expire_at(key, at, version)


_OWN = (
    ("make_key", BaseCache.make_key),
    ("make_and_validate_key", BaseCache.make_and_validate_key),
    ("validate_key", SyncCache.validate_key),
    ("get_backend_timeout", SyncCache.get_backend_timeout),
)
"""The methods that the native calls stand in for: with another of these they can't be used."""
