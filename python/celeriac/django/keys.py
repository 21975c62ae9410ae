"""Django's warning about keys that memcached would refuse, and whose line of code it names.

The texts are Django's own. The place is that of the caller: the first frame outside of Django and
of this package, because a warning that points into a library tells nobody which key to mend.
"""

from __future__ import annotations

import os
import sys
import warnings

import django
from django.core.cache.backends.base import (
    MEMCACHE_MAX_KEY_LENGTH,
    CacheKeyWarning,
    memcache_key_warnings,
)

_LIBRARIES = tuple(os.path.join(os.path.dirname(path), "") for path in (django.__file__, __file__))


def is_plain(key: str) -> bool:
    """Whether a key is surely fine. False means: look closer. (The look closer costs more.)"""
    return len(key) <= MEMCACHE_MAX_KEY_LENGTH and key.isprintable() and " " not in key


def warn(key: str) -> None:
    """Issue Django's CacheKeyWarning for each fault of a key, at the caller's line."""
    for text in memcache_key_warnings(key):
        warnings.warn(text, CacheKeyWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """The `stacklevel` that names the caller, counted from the function that calls this one."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
        level += 1
    return level
