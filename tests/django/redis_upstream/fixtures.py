"""Fixtures that the tests of django-redis take, on celeriac: their conftest.py at the run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).absolute().parent))


def pytest_configure(config: pytest.Config) -> None:
    from django import setup
    from django.conf import settings
    from shim import caches

    options = {
        "native": {},
        "file": {},
        "json": {"serializer": "json"},
        "msgpack": {"serializer": "msgpack"},
        "zlib": {"compressor": "zlib", "compress_above": 15},
    }
    settings.configure(
        SECRET_KEY="no secret: these are tests",
        CACHES=caches(**options[os.environ["CELERIAC_TEST_SETTINGS"]]),
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        USE_TZ=False,
        # An IntEnum and a datetime are more than JSON and MessagePack have.
        SESSION_SERIALIZER="django.contrib.sessions.serializers.JSONSerializer",
    )
    setup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = os.environ["CELERIAC_TEST_NAMES"].split(",")
    items[:] = [item for item in items if item.name.partition("[")[0] in wanted]


def pytest_unconfigure(config: pytest.Config) -> None:
    from django.conf import settings

    import celeriac

    for entry in settings.CACHES.values():
        try:
            store = celeriac.connect(entry["LOCATION"], create=False)
        except celeriac.StoreNotFound:
            continue
        store.destroy(force=True)


@pytest.fixture
def settings() -> Iterator[Any]:
    from tests.settings_wrapper import SettingsWrapper

    wrapper = SettingsWrapper()
    yield wrapper
    wrapper.finalize()


@pytest.fixture
def cache() -> Iterator[Any]:
    from django.core.cache import cache as default_cache

    yield default_cache
    default_cache.clear()
