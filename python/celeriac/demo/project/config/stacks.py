"""The three ways to run the same shop. Only these settings differ between them.

`locmem` is how such a project starts out: a cache in each worker process, and no broker, so the
webhook's work is done inside the request. `celeriac` and `redis` share one cache between all
processes and hand the work to a Celery worker.
"""

from __future__ import annotations

import os
from typing import Any


def locmem() -> dict[str, Any]:
    """A cache per process, with room for everything; tasks run where they are called."""
    return {
        "CACHES": {
            "default": {
                "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                "OPTIONS": {"MAX_ENTRIES": 100_000},
            }
        },
        "CELERY_TASK_ALWAYS_EAGER": True,
    }


def celeriac() -> dict[str, Any]:
    """One store for the cache, the broker and the results. No server."""
    url = os.environ.get("DEMO_STORE_URL", "shm://shop?memory=256M")
    return {
        "CACHES": {
            "default": {
                "BACKEND": "celeriac.django.cache.CeleriacCache",
                "LOCATION": url,
            }
        },
        "CELERY_BROKER_URL": "celeriac+" + url,
        "CELERY_RESULT_BACKEND": "celeriac+" + url,
    }


def redis() -> dict[str, Any]:
    """A Redis server for all three, a database each, as most projects have it."""
    server = os.environ.get("DEMO_REDIS_URL", "redis://127.0.0.1:6379")
    return {
        "CACHES": {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"{server}/1",
            }
        },
        "CELERY_BROKER_URL": f"{server}/0",
        "CELERY_RESULT_BACKEND": f"{server}/2",
    }


STACKS = {"locmem": locmem, "celeriac": celeriac, "redis": redis}
