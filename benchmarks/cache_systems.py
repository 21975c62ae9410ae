"""The caches that `benchmarks.cache` compares, and the work that it has them do.

Everything goes through Django's cache API as a project sets it up, but for two that don't:
`celeriac-raw` is `store.cache()` itself, and `redis-raw` is redis-py with pickle around it.
"""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import celeriac

KEYS = 1000
CHUNK = 100
MANY = 100
TIMEOUT = 300

VALUES: dict[str, Any] = {
    "int": 1_234_567,
    "1 KB bytes": bytes(range(256)) * 4,
    "5-field dict": {
        "id": 4711,
        "name": "Hand-thrown mug, blue",
        "price": 24.5,
        "in_stock": True,
        "category": "kitchen",
    },
    "10 KB list of dicts": [
        {
            "id": 1000 + number,
            "name": f"Product number {number} of the list",
            "price": 9.99 + number,
            "stock": number * 3 % 40,
            "slug": f"product-number-{number}",
        }
        for number in range(100)
    ],
}

DESCRIPTIONS = {
    "celeriac": "celeriac.django.cache.CeleriacCache on shm://",
    "celeriac-raw": "store.cache() on shm://, without Django",
    "locmem": "Django's LocMemCache (each process has its own)",
    "redis": "Django's RedisCache, hiredis parser, unix socket, no persistence",
    "redis-raw": "redis-py and pickle, hiredis parser, unix socket, without Django",
    "django-redis": "django_redis.cache.RedisCache, hiredis parser, unix socket",
    "diskcache": "diskcache.DjangoCache, files in memory (tmpfs)",
    "pylibmc": "Django's PyLibMCCache on memcached, unix socket",
}
AGAINST = {
    "celeriac": ("locmem", "redis", "django-redis", "diskcache", "pylibmc"),
    "celeriac-raw": ("locmem", "redis", "redis-raw"),
}


@dataclass(frozen=True)
class Place:
    """Where the shared systems are: what a process must know to join in."""

    store: str
    redis: str
    folder: str
    memcached: str = ""


def available(place: Place) -> dict[str, str]:
    """The systems that are installed, and what they are."""
    optional = {"django-redis": "django_redis", "diskcache": "diskcache"}
    return {
        name: text
        for name, text in DESCRIPTIONS.items()
        if name not in optional or importlib.util.find_spec(optional[name])
        if name != "pylibmc" or place.memcached
    }


class RawRedis:
    """As much of redis-py as compares with `store.cache()`; ints as they are, as Django does."""

    def __init__(self, url: str) -> None:
        import redis

        self._client = redis.Redis.from_url(url)

    def get(self, key: str, default: Any = None) -> Any:
        value: Any = self._client.get(key)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError:
            return pickle.loads(value)

    def set(self, key: str, value: Any) -> None:
        raw = value if type(value) is int else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._client.set(key, raw, ex=TIMEOUT)


def connect(place: Place, names: list[str]) -> dict[str, Any]:
    """The caches of this process, by name. Once per process: Django is configured here."""
    from django.conf import settings
    from django.core.cache import caches

    configured = {
        "celeriac": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": place.store,
        },
        "locmem": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        },
        "redis": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": place.redis,
        },
        "django-redis": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": place.redis,
            "KEY_PREFIX": "other",
        },
        "diskcache": {"BACKEND": "diskcache.DjangoCache", "LOCATION": place.folder},
        "pylibmc": {
            "BACKEND": "django.core.cache.backends.memcached.PyLibMCCache",
            "LOCATION": f"unix:{place.memcached}",
        },
    }
    used = {name: entry for name, entry in configured.items() if name in names}
    settings.configure(CACHES={"default": configured["locmem"], **used})
    found: dict[str, Any] = {}
    for name in names:
        if name == "celeriac-raw":
            found[name] = celeriac.connect(place.store).cache("raw", ttl=TIMEOUT)
        elif name == "redis-raw":
            found[name] = RawRedis(place.redis)
        else:
            found[name] = caches[name]
    return found


def fill(cache: Any) -> None:
    """Every key of every kind of value, and the counter."""
    for kind, value in VALUES.items():
        for key in keys(kind):
            cache.set(key, value)
    cache.set("counter", 0)


def keys(kind: str) -> list[str]:
    """The keys of a kind of value: what keys in projects look like."""
    name = kind.replace(" ", "-")
    return [f"shop:{name}:{number}" for number in range(KEYS)]


