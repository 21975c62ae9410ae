"""A site of Django REST framework with our throttles, run as a program: rest_site.py LOCATION."""

from __future__ import annotations

import json
import sys
from typing import Any

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="no secret: these are tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    CACHES={
        "default": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": sys.argv[1],
            "OPTIONS": {"create": "closed" not in sys.argv[1]},
        }
    },
    REST_FRAMEWORK={
        "DEFAULT_THROTTLE_RATES": {"anon": "2/min", "user": "3/day", "uploads": "1/hour"},
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

from django.urls import path  # noqa: E402 - after the settings
from rest_framework.response import Response  # noqa: E402
from rest_framework.test import APIClient  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from celeriac.django import throttling  # noqa: E402


class Anonymous(APIView):  # type: ignore[misc]
    throttle_classes = (throttling.AnonRateThrottle,)

    def get(self, request: Any) -> Response:
        return Response("ok")


class Users(Anonymous):
    throttle_classes = (throttling.UserRateThrottle,)


class Uploads(Anonymous):
    throttle_classes = (throttling.ScopedRateThrottle,)
    throttle_scope = "uploads"


class Denied(Anonymous):
    class throttle_class(throttling.AnonRateThrottle):
        on_error = "deny"

    throttle_classes = (throttle_class,)


class Free(Anonymous):
    throttle_classes = (throttling.ScopedRateThrottle,)


urlpatterns = [
    path(view.__name__.lower(), view.as_view())
    for view in (Anonymous, Users, Uploads, Denied, Free)
]


def ask(where: str, times: int, address: str = "192.0.2.1") -> list[Any]:
    answers = [APIClient().get(where, REMOTE_ADDR=address) for _ in range(times)]
    return [[a.status_code, a.headers.get("Retry-After")] for a in answers]


print(
    json.dumps(
        {
            "anonymous": ask("/anonymous", 3),
            "another": ask("/anonymous", 1, "192.0.2.2"),
            "users": ask("/users", 4),
            "uploads": ask("/uploads", 2),
            "free": ask("/free", 3),
            "denied": ask("/denied", 1, "192.0.2.3"),
        }
    )
)
