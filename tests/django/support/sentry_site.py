"""A site under Sentry's SDK with spans of caches, run as a program.

    sentry_site.py LOCATION

Prints as JSON the spans of a request that uses the cache, as Sentry would get them, and what it got
of the cache.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from wsgiref.util import setup_testing_defaults

import django
import sentry_sdk
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

seen: list[Any] = []


class Local(Transport):
    """Keeps what would be sent."""

    def capture_envelope(self, envelope: Envelope) -> None:
        seen.extend(item.payload.json for item in envelope.items)


settings.configure(
    SECRET_KEY="no secret: these are tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    CACHES={
        "default": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": sys.argv[1],
            "OPTIONS": {"memory": "16M"},
        }
    },
    MIDDLEWARE=["celeriac.django.middleware.RequestStatsMiddleware"],
)
sentry_sdk.init(
    dsn="https://key@sentry.invalid/1",
    transport=Local,
    traces_sample_rate=1.0,
    default_integrations=False,
    integrations=[DjangoIntegration(cache_spans=True, middleware_spans=False, signals_spans=False)],
)
django.setup()


def view(request: HttpRequest) -> JsonResponse:
    from django.core.cache import cache

    return JsonResponse(
        {
            "absent": cache.get("absent"),
            "set": cache.set("product:1", {"price": 3}),
            "get": cache.get("product:1"),
            "set_many": cache.set_many({"product:2": 2, "product:3": 3}),
            "get_many": cache.get_many(["product:1", "product:2"]),
            "get_or_set": cache.get_or_set("product:4", lambda: 4),
            "incr": cache.incr("product:4"),
        }
    )


urlpatterns = [path("shop", view)]
headers: dict[str, str] = {}
environ: dict[str, Any] = {"PATH_INFO": "/shop"}
setup_testing_defaults(environ)
body = get_wsgi_application()(environ, lambda status, given: headers.update(given))
got = json.loads(b"".join(body))
body.close()
(transaction,) = (each for each in seen if each and each.get("type") == "transaction")
print(
    json.dumps(
        {
            "got": got,
            "hits": headers["X-Cache-Hits"],
            "misses": headers["X-Cache-Misses"],
            "spans": [
                {"op": span["op"], "about": span["description"], "data": span["data"]}
                for span in transaction["spans"]
                if span["op"].startswith("cache")
            ],
        }
    )
)
