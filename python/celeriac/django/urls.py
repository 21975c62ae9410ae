"""For a project's URLs: `path("", include("celeriac.django.urls"))`.

- `health/cache`, `livez`, `readyz` (:mod:`celeriac.django.health`): whether the store can be used,
  whether this process answers, and whether both it and the database can
- `metrics` (:mod:`celeriac.django.metrics_page`): for Prometheus
- `admin/cache/stats`, where "celeriac.django" and Django's admin are installed
  (:mod:`celeriac.django.admin` has it too, below the admin's own address)
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, path, re_path, reverse

from celeriac.django.health import health, livez, readyz
from celeriac.django.metrics_page import metrics

app_name = "celeriac"
urlpatterns: list[Any] = [
    path("health/cache", health, name="health-cache"),
    path("livez", livez, name="livez"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
]

if apps.is_installed("celeriac.django") and apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    from celeriac.django.stats_page import page_of

    _page = admin.site.admin_view(page_of(admin.site))

    def _stats(request: HttpRequest) -> HttpResponseBase:
        """The page, of an admin that is among the project's URLs."""
        try:
            reverse("admin:index")
        except NoReverseMatch:
            raise Http404("Django's admin isn't among this project's URLs") from None
        found: HttpResponseBase = _page(request)
        return found

    _stats.login_required = False  # type: ignore[attr-defined]  # the admin sees to it itself
    urlpatterns.append(re_path(r"^admin/cache/stats/?$", _stats, name="stats"))
