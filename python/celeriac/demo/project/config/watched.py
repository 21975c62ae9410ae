"""What the shop has besides when somebody is on call for it: limits by role, the numbers of each
request, Django's admin with celeriac's page, and the addresses that Prometheus and a load balancer
ask. `DEMO_WATCHED=1` adds it; a part to copy, as `stacks.py`.
"""

from __future__ import annotations

from typing import Any

RATE_LIMITS = {
    "superadmin": "300/min",
    "owner": "200/min",
    "manager": "150/min",
    "staff": "100/min",
    "guest": "50/min",
}


def watched(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that change."""
    return {
        "ROOT_URLCONF": "config.watched_urls",
        "INSTALLED_APPS": [
            *settings["INSTALLED_APPS"],
            "django.contrib.admin",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "celeriac.django",
        ],
        "MIDDLEWARE": [
            "celeriac.django.middleware.RequestStatsMiddleware",
            *settings["MIDDLEWARE"],
            "django.contrib.messages.middleware.MessageMiddleware",
            "celeriac.django.middleware.RateLimitMiddleware",
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
        "STATIC_URL": "/static/",
        "CELERIAC": {
            "RATE_LIMITS": RATE_LIMITS,
            "RATE_LIMIT_EXEMPT": ["/admin/*", "/static/*", "/webhooks/*"],
            # The demo's visitors come through one, with an address each.
            "TRUSTED_PROXIES": ["127.0.0.1"],
        },
        "LOGGING": {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "loggers": {"celeriac": {"handlers": ["console"], "level": "WARNING"}},
        },
    }
