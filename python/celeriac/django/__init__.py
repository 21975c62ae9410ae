"""celeriac for Django: a cache that every process of the host shares, with no server to run.

    CACHES = {"default": {"BACKEND": "celeriac.django.cache.CeleriacCache",
                          "LOCATION": "shm://app"}}

`cache.py` is the backend, and says what it promises. `"celeriac.django"` in INSTALLED_APPS is
optional. Nothing is imported here, so that the backend costs no more than itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.django.rate_limits import ratelimit as ratelimit

__all__ = ["ratelimit"]


def __getattr__(name: str) -> Any:
    """What needs more is imported when it is asked for."""
    if name == "ratelimit":
        from celeriac.django.rate_limits import ratelimit

        return ratelimit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
