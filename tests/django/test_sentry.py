"""Sentry's SDK sees the cache as it sees any other backend of Django's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sentry_sdk", reason="no sentry-sdk: pip install '.[test]'")

SITE = Path(__file__).parent / "support" / "sentry_site.py"


def test_spans_of_the_cache(location: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SITE), location], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["got"] == {
        "absent": None,
        "set": found["got"]["set"],
        "get": {"price": 3},
        "set_many": [],
        "get_many": {"product:1": {"price": 3}, "product:2": 2},
        "get_or_set": 4,
        "incr": 5,
    }
    assert (found["hits"], found["misses"]) == ("3", "2"), "counted under its wrappers, too"
    spans = [(span["op"], span["about"], span["data"].get("cache.hit")) for span in found["spans"]]
    assert spans[:5] == [
        ("cache.get", "absent", False),
        ("cache.put", "product:1", None),
        ("cache.get", "product:1", True),
        ("cache.put", "product:2, product:3", None),
        ("cache.get", "product:1, product:2", True),
    ]
    for span in found["spans"]:
        assert span["data"]["network.peer.address"] == location.partition("?")[0]
    (item,) = (span for span in found["spans"][2:3])
    assert item["data"]["cache.key"] == ["product:1"]
    assert item["data"]["cache.item_size"] == len(str({"price": 3}))
