"""Settings for Django's own tests: those of its `runtests.py` as far as these suites need them."""

from __future__ import annotations

from stores import store_url

SECRET_KEY = "no secret: these are tests"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.sessions",
    "celeriac.django",
    "cache",
    "sessions_tests",
]
MIGRATION_MODULES = {"auth": None, "contenttypes": None, "sessions": None, "sites": None}
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CACHES = {
    "default": {
        "BACKEND": "celeriac.django.cache.CeleriacCache",
        "LOCATION": store_url("default"),
    }
}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
ROOT_URLCONF = "urls"
SITE_ID = 1
USE_TZ = False
LANGUAGE_CODE = "en"
