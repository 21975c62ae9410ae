"""The URLs of `admin_site.py`, and the middleware that sets its policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

POLICY = "default-src 'self'"


def policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """The strict policy that the page promises to work under."""

    def handle(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return handle


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(0.03)
    return HttpResponse("slow")


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("celeriac.django.urls")),
    path("slow", slow),
    path("page", page),
]
