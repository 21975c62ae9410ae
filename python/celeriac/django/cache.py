"""The Django cache backend: `"BACKEND": "celeriac.django.cache.CeleriacCache"`.

`CeleriacCache` is what settings name. Its calls are in `sync.py`, and their async twins here; the
hot ones are done in C++ where settings are the usual ones (`src/bindings/bind_django.cpp`). The
settings of an alias are read in `options.py`; `location.py` holds what the aliases of one LOCATION
share in a process; `keys.py` has Django's warning about keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.exceptions import SynchronousOnlyOperation

from celeriac import _core
from celeriac.errors import SerializationError

from .sync import SyncCache

if TYPE_CHECKING:
    _Calls = SyncCache
else:

    class _Calls(_core.DjangoCalls, SyncCache):
        """The calls of SyncCache, the hot ones natively where that makes no difference."""


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_MISSING = object()


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
    - `serializer`, `max_entries`: of `Store.cache`.
    - `MAX_ENTRIES`, `CULL_FREQUENCY`: as Django describes them. Without MAX_ENTRIES only `memory`
      bounds the cache, and the store evicts what is used least.
    - `IGNORE_EXCEPTIONS`: errors of the store become misses; they are counted in
      `ignored_exceptions`, and the first of each kind is logged to `celeriac.django`.

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
    ) -> bool:
        """See `set`."""
        return await _here_or_in_thread(self.set, key, value, timeout, version, nx=nx, xx=xx)

    async def aadd(
        self,
        key: str,
        value: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
    ) -> bool:
        """See `add`."""
        return await _here_or_in_thread(self.add, key, value, timeout, version)

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
    ) -> list[str]:
        """See `set_many`."""
        return await _here_or_in_thread(self.set_many, data, timeout, version)

    async def adelete_many(self, keys: Iterable[str], version: Any = None) -> int | None:
        """See `delete_many`."""
        return self.delete_many(keys, version)

    async def aget_or_set(
        self,
        key: str,
        default: Any,
        timeout: float | None = DEFAULT_TIMEOUT,
        version: Any = None,
    ) -> Any:
        """As `get_or_set`; `default` may also be an async function or anything to await."""
        value = await self.aget(key, _MISSING, version)
        if value is not _MISSING:
            return value
        if callable(default):
            if not iscoroutinefunction(default):
                default = sync_to_async(default, thread_sensitive=True)
            default = default()
        while inspect.isawaitable(default):
            default = await default
        await self.aadd(key, default, timeout, version)
        return await self.aget(key, default, version)

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
