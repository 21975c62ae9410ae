"""What the storage for `limits` is beyond the tests of `limits`: one for all processes, with
messages for what users do wrong.
"""

from __future__ import annotations

import asyncio
import pickle
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac

limits = pytest.importorskip("limits", reason="limits isn't here: pip install '.[limits]'")

from limits import storage, strategies  # noqa: E402
from limits.aio import strategies as aio_strategies  # noqa: E402

from celeriac import limits_storage  # noqa: E402

PER_HOUR = limits.parse("12/hour")
STRATEGIES = sorted(strategies.STRATEGIES)


@pytest.fixture
def url() -> Iterator[str]:
    """A store that is nobody else's, as `limits` is told."""
    name = f"t-{secrets.token_hex(6)}"
    yield f"celeriac+shm://{name}"
    celeriac.connect(f"shm://{name}").destroy(force=True)


# Requests by one of several processes that serve the same application; prints its statuses.
APPLICATION = """
import sys
import celeriac.limits_storage
from flask import Flask
from flask_limiter import Limiter

url, strategy = sys.argv[1:]
app = Flask("shop")
limiter = Limiter(lambda: "198.51.100.7", app=app, storage_uri=url, strategy=strategy,
                  headers_enabled=True)

@app.get("/")
@limiter.limit("12/hour")
def front():
    return "front"

client = app.test_client()
print("ready", flush=True)
sys.stdin.readline()
answers = [client.get("/") for _ in range(10)]
last = answers[-1]
print(*[answer.status_code for answer in answers], last.headers["X-RateLimit-Limit"],
      last.headers["X-RateLimit-Remaining"])
"""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_flask_application_of_several_processes(
    url: str, strategy: str, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    pytest.importorskip("flask_limiter", reason="flask-limiter isn't here: pip install '.[test]'")
    workers = [start_python(APPLICATION, url, strategy) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
        assert worker.stdin is not None
    for worker in workers:
        print(file=worker.stdin, flush=True)
    answers = [worker.communicate(timeout=60)[0].split() for worker in workers]
    statuses = [status for answer in answers for status in answer[:10]]
    assert sorted(statuses) == ["200"] * 12 + ["429"] * 18
    assert {answer[10] for answer in answers} == {"12"}
    assert "0" in {answer[11] for answer in answers}


def test_the_documented_application(url: str) -> None:
    pytest.importorskip("flask_limiter", reason="flask-limiter isn't here: pip install '.[test]'")
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    (block,) = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert "celeriac+shm://app" in block
    space: dict[str, Any] = {}
    exec(block.replace("celeriac+shm://app", url), space)
    space["app"].get("/")(space["limiter"].limit("1/hour")(lambda: "front"))
    client = space["app"].test_client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_plain_and_asynchronous_share_their_counts(url: str, strategy: str) -> None:
    plain = strategies.STRATEGIES[strategy](storage.storage_from_string(url))
    loops = aio_strategies.STRATEGIES[strategy](storage.storage_from_string(f"async+{url}"))

    async def hit() -> bool:
        return await loops.hit(PER_HOUR, "k", cost=7)

    assert asyncio.run(hit())
    assert not plain.test(PER_HOUR, "k", cost=6)
    assert plain.hit(PER_HOUR, "k", cost=5)
    assert not asyncio.run(hit())


def test_options_and_pickles(url: str) -> None:
    kept = storage.storage_from_string(f"{url}?memory=8M", mode="0600")
    assert kept.incr("k", 60) == 1
    assert pickle.loads(pickle.dumps(kept)).incr("k", 60) == 2
    assert kept.counters.store.stats()["memory_limit"] == 8 << 20


def test_counts_arent_the_caches(url: str) -> None:
    kept = storage.storage_from_string(url, memory="4M")
    fixed = strategies.FixedWindowRateLimiter(kept)
    assert fixed.hit(PER_HOUR, "k", cost=12)
    cache = kept.counters.store.cache("pressure")
    for i in range(200):
        cache.set(str(i), bytes(100_000))
    assert cache.stats().evictions > 0
    assert not fixed.hit(PER_HOUR, "k")


def test_a_log_of_hits_stays_small(url: str) -> None:
    kept = storage.storage_from_string(url)
    moving = strategies.MovingWindowRateLimiter(kept)
    rate = limits.parse("1000000/day")
    for _ in range(3 * limits_storage.TICKS):  # all of them in a tick or two
        assert moving.hit(rate)
    assert moving.get_window_stats(rate).remaining == 1_000_000 - 3 * limits_storage.TICKS
    ((_, log),) = kept.counters.table.items()
    assert len(log) <= 16 * limits_storage.TICKS // 2


@pytest.mark.parametrize("prefix", ["", "async+"])
def test_a_store_that_is_away(prefix: str, url: str) -> None:
    away = storage.storage_from_string(f"{prefix}{url}?create=false", wrap_exceptions=True)

    def call(name: str, *arguments: Any) -> Any:
        result = getattr(away, name)(*arguments)
        return asyncio.run(result) if prefix else result

    assert call("check") is False
    with pytest.raises(limits.errors.StorageError) as raised:
        call("incr", "k", 60)
    assert isinstance(raised.value.storage_error, celeriac.StoreNotFound)
    with celeriac.connect(url.removeprefix("celeriac+")):
        assert call("check") is True
        assert call("incr", "k", 60) == 1


@pytest.mark.parametrize(
    ("more", "complaint"), [("?memry=8M", "memry"), ("?memory=some", "memory"), ("/a/b", "/")]
)
def test_wrong_urls_are_said_at_once(url: str, more: str, complaint: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=complaint):
        storage.storage_from_string(url + more)
