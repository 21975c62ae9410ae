"""Settings of the shop. Importing the Celery app here lets `shared_task` find it."""

from __future__ import annotations

from .celery import app as celery_app

__all__ = ["celery_app"]
