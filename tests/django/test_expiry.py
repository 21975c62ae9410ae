"""The calls about time that django-redis added: what is left of a key, and changing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from celeriac.django.cache import CeleriacCache


@pytest.fixture
def cache(backend: Callable[..., CeleriacCache]) -> CeleriacCache:
    return backend()


def test_what_is_left_straight_after_set_is_what_was_set(cache: CeleriacCache) -> None:
    cache.set("key", "value", 10)
    assert cache.ttl("key") == 10
    left = cache.pttl("key")
    assert left is not None
    assert 9_000 < left <= 10_001


def test_what_is_left_is_0_for_a_missing_key_and_none_for_ever(cache: CeleriacCache) -> None:
    assert cache.ttl("key") == 0
    assert cache.pttl("key") == 0
    cache.set("key", "value", None)
    assert cache.ttl("key") is None
    assert cache.pttl("key") is None


def test_a_key_that_still_lives_has_something_left(cache: CeleriacCache) -> None:
    cache.set("key", "value", 0.4)
    assert cache.ttl("key") == 1
    assert cache.ttl("key", version=2) == 0


def test_persist(cache: CeleriacCache) -> None:
    cache.set("key", "value", 20)
    assert cache.persist("key") is True
    assert cache.ttl("key") is None
    assert cache.persist("key") is False, "as with Redis: it has no timeout to take away"
    assert cache.persist("missing") is False


@pytest.mark.parametrize("timeout", [20, timedelta(seconds=20)])
def test_expire(cache: CeleriacCache, timeout: float | timedelta) -> None:
    cache.set("key", "value", None)
    assert cache.expire("key", timeout) is True
    assert cache.ttl("key") == 20
    assert cache.expire("missing", timeout) is False


def test_expire_takes_the_default_timeout_and_none(cache: CeleriacCache) -> None:
    cache.set("key", "value", 20)
    for call in (cache.expire, cache.pexpire):
        assert call("key", DEFAULT_TIMEOUT) is True
        assert cache.ttl("key") == 300
        assert call("key", None) is True
        assert cache.ttl("key") is None


@pytest.mark.parametrize("timeout", [20_500, timedelta(milliseconds=20_500)])
def test_pexpire(cache: CeleriacCache, timeout: float | timedelta) -> None:
    cache.set("key", "value", None)
    assert cache.pexpire("key", timeout) is True
    left = cache.pttl("key")
    assert left is not None
    assert 19_500 < left <= 20_501
    assert cache.pexpire("missing", timeout) is False


def test_expire_at(cache: CeleriacCache) -> None:
    cache.set("key", "value", None)
    hour = timedelta(hours=1)
    for when in (datetime.now() + hour, datetime.now(timezone.utc) + hour, time.time() + 3600):
        assert cache.expire("key", 5) is True
        assert cache.expire_at("key", when) is True
        left = cache.ttl("key")
        assert left is not None
        assert 3_590 <= left <= 3_600
    assert cache.expire_at("missing", time.time() + 3600) is False


def test_pexpire_at(cache: CeleriacCache) -> None:
    cache.set("key", "value", None)
    assert cache.pexpire_at("key", (time.time() + 3600) * 1000) is True
    left = cache.ttl("key")
    assert left is not None
    assert 3_590 <= left <= 3_600
    assert cache.pexpire_at("key", datetime.now() + timedelta(hours=2)) is True
    left = cache.ttl("key")
    assert left is not None
    assert 7_190 <= left <= 7_200


def test_a_moment_that_has_passed_expires_the_key(cache: CeleriacCache) -> None:
    for call in (
        lambda: cache.expire_at("key", datetime.now() - timedelta(hours=2)),
        lambda: cache.pexpire_at("key", 1_000),
        lambda: cache.expire("key", 0),
        lambda: cache.pexpire("key", -1),
    ):
        cache.set("key", "value")
        assert call() is True
        assert "key" not in cache


def test_a_stale_value_is_missing_for_every_other_call(cache: CeleriacCache) -> None:
    def keep(timeout: float) -> None:
        assert cache.get_or_set("key", "old", timeout, stale=1000) == "old"

    cache.get("connected")
    for timeout in (20, 2000):
        keep(60)
        assert cache.touch("key", timeout) is True
        assert cache.ttl("key") == timeout
        assert cache.get("key") == "old"
    assert cache.delete("key") is True
    for call in (cache.touch, cache.persist, cache.delete, cache.has_key):
        keep(0.02)
        time.sleep(0.025)
        assert call("key") is False
        assert cache.ttl("key") == 0
        assert cache.get("key") is None
        cache.delete("key")
