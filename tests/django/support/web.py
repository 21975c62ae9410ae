"""A site with Django's cache middleware, sessions and template fragments, run as a program.

    web.py LOCATION OPTIONS-AS-JSON SESSION-ENGINE

Asks each of its pages three times and prints what came, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import django
from django.conf import settings
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import path
from django.views.decorators.cache import cache_page, never_cache

LOCATION, OPTIONS, ENGINE = sys.argv[1:]
BACKEND = "celeriac.django.cache.CeleriacCache"

settings.configure(
    SECRET_KEY="no secret: these are tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.sessions", "celeriac.django"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    CACHES={
        "default": {"BACKEND": BACKEND, "LOCATION": LOCATION, "OPTIONS": json.loads(OPTIONS)},
        "template_fragments": {
            "BACKEND": BACKEND,
            "LOCATION": LOCATION,
            "KEY_PREFIX": "fragments",
            "OPTIONS": json.loads(OPTIONS),
        },
    },
    CACHE_MIDDLEWARE_SECONDS=60,
    CACHE_MIDDLEWARE_KEY_PREFIX="site",
    SESSION_ENGINE=f"django.contrib.sessions.backends.{ENGINE}",
    MIDDLEWARE=[
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    USE_TZ=True,
)
django.setup()

made = {"page": 0, "alone": 0, "fragment": 0}
TEMPLATE = engines["django"].from_string(
    "{% load cache %}{% cache 60 side user %}{{ make }}{% endcache %}"
)


def count(what: str) -> str:
    made[what] += 1
    return f"{what} {made[what]}"


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(count("page"))


@never_cache
def visits(request: HttpRequest) -> HttpResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(request.session["n"])


@never_cache
def fragment(request: HttpRequest) -> HttpResponse:
    context = {"user": request.GET["user"], "make": lambda: count("fragment")}
    return HttpResponse(TEMPLATE.render(context))


@cache_page(60, cache="template_fragments", key_prefix="alone")
def alone(request: HttpRequest) -> HttpResponse:
    return HttpResponse(count("alone"))


urlpatterns = [path(view.__name__, view) for view in (page, visits, fragment, alone)]


def main() -> dict[str, Any]:
    setup_test_environment()
    call_command("migrate", verbosity=0)
    tables = set(connection.introspection.table_names())
    call_command("createcachetable", verbosity=0)
    client = Client(raise_request_exception=False)
    got: dict[str, Any] = {}
    for where in ("/page", "/visits", "/fragment?user=1", "/alone"):
        answers = [client.get(where) for _ in range(3)]
        got[where] = [
            answer.content.decode() if answer.status_code == 200 else answer.status_code
            for answer in answers
        ]
    got["another"] = client.get("/fragment?user=2").content.decode()
    caches["template_fragments"].delete(make_template_fragment_key("side", ["1"]))
    got["after"] = client.get("/fragment?user=1").content.decode()
    got["tables"] = sorted(set(connection.introspection.table_names()) - tables)
    got["ignored"] = caches["default"].ignored_exceptions > 0
    return got


if __name__ == "__main__":
    print(json.dumps(main()))
