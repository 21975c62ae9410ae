"""What the admin's index shows and permissions are given for. It has no table."""

from __future__ import annotations

from typing import Any

from django.db import models

__all__ = ["Stats"]


class _NoRows(models.Manager):
    """Whatever asks for rows, such as `dumpdata`, finds none, and doesn't look for a table."""

    def get_queryset(self) -> Any:
        return super().get_queryset().none()


class Stats(models.Model):
    """The page `admin/cache/stats`: `view_stats` lets look at it, `change_stats` also act."""

    objects = _NoRows()

    class Meta:
        managed = False
        default_permissions = ("view", "change")
        verbose_name = verbose_name_plural = "cache and queues"