def check(cache: Any) -> None:
    """The cache gives back what was put in: else its speed is of no interest."""
    for kind, value in VALUES.items():
        if cache.get(keys(kind)[7]) != value:
            raise AssertionError(f"{cache!r} doesn't give back the {kind} that was set")


def chunks(kind: str) -> Iterator[list[str]]:
    """The keys again and again, a hundred at a time."""
    every = keys(kind)
    return itertools.cycle([every[at : at + CHUNK] for at in range(0, KEYS, CHUNK)])


Step = Callable[[], int]
"""Does some calls and says how many."""


def get(cache: Any, kind: str) -> Step:
    call, parts = cache.get, chunks(kind)

    def step() -> int:
        for key in next(parts):
            call(key)
        return CHUNK

    return step


def put(cache: Any, kind: str) -> Step:
    call, parts, value = cache.set, chunks(kind), VALUES[kind]

    def step() -> int:
        for key in next(parts):
            call(key, value)
        return CHUNK

    return step


def mixed(cache: Any, kind: str) -> Step:
    """Nine gets, then a set: what a busy cache sees."""
    call, store, parts, value = cache.get, cache.set, chunks(kind), VALUES[kind]

    def step() -> int:
        for number, key in enumerate(next(parts)):
            if number % 10:
                call(key)
            else:
                store(key, value)
        return CHUNK

    return step


def get_many(cache: Any, kind: str) -> Step:
    call, parts = cache.get_many, chunks(kind)

    def step() -> int:
        call(next(parts)[:MANY])
        return 1

    return step


def incr(cache: Any, kind: str) -> Step:
    call = cache.incr

    def step() -> int:
        for _ in range(CHUNK):
            call("counter")
        return CHUNK

    return step


def touch(cache: Any, kind: str) -> Step:
    call, parts = cache.touch, chunks(kind)

    def step() -> int:
        for key in next(parts):
            call(key, TIMEOUT)
        return CHUNK

    return step


def delete(cache: Any, kind: str) -> Step:
    """Each tenth step stores the keys that the others delete: the median step doesn't."""
    call, fill_up, value = cache.delete, cache.set_many, VALUES[kind]
    names = [f"gone:{key}" for key in keys(kind)]
    left: list[str] = []

    def step() -> int:
        if not left:
            fill_up(dict.fromkeys(names, value))
            left.extend(names)
        part = left[-CHUNK:]
        del left[-CHUNK:]
        for key in part:
            call(key)
        return CHUNK

    return step


def miss(cache: Any, kind: str) -> Step:
    call, parts = cache.get, chunks("nowhere")

    def step() -> int:
        for key in next(parts):
            call(key)
        return CHUNK

    return step


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    make: Callable[[Any, str], Step]
    kind: str = ""
    raw: bool = True  # redis-raw has get and set only


SINGLE = (
    *(Case(f"get {kind}", get, kind) for kind in VALUES),
    Case("get, missing", miss),
    *(Case(f"set {kind}", put, kind) for kind in VALUES),
    Case("get_many of 100 dicts", get_many, "5-field dict", raw=False),
    Case("incr", incr, raw=False),
    Case("delete dict", delete, "5-field dict", raw=False),
    Case("touch dict", touch, "5-field dict", raw=False),
)
SHARED = (
    Case("get dict", get, "5-field dict"),
    Case("set dict", put, "5-field dict"),
    Case("9 gets, 1 set of dicts", mixed, "5-field dict"),
)


def run(step: Step, seconds: float) -> tuple[float, float]:
    """Repeat a step for that long: calls a second over all, and seconds a call by the median step.

    The median leaves out the steps that another process of the machine broke in on.
    """
    clock = time.perf_counter
    calls = 0
    each: list[float] = []
    start = before = clock()
    end = start + seconds
    while before < end:
        done = step()
        now = clock()
        calls += done
        each.append((now - before) / done)
        before = now
    return calls / (before - start), statistics.median(each)


def latencies(call: Callable[[str, Any], Any], kind: str, seconds: float) -> list[int]:
    """Nanoseconds of each single `set`, for that long."""
    clock, value = time.perf_counter_ns, VALUES[kind]
    taken: list[int] = []
    end = clock() + round(seconds * 1e9)
    for key in itertools.cycle(keys(kind)):
        before = clock()
        call(key, value)
        after = clock()
        taken.append(after - before)
        if after >= end:
            return taken
    raise AssertionError("a cycle doesn't end")
