"""Fixtures for the tests of the Django backend."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.django import location as locations
from celeriac.django.cache import CeleriacCache
from celeriac.url import parse_url

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture(scope="session")
def django_tests(request: pytest.FixtureRequest) -> Path:
    """The `tests` directory of the installed Django's source distribution."""
    import django_source
    import sdist

    try:
        return django_source.django_tests(request.config.cache.mkdir("django-source"))
    except sdist.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def location() -> Iterator[str]:
    """The URL of a store that nobody else uses; removed after the test."""
    url = f"shm://t-{secrets.token_hex(8)}"
    yield url
    # A process keeps the stores of its settings open: of these there are hundreds in one.
    for known in [at for at in locations._locations if at.name == parse_url(url).name]:
        if (opened := locations._locations.pop(known)._store) is not None:
            opened.close()
    try:
        store = celeriac.connect(url, create=False)
    except celeriac.StoreNotFound:
        return
    store.destroy(force=True)


@pytest.fixture
def backend(location: str) -> Callable[..., CeleriacCache]:
    """Makes backends at the test's location: `backend(VERSION=2, OPTIONS={...})`."""

    def make(**params: Any) -> CeleriacCache:
        return CeleriacCache(location, params)

    return make
