"""celeriac: one shared cache and task queue for all processes of a host, with no server to run."""

from __future__ import annotations

import importlib

# What the extension imports while it is initialized, before it: a Ctrl-C during such an import
# would end as an ImportError.
import pickle  # noqa: F401
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from celeriac import aio as aio
else:

    def __getattr__(name: str) -> Any:
        """`celeriac.aio`, imported when it is first used."""
        if name == "aio":
            return importlib.import_module("celeriac.aio")
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}")


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
