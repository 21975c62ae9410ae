"""The page `admin/cache/stats` in Django's admin: there, and in its index.

Its address is the admin site's own, so that it is found wherever `celeriac.django.urls` stands
among a project's URLs: the admin takes all that begins as it does. A site that isn't the default
one gets it by `add_to(site)`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import re_path

from celeriac.django.models import Stats
from celeriac.django.stats_page import page_of

__all__ = ["StatsAdmin", "add_to"]


class StatsAdmin(admin.ModelAdmin):
    """In the index; the page is all that there is of it."""

    def get_urls(self) -> list[Any]:
        """None below the model's own name."""
        return []

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """There are no rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, *args: Any) -> bool:
        """There are no rows."""
        return False


def add_to(site: Any) -> None:
    """Show the page in the index of an admin site, and at `cache/stats` below its address."""
    site.register(Stats, StatsAdmin)
    get_urls = site.get_urls
    view = site.admin_view(page_of(site))

    def with_ours() -> list[Any]:
        ours = re_path(r"^cache/stats/?$", view, name="celeriac_django_stats_changelist")
        return [ours, *get_urls()]

    site.get_urls = with_ours


add_to(admin.site)
