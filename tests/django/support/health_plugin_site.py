"""A site with django-health-check and our check in it, run as a program.

    health_plugin_site.py LOCATION OPTIONS-AS-JSON

Prints as JSON what its page says: of the project's store, and of the store of one cache.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import django
from django.conf import settings
from django.test import Client
from django.urls import path

LOCATION, OPTIONS = sys.argv[1:]
CHECK = "celeriac.django.health_plugin.Store"

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["health_check"],
    CACHES={
        alias: {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": LOCATION,
            "OPTIONS": options,
        }
        for alias, options in {"default": {}, "pages": json.loads(OPTIONS)}.items()
    },
)
django.setup()
logging.getLogger("health_check").setLevel(logging.CRITICAL)
logging.getLogger("django").setLevel(logging.CRITICAL)

from health_check.views import HealthCheckView  # noqa: E402  # needs settings

urlpatterns: list[Any] = [
    path("all", HealthCheckView.as_view(checks=[CHECK])),
    path("pages", HealthCheckView.as_view(checks=[(CHECK, {"alias": "pages"})])),
]

found = {}
for name in ("all", "pages"):
    answer = Client().get(f"/{name}", headers={"accept": "application/json"})
    found[name] = {"status": answer.status_code, "told": answer.json()}
print(json.dumps(found))
