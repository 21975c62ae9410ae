"""celeriac: one shared cache and task queue for all processes of a host, with no server to run."""

from __future__ import annotations

# What the extension imports while it is initialized, before it: a Ctrl-C during such an import
# would end as an ImportError.
import pickle  # noqa: F401

from celeriac.cache import Cache, CacheStats
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
    SerializationError,
    ServerError,
    ServerUnavailable,
    StoreCorrupt,
    StoreNotFound,
    ValueTooLarge,
    VersionMismatch,
)
from celeriac.prefix_stats import PrefixStats
from celeriac.queue import Counts, Message, Queue, Waiter
from celeriac.store import Store, connect, get_default, restore, set_default
from celeriac.table import Table

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheStats",
    "CeleriacError",
    "ConfigurationError",
    "Counts",
    "DeadlockError",
    "LockLost",
    "LockTimeout",
    "Message",
    "NotEnoughMemory",
    "NotOwner",
    "PrefixStats",
    "Queue",
    "QueueFull",
    "SerializationError",
    "ServerError",
    "ServerUnavailable",
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
    "restore",
    "set_default",
]
