"""URLs with pages of metrics: open ones, and one that a decorator guards."""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def metrics(request: HttpRequest) -> HttpResponse:
    """As the view of a package that exports metrics."""
    return HttpResponse("up 1\n")


metrics.__module__ = "django_prometheus.exports"


def metrics_of_nobody(request: HttpRequest) -> HttpResponse:
    """A project's own page of that name, of which nothing is known."""
    return HttpResponse()


@functools.wraps(metrics)
def guarded(request: HttpRequest) -> Any:
    """As a decorator leaves it."""
    return metrics(request)


urlpatterns = [
    path("guarded", guarded),
    path("own", metrics_of_nobody),
    path("inner/", include([path("metrics", metrics)])),
]
