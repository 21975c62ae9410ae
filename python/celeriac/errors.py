"""The exceptions that celeriac raises.

::

    CeleriacError
    |-- ConfigurationError (also ValueError)    a URL, option, path, permission; a closed handle
    |-- StoreNotFound                           no such store, and create=False
    |-- VersionMismatch                         made by another version or build
    |-- StoreCorrupt                            damaged files, or not celeriac's
    |-- NotEnoughMemory                         arena, file system or a table is full
    |-- ValueTooLarge                           a key, value or message that can't fit
    |-- SerializationError (also pickle.PickleError)
    |-- QueueFull                               max_length reached, or no memory for a message
    |-- DeadlockError (also RuntimeError)       a computation that would wait for itself
    |-- LockTimeout
    |   `-- RateLimited                         a limiter that refuses for longer than one waits
    |-- LockLost
    |-- NotOwner                                a late acknowledgement or release
    |-- ServerUnavailable (also ConnectionError)
    `-- ServerError

Each message says what, where, and what to do. When one is raised, nothing is half done.
"""

from __future__ import annotations

from typing import Any

from celeriac._core import (
    CeleriacError,
    ConfigurationError,
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


class DeadlockError(CeleriacError, RuntimeError):
    """A function that computes a cached value asked the cache for the same key."""


class RateLimited(LockTimeout):
    """A limiter refused, and the timeout of the call was over. Its Decision is ``decision``."""

    decision: Any


__all__ = [
    "CeleriacError",
    "ConfigurationError",
    "DeadlockError",
    "LockLost",
    "LockTimeout",
    "NotEnoughMemory",
    "NotOwner",
    "QueueFull",
    "RateLimited",
    "SerializationError",
    "ServerError",
    "ServerUnavailable",
    "StoreCorrupt",
    "StoreNotFound",
    "ValueTooLarge",
    "VersionMismatch",
]
