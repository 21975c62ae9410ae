"""A site with Django's admin and celeriac's page in it, for the tests of both.

`configure(LOCATION, DATABASE)` makes it this process's. Run as a program it serves the site:

    admin_site.py LOCATION DATABASE      prints its address, and ends with its standard input

All are staff: `root` may all, `clerk` may look, `boss` act, `temp` nothing; `guest` isn't.
Each one's password is their name. The URLs of celeriac stand behind those of the admin, as in most
projects.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

PEOPLE: dict[str, list[str]] = {
    "root": [],
    "clerk": ["view_stats"],
    "boss": ["view_stats", "change_stats"],
    "temp": [],
}


def configure(location: str, database: str, **more: Any) -> None:
    """Make the site, and its people."""
    apps = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
    settings.configure(
        **{
            "SECRET_KEY": "no secret: these are tests",
            "ROOT_URLCONF": "admin_site_urls",
            "ALLOWED_HOSTS": ["*"],
            "DATABASES": {
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": database,
                    "OPTIONS": {"timeout": 30},
                }
            },
            "INSTALLED_APPS": [*(f"django.contrib.{app}" for app in apps), "celeriac.django"],
            "CACHES": {
                "default": {
                    "BACKEND": "celeriac.django.cache.CeleriacCache",
                    "LOCATION": location,
                }
            },
            "MIDDLEWARE": [
                "admin_site_urls.policy",
                "celeriac.django.middleware.RequestStatsMiddleware",
                "celeriac.django.middleware.RateLimitMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
            ],
            "TEMPLATES": [
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "APP_DIRS": True,
                    "OPTIONS": {
                        "context_processors": [
                            "django.template.context_processors.request",
                            "django.contrib.auth.context_processors.auth",
                            "django.contrib.messages.context_processors.messages",
                        ]
                    },
                }
            ],
            "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
            "STATIC_URL": "/static/",
            "CELERIAC": {
                "RATE_LIMITS": {"guest": "2/hour"},
                "RATE_LIMIT_EXEMPT": ["/admin/*", "/static/*", "/health/*"],
                "SLOW_REQUEST_SECONDS": 0.02,
            },
            "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
            "USE_TZ": True,
            **more,
        }
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import Permission, User

    User.objects.create_user("guest", password="guest")
    for name, permissions in PEOPLE.items():
        user = User.objects.create_user(name, password=name, is_staff=True)
        user.is_superuser = name == "root"
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))


def serve() -> None:
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    logging.getLogger("django").setLevel(logging.CRITICAL)
    logging.getLogger("celeriac").setLevel(logging.CRITICAL)
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    configure(*sys.argv[1:])
    serve()
