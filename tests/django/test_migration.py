"""docs/migration.md: its settings work as they stand, and its tables name calls that are there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache
from django.utils.module_loading import import_string

import celeriac
from celeriac.django import options
from celeriac.django.cache import CeleriacCache

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
SECTIONS = dict(re.findall(r"^## (From .*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
BACKENDS = {
    "LocMem": "django.core.cache.backends.locmem.LocMemCache",
    "Django's RedisCache": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
    "diskcache": "diskcache.DjangoCache",
}
CACHES = list(BACKENDS)

# Run with settings as a page has them after the change; prints what it found.
USE = """
import json, sys
from django.conf import settings
names = {}
exec(sys.argv[1], names)
names["CACHES"]["default"]["LOCATION"] = sys.argv[2]
settings.configure(CACHES=names["CACHES"])
from django.core.cache import cache
value = {"text": "x" * 3000, "n": 1}
cache.set("key", value)
found = [cache.get("key") == value, cache.ttl("key"), cache.make_key("key")]
cache.store.destroy(force=True)
print(json.dumps(found))
"""


def settings_of(title: str) -> tuple[str, str]:
    """The settings before and after."""
    (block,) = re.findall(r"```python\n(# before\n.*?)```", SECTIONS[title], re.S)
    before, after = block.split("# after\n")
    return before, after


def test_there_is_a_page_from_each() -> None:
    assert list(SECTIONS) == [
        *(f"From {name}" for name in CACHES),
        "From Redis as Celery's broker",
        "From other rate limits",
        "From other locks",
    ]


@pytest.mark.parametrize("name", CACHES)
def test_settings_before_are_those_of_the_other(name: str) -> None:
    before, _ = settings_of(f"From {name}")
    names: dict[str, Any] = {}
    exec(before, names)
    backend = names["CACHES"]["default"]["BACKEND"]
    assert backend == BACKENDS[name]
    if backend.startswith("django."):  # the others needn't be installed
        assert issubclass(import_string(backend), BaseCache)


@pytest.mark.parametrize("name", CACHES)
def test_settings_after_work(name: str, location: str) -> None:
    _, after = settings_of(f"From {name}")
    command = [sys.executable, "-c", USE, after, location]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    prefix = "shop" if name == "django-redis" else ""
    assert json.loads(done.stdout) == [True, 300, f"{prefix}:1:key"]


def test_the_calls_of_the_table_are_there(location: str) -> None:
    rows = re.findall(r"^\| `.*\| (`.*) \|$", SECTIONS["From diskcache"], re.M)
    calls = [call for row in rows for call in re.findall(r"`(.*?)`", row)]
    assert len(calls) >= 9
    store = celeriac.connect(location)
    names = {
        "celeriac": celeriac,
        "store": store,
        "cache": store.cache("name"),
        "k": "key",
        "v": "value",
    }
    for call in calls:
        if call.startswith("."):  # goes on where the one before it ended
            call = 'store.cache("name")' + call
        if call.startswith("cache.store"):
            names["cache"] = CeleriacCache(location, {})
        eval(call.removeprefix("@").replace("shm://app", location), names)
        names["cache"] = store.cache("name")


def test_what_is_said_of_django_redis_is_there() -> None:
    text = SECTIONS["From django-redis"]
    (names,) = re.findall(r"under the same names: `(.*?)`,", text, re.S)
    assert len(names.split()) >= 10
    assert [name for name in names.split() if not hasattr(CeleriacCache, name)] == []
    known = {*options.DJANGO_OPTIONS, *options.CACHE_OPTIONS, "memory"}
    _, after = settings_of("From django-redis")
    assert set(re.findall(r'^            "(\w+)":', after, re.M)) <= known
