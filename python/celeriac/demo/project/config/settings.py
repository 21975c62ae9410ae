"""The shop's settings: an ordinary Django project on SQLite, with Celery.

`DEMO_STACK` chooses what serves the cache and the tasks; see `stacks.py`, the part to copy.
`DEMO_WATCHED` adds what whoever is on call sees; see `watched.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from .stacks import STACKS
from .watched import watched

DATABASE = Path(os.environ.get("DEMO_DATABASE", "shop.sqlite3"))

SECRET_KEY = "the demo shop keeps no secrets"
WEBHOOK_SECRET = os.environ.get("DEMO_WEBHOOK_SECRET", "shared with the payment provider")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

# SQLite as several processes need it: readers beside one writer (WAL), writers that wait for each
# other instead of failing, and transactions that take the write lock at their start.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE,
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}

SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

# A cheap password hash, so that logins measure sessions. A real shop keeps Django's default.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Tasks are acknowledged after their work, so one whose worker dies is done by another.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_RESULT_EXPIRES = 600
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "refresh-analytics": {"task": "shop.tasks.refresh_analytics", "schedule": 2.0},
}

globals().update(STACKS[os.environ.get("DEMO_STACK", "celeriac")]())
if os.environ.get("DEMO_WATCHED"):
    globals().update(watched(globals()))
