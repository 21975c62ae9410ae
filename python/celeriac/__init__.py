"""celeriac: one shared cache and task queue for all processes of a host, with no server to run."""

from __future__ import annotations

import importlib

# What the extension imports while it is initialized, before it: a Ctrl-C during such an import
# would end as an ImportError.
import pickle  # noqa: F401
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac import aio as aio
    from celeriac.cache import Cache, CacheStats
    from celeriac.concurrency import Concurrency, ConcurrencyInfo, Slot
    from celeriac.decorators import cached, evict
    from celeriac.errors import (
        CeleriacError,
        ConfigurationError,
        DeadlockError,
        LockLost,
        LockTimeout,
        NotEnoughMemory,
        NotOwner,
        QueueFull,
        RateLimited,
        SerializationError,
        ServerError,
        ServerUnavailable,
        StoreCorrupt,
        StoreNotFound,
        ValueTooLarge,
        VersionMismatch,
    )
    from celeriac.leaders import Leader
    from celeriac.limits import Decision, Limiter
    from celeriac.lock_base import Holder, LockInfo
    from celeriac.locks import Lock, Semaphore
    from celeriac.message import Consumer, Counts, Ended, Message, Peeked
    from celeriac.once import lock_once
    from celeriac.prefix_stats import PrefixStats
    from celeriac.queue import Queue, Waiter
    from celeriac.store import Store, connect, get_default, restore, set_default
    from celeriac.table import Table
else:
    _HOMES = {
        "cache": "Cache CacheStats",
        "concurrency": "Concurrency ConcurrencyInfo Slot",
        "decorators": "cached evict",
        "errors": (
            "CeleriacError ConfigurationError DeadlockError LockLost LockTimeout "
            "NotEnoughMemory NotOwner QueueFull RateLimited SerializationError ServerError "
            "ServerUnavailable StoreCorrupt StoreNotFound ValueTooLarge VersionMismatch"
        ),
        "leaders": "Leader",
        "limits": "Decision Limiter",
        "lock_base": "Holder LockInfo",
        "locks": "Lock Semaphore",
        "message": "Consumer Counts Ended Message Peeked",
        "once": "lock_once",
        "prefix_stats": "PrefixStats",
        "queue": "Queue Waiter",
        "store": "Store connect get_default restore set_default",
        "table": "Table",
    }
    _MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        """What `__all__` names, and the modules that it comes from."""
        if name == "aio" or name in _HOMES:
            return importlib.import_module(f"celeriac.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module 'celeriac' has no attribute {name!r}")
        found = getattr(importlib.import_module(f"celeriac.{_MODULES[name]}"), name)
        globals()[name] = found
        return found

    # At once, as anywhere else: a program may give up its rights, or fork, after the import. But a
    # probe that is started every few seconds pays for nothing that it doesn't use.
    if getattr(sys, "argv", [])[1:3] != ["probe", "worker"]:
        for _name in _MODULES:
            __getattr__(_name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheStats",
    "CeleriacError",
    "Concurrency",
    "ConcurrencyInfo",
    "ConfigurationError",
    "Consumer",
    "Counts",
    "DeadlockError",
    "Decision",
    "Ended",
    "Holder",
    "Leader",
    "Limiter",
    "Lock",
    "LockInfo",
    "LockLost",
    "LockTimeout",
    "Message",
    "NotEnoughMemory",
    "NotOwner",
    "Peeked",
    "PrefixStats",
    "Queue",
    "QueueFull",
    "RateLimited",
    "Semaphore",
    "SerializationError",
    "ServerError",
    "ServerUnavailable",
    "Slot",
    "Store",
    "StoreCorrupt",
    "StoreNotFound",
    "Table",
    "ValueTooLarge",
    "VersionMismatch",
    "Waiter",
    "cached",
    "connect",
    "evict",
    "get_default",
    "lock_once",
    "restore",
    "set_default",
]
