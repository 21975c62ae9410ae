"""The shop's addresses, and those of whoever watches it."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("", include("celeriac.django.urls")),
    path("", include("shop.urls")),
    path("admin/", admin.site.urls),
    # So that there is no web server to set up here; a real shop has one for its static files.
    path("static/<path:path>", serve, {"insecure": True}),
]
