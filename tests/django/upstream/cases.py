"""Django's own test classes, put on celeriac.

Two ways. `BaseCacheTests` is made to be inherited by each backend. The other classes are written
for the local-memory cache by their settings alone, so the same classes run with every local-memory
cache in those settings replaced by ours (`on_celeriac`).
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock, skip

import cache.closeable_cache
import cache.liberal_backend
from asgiref.sync import async_to_sync
from cache import tests as cache_tests
from django.core.cache import cache as default_cache
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.test import SimpleTestCase, TestCase, override_settings
from sessions_tests import tests as session_tests
from stores import store_url
from template_tests.syntax_tests import test_cache as fragment_tests

from celeriac.django.cache import CeleriacCache

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CELERIAC = "celeriac.django.cache.CeleriacCache"


# ---- Django's suite for backends


@override_settings(
    CACHES=cache_tests.caches_setting_for_tests(BACKEND=CELERIAC, LOCATION=store_url("base"))
)
class CeleriacCacheTests(cache_tests.BaseCacheTests, TestCase):
    """All of BaseCacheTests, with the `cull` and `zero_cull` caches."""

    def test_multiple_caches(self) -> None:
        """Another LOCATION is another cache (Django tests this of its local-memory cache)."""
        default_cache.set("value", 42)
        other = CeleriacCache(store_url("another"), {})
        self.assertIsNone(other.get("value"))


class ThroughAsync(CeleriacCache):
    """A CeleriacCache whose sync calls are made through its async ones."""

    def _twin(self) -> CeleriacCache:
        twin = CeleriacCache.__new__(CeleriacCache)
        twin.__dict__ = self.__dict__
        return twin


def _through(name: str) -> Any:
    def call(self: ThroughAsync, *args: Any, **kwargs: Any) -> Any:
        return async_to_sync(getattr(self._twin(), name))(*args, **kwargs)

    return call


def _straight(name: str) -> Any:
    def call(self: ThroughAsync, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._twin(), name)(*args, **kwargs)

    return call


# get_or_set stays as it is: it is made of `get` and `add`, which Django's tests replace.
for _name in [name for name in vars(BaseCache) if "a" + name in vars(BaseCache)]:
    if _name != "get_or_set":
        setattr(ThroughAsync, _name, _through("a" + _name))
        setattr(ThroughAsync, "a" + _name, _straight("a" + _name))


@override_settings(
    CACHES=cache_tests.caches_setting_for_tests(
        BACKEND="cases.ThroughAsync", LOCATION=store_url("async")
    )
)
class CeleriacAsyncCallsTests(cache_tests.BaseCacheTests, TestCase):
    """The same suite once more, with each call going through its async twin."""


# ---- classes that Django runs on its local-memory cache


def on_celeriac(base: type[SimpleTestCase]) -> type[SimpleTestCase]:
    """`base` with each local-memory cache in its settings replaced by ours."""
    settings = dict(base._overridden_settings or {})  # type: ignore[attr-defined]
    settings["CACHES"] = copy.deepcopy(settings.get("CACHES", {"default": {"BACKEND": LOCMEM}}))
    for cache_settings in settings["CACHES"].values():
        if cache_settings["BACKEND"] == LOCMEM:
            location = cache_settings.get("LOCATION", "")
            cache_settings.update(BACKEND=CELERIAC, LOCATION=store_url(f"like-{location}"))
    return override_settings(**settings)(type(base.__name__, (base,), {"__module__": __name__}))


CacheUtils = on_celeriac(cache_tests.CacheUtils)
PrefixedCacheUtils = on_celeriac(cache_tests.PrefixedCacheUtils)
CacheHEADTest = on_celeriac(cache_tests.CacheHEADTest)
CacheI18nTest = on_celeriac(cache_tests.CacheI18nTest)
PrefixedCacheI18nTest = on_celeriac(cache_tests.PrefixedCacheI18nTest)
CacheMiddlewareTest = on_celeriac(cache_tests.CacheMiddlewareTest)
TestWithTemplateResponse = on_celeriac(cache_tests.TestWithTemplateResponse)
CacheHandlerTest = on_celeriac(cache_tests.CacheHandlerTest)
CacheTagTests = on_celeriac(fragment_tests.CacheTagTests)


# ---- classes that bring a backend of their own, derived from the local-memory cache


class CloseableCache(cache.closeable_cache.CloseHookMixin, CeleriacCache):
    """Django's hook that notes a `close()`, on ours."""

    def __init__(self, url: str, params: dict[str, Any]) -> None:
        super().__init__(url or store_url("closeable"), params)


class LiberalCache(cache.liberal_backend.LiberalKeyValidationMixin, CeleriacCache):
    """Django's mixin that overrides `validate_key`, on ours."""

    def __init__(self, url: str, params: dict[str, Any]) -> None:
        super().__init__(url or store_url("liberal"), params)


@mock.patch("cache.closeable_cache.CacheClass", CloseableCache)
class CacheClosingTests(cache_tests.CacheClosingTests):
    def test_it_is_ours(self) -> None:
        self.assertIsInstance(caches["default"], CeleriacCache)


@mock.patch("cache.liberal_backend.CacheClass", LiberalCache)
class CustomCacheKeyValidationTests(cache_tests.CustomCacheKeyValidationTests):
    def test_it_is_ours(self) -> None:
        self.assertIsInstance(caches["default"], CeleriacCache)


# ---- sessions


CacheDBSessionTests = on_celeriac(session_tests.CacheDBSessionTests)
CacheDBSessionWithTimeZoneTests = on_celeriac(session_tests.CacheDBSessionWithTimeZoneTests)
CacheSessionTests = on_celeriac(session_tests.CacheSessionTests)


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache")
class SessionMiddlewareOnCache(on_celeriac(session_tests.SessionMiddlewareTests)):  # type: ignore[misc]
    """The session middleware's suite with SESSION_ENGINE `cache`."""

    @skip("it reads the session's row in the database, and this engine writes none")
    def test_empty_session_saved(self) -> None: ...


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
class SessionMiddlewareOnCachedDB(on_celeriac(session_tests.SessionMiddlewareTests)):  # type: ignore[misc]
    """The session middleware's suite with SESSION_ENGINE `cached_db`."""
