"""The Django cache backend: `"BACKEND": "celeriac.django.cache.CeleriacCache"`.

`CeleriacCache` is what settings name. Its calls are in `sync.py` and `more.py`, and their async
twins here; the hot ones are done in C++ where settings are the usual ones
(`src/bindings/bind_django.cpp`). The settings of an alias are read in `options.py`; `location.py`
holds what the aliases of one LOCATION share in a process, `spaces.py` says where their entries are
kept; `keys.py` has Django's warning about keys.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import SynchronousOnlyOperation

from celeriac import _core, aio_fill
from celeriac.cache_entries import MISSING
from celeriac.entries import Named
from celeriac.errors import CeleriacError, SerializationError

from .more import MoreCache

if TYPE_CHECKING:
    _Calls = MoreCache
else:

    class _Calls(_core.DjangoCalls, MoreCache):
        """The calls of MoreCache, the hot ones natively where that makes no difference."""


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


async def _in_thread(call: Callable[..., _Result], *args: Any) -> _Result:
    result: _Result = await sync_to_async(call, thread_sensitive=True)(*args)
    return result


async def _here_or_in_thread(
    call: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result:
    """`call(*args)`, which moves values, on the event loop; again in a thread if need be.

    Pickling runs code of the value's class. A queryset then asks the database, which Django
    forbids on an event loop and allows in its thread for synchronous code.
    """
    try:
        return call(*args, **kwargs)
    except (SerializationError, SynchronousOnlyOperation):
        in_thread = sync_to_async(call, thread_sensitive=True)
        result: _Result = await in_thread(*args, **kwargs)
        return result


class CeleriacCache(_Calls):
    """Django's cache API on a celeriac store that all processes of the host share.

    LOCATION is the URL of the store. All aliases with one LOCATION share one cache, in which
    Django's KEY_PREFIX, VERSION and KEY_FUNCTION keep keys apart. OPTIONS:

    - `memory`, `mode`, `create`: of `celeriac.connect`.
    - `serializer`, `compressor`, `compress_above`, `max_entries`: of `Store.cache`.
    - `MAX_ENTRIES`, `CULL_FREQUENCY`: as Django describes them. Without MAX_ENTRIES only `memory`
      bounds the cache, and the store evicts what is used least. Beyond 56 pairs of prefix and
      version with entries at a time, MAX_ENTRIES bounds the further ones as one, and `max_entries`
      doesn't bound them (S2 in `spaces.py`).
    - `IGNORE_EXCEPTIONS`: errors of the store become misses; they are counted in
      `ignored_exceptions`, and the first of each kind is logged to `celeriac.django`. A full store,
      one that can't be used, and an entry that can't be read are such errors. A value that can't be
      serialized is none: it is the caller's mistake, and raised, as with django-redis.

    Thread-safe and fork-safe. A process that dies in a call leaves the cache whole.

    The async calls don't hop to a thread, as those of Django's own backends do: there is nothing
    to wait for. A thread is used only for a plain function given to `aget_or_set`, since it may
    block, and for a value that can't be pickled on the event loop (see `_here_or_in_thread`).
    """

    async def aget(self, key: str, default: Any = None, version: Any = None) -> Any:
        """See `get`."""
        return await _here_or_in_thread(self.get, key, default, version)

    async def aset(
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
        """See `set`."""
        options: dict[str, Any] = {"nx": nx, "xx": xx} if nx or xx else {}
        if tags:
            options["tags"] = tags
        return await _here_or_in_thread(self.set, key, value, timeout, version, **options)

    async def aadd(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: Iterable[str] = (),
    ) -> bool:
        """See `add`."""
        options = {"tags": tags} if tags else {}
        return await _here_or_in_thread(self.add, key, value, timeout, version, **options)

    async def atouch(
        self, key: str, timeout: float | None = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        """See `touch`."""
        return self.touch(key, timeout, version)

    async def adelete(self, key: str, version: Any = None) -> bool:
        """See `delete`."""
        return self.delete(key, version)

    async def ahas_key(self, key: str, version: Any = None) -> bool:
        """See `has_key`."""
        return self.has_key(key, version)

    async def aget_many(self, keys: Iterable[str], version: Any = None) -> dict[str, Any]:
        """See `get_many`."""
        return await _here_or_in_thread(self.get_many, keys, version)

    async def aset_many(
        self,
        data: Mapping[str, Any],
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: Iterable[str] = (),
    ) -> list[str]:
        """See `set_many`."""
        options = {"tags": tags} if tags else {}
        return await _here_or_in_thread(self.set_many, data, timeout, version, **options)

    async def adelete_many(self, keys: Iterable[str], version: Any = None) -> int | None:
        """See `delete_many`."""
        return self.delete_many(keys, version)

    async def aget_or_set(
        self,
        key: str,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
        **options: Any,
    ) -> Any:
        """As `get_or_set`; `default` may also be an async function or anything to await.

        Waiting for another's result never blocks the event loop."""
        given, looked = default, False
        results: list[Any] = []
        raised: list[BaseException] = []

        async def compute() -> Any:
            try:
                results.append(await aio_fill.result(default, _in_thread))
            except BaseException as error:
                raised.append(error)
                raise
            return results[-1]

        if callable(default) or inspect.isawaitable(default):
            given = compute
        try:
            full, entries, found = self._look(key, version)
            looked = True
            if found is not MISSING and type(found) is not Named:
                return found
            call = self._fill(key, full, entries, timeout, {**options, "found": found})
            return await aio_fill.get_or_set(call, given, _in_thread, again=True)
        except CeleriacError as error:
            if error in raised:
                raise
            self._tolerate(error, writing=looked)
            if given is not compute:
                return default
            return results[-1] if results else await compute()
        finally:
            if inspect.iscoroutine(default):
                default.close()  # unless it ran to its end

    async def aincr(
        self,
        key: str,
        delta: int = 1,
        version: Any = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """See `incr`."""
        return self.incr(key, delta, version, ignore_key_check=ignore_key_check)

    async def adecr(
        self,
        key: str,
        delta: int = 1,
        version: Any = None,
        *,
        ignore_key_check: bool = False,
    ) -> int:
        """See `decr`."""
        return self.decr(key, delta, version, ignore_key_check=ignore_key_check)

    async def aincr_version(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """See `incr_version`."""
        return await _here_or_in_thread(self.incr_version, key, delta, version)

    async def adecr_version(self, key: str, delta: int = 1, version: Any = None) -> Any:
        """See `decr_version`."""
        return await _here_or_in_thread(self.decr_version, key, delta, version)

    async def aclear(self) -> None:
        """See `clear`."""
        self.clear()

    async def aclose(self, **kwargs: Any) -> None:
        """See `close`."""
        self.close(**kwargs)

    async def akeys(self, search: str = "*", version: Any = None) -> list[str]:
        """See `keys`."""
        return list({key: None async for key in self.aiter_keys(search, version=version)})

    async def aiter_keys(
        self, search: str = "*", itersize: int | None = None, version: Any = None
    ) -> AsyncIterator[str]:
        """See `iter_keys`. Other tasks run in between."""
        for count, key in enumerate(self.iter_keys(search, itersize, version)):
            if count % 256 == 255:
                await asyncio.sleep(0)
            yield key

    async def adelete_pattern(
        self,
        pattern: str,
        version: Any = None,
        prefix: str | None = None,
        *,
        itersize: int | None = None,
    ) -> int:
        """See `delete_pattern`."""
        return self.delete_pattern(pattern, version, prefix, itersize=itersize)

    async def ainvalidate(self, *tags: str, version: Any = None) -> None:
        """See `invalidate`."""
        self.invalidate(*tags, version=version)

    async def aclear_prefix(self, version: Any = None) -> None:
        """See `clear_prefix`."""
        self.clear_prefix(version)

    async def attl(self, key: str, version: Any = None) -> int | None:
        """See `ttl`."""
        return self.ttl(key, version)

    async def apttl(self, key: str, version: Any = None) -> int | None:
        """See `pttl`."""
        return self.pttl(key, version)

    async def apersist(self, key: str, version: Any = None) -> bool:
        """See `persist`."""
        return self.persist(key, version)

    async def aexpire(
        self, key: str, timeout: float | timedelta | None, version: Any = None
    ) -> bool:
        """See `expire`."""
        return self.expire(key, timeout, version)

    async def apexpire(
        self, key: str, timeout: float | timedelta | None, version: Any = None
    ) -> bool:
        """See `pexpire`."""
        return self.pexpire(key, timeout, version)

    async def aexpire_at(self, key: str, when: float | datetime, version: Any = None) -> bool:
        """See `expire_at`."""
        return self.expire_at(key, when, version)

    async def apexpire_at(self, key: str, when: float | datetime, version: Any = None) -> bool:
        """See `pexpire_at`."""
        return self.pexpire_at(key, when, version)
