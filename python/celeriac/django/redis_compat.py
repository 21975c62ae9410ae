"""Settings of django-redis that mean the same here: a project that comes from it may keep them.
`DJANGO_REDIS_IGNORE_EXCEPTIONS`, `_LOG_IGNORED_EXCEPTIONS`, `_LOGGER`, `_SCAN_ITERSIZE`.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings


def setting(name: str, default: Any) -> Any:
    """The setting `DJANGO_REDIS_<name>`."""
    return getattr(settings, f"DJANGO_REDIS_{name}", default) if settings.configured else default


def logger() -> logging.Logger:
    """Where ignored errors are logged."""
    return logging.getLogger(setting("LOGGER", "celeriac.django"))
