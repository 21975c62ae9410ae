"""Whom limits have refused: counted in the store, for the page; by each of Django's limits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.django import limited
from celeriac.limits import Limiter

SUPPORT = Path(__file__).parent / "support"


def visit(script: str, *arguments: str) -> Any:
    command = [sys.executable, str(SUPPORT / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused_in(location: str) -> dict[tuple[str, str], int]:
    with celeriac.connect(location, create=False) as store:
        return {(each.limiter, each.key): each.times for each in limited.most(store, 10)}


def counted_in(location: str) -> dict[tuple[str, str], float]:
    """By limit and outcome, what the exposition says."""
    with celeriac.connect(location, create=False) as store:
        text = store.metrics.exposition().decode()
    found = re.findall(r'celeriac_limit_decisions_total{limit="(.*)",outcome="(.*)"} (\S+)', text)
    return {(limit, outcome): float(number) for limit, outcome, number in found}


def test_of_the_middleware(location: str) -> None:
    settings = {"RATE_LIMITS": {"guest": "2/min"}}
    visit("limits_site.py", location, json.dumps(settings), "by_address")
    assert refused_in(location) == {("django role guest", "guest:ip 192.0.2.1"): 8}
    counted = counted_in(location)
    assert counted.keys() == {("django role guest", "allowed"), ("django role guest", "refused")}
    assert counted["django role guest", "refused"] == 8
    assert counted["django role guest", "allowed"] >= 2


def test_of_the_decorator(location: str) -> None:
    visit("limits_site.py", location, "{}", "decorated")
    assert refused_in(location) == {
        ("view __main__.decorated", "ip 127.0.0.1"): 1,
        ("view __main__.posted", "ip 127.0.0.1"): 1,
        ("view __main__.soft", "a"): 1,
    }


def test_of_throttles(location: str) -> None:
    pytest.importorskip("rest_framework", reason="pip install '.[test]'")
    visit("rest_site.py", location)
    assert refused_in(location) == {
        ("django rest anon 2/min", "throttle_anon_192.0.2.1"): 1,
        ("django rest uploads 1/hour", "throttle_uploads_192.0.2.1"): 1,
        ("django rest user 3/day", "throttle_user_192.0.2.1"): 1,
    }


def test_of_shadow_mode(location: str) -> None:
    settings = {"RATE_LIMITS": {"guest": "2/min"}, "RATE_LIMIT_SHADOW": True}
    visit("limits_site.py", location, json.dumps(settings), "three")
    with celeriac.connect(location, create=False) as store:
        (found,) = limited.most(store, 10)
    assert (found.times, found.shadow) == (1, True)
    assert counted_in(location) == {
        ("django role guest", "allowed"): 2,
        ("django role guest", "shadowed"): 1,
    }


@pytest.fixture
def store(location: str) -> celeriac.Store:
    return celeriac.connect(location)


def refuse(
    store: celeriac.Store, limiter: Limiter, algorithm: str, key: str, times: int = 1
) -> None:
    while limiter.hit(key):
        pass
    book = limited.book_of(store)
    for _ in range(times):
        limited.note(book, limiter, algorithm, key, limiter.hit(key))


def test_the_most_refused_come_first(store: celeriac.Store) -> None:
    limiter = store.limiter("1/hour", name="one")
    for key, times in (("few", 1), ("most", 9), ("more", 4)):
        refuse(store, limiter, "gcra", key, times)
    book = limited.book_of(store)
    limited.note(book, limiter, "gcra", "allowed", limiter.hit("allowed"))
    limited.note(book, limiter, "gcra", "x" * 501, limiter.hit("few"))
    found = [(each.key, each.times) for each in limited.most(store, 10)]
    assert found == [("most", 9), ("more", 4), ("few", 1)]
    assert [each.key for each in limited.most(store, 1)] == ["most"]


@pytest.mark.parametrize(
    ("rates", "burst", "algorithm"),
    [
        ("1/hour", 3, "gcra"),
        ("2/hour", None, "token_bucket"),
        ("2/hour", None, "sliding_window"),
        ("2/hour", None, "fixed_window"),
        (["2/hour", "3/day"], [2, 1], "gcra"),
    ],
)
def test_a_reset_lets_the_key_begin_anew(
    store: celeriac.Store, rates: Any, burst: Any, algorithm: str
) -> None:
    limiter = store.limiter(rates, burst=burst, algorithm=algorithm, name="n")
    fresh = limiter.peek("key").remaining
    for key in ("key", "other"):
        refuse(store, limiter, algorithm, key)
    (found,) = [each for each in limited.most(store, 10) if each.key == "key"]
    limited.reset(store, found)
    assert limiter.peek("key").remaining == fresh
    assert limiter.peek("other").remaining == 0
    assert [each.key for each in limited.most(store, 10)] == ["other"]
    assert limited.find(store, found.id) is None
    assert limited.find(store, "nothing") is None


def test_many_keys_take_a_bounded_number_of_entries(store: celeriac.Store) -> None:
    limiter = store.limiter("1/hour", name="one")
    for number in range(3000):
        refuse(store, limiter, "gcra", f"{number}")
    assert len(store.cache("celeriac.limited")) <= 2000
    assert len(limited.most(store, 50)) == 50


def test_a_store_that_is_away_is_no_error(store: celeriac.Store) -> None:
    limiter, book = store.limiter("1/hour", name="one"), limited.book_of(store)
    limiter.hit("key")
    refused = limiter.hit("key")
    store.close()
    with pytest.raises(celeriac.CeleriacError):
        book.add("key", 1)
    limited.note(book, limiter, "gcra", "key", refused)
