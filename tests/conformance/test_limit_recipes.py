"""The recipes of docs/limits.md: each block of code runs, and they do what nginx does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import celeriac
from celeriac import _core

TEXT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def run(url: str, *wanted: str) -> dict[str, Any]:
    """What the first block and those with these words have defined."""
    space: dict[str, Any] = {"url": url}
    for block in [BLOCKS[0], *(block for block in BLOCKS if any(word in block for word in wanted))]:
        exec(block, space)
    return space


def test_all_blocks_run(url: str) -> None:
    assert len(BLOCKS) > 6
    run(url, "")


class Nginx:
    """ngx_http_limit_req_lookup(): thousandths of a request above the rate, time in ms."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate * 1000, burst * 1000
        self.excess, self.last = -1, 0

    def request(self, now: int) -> bool:
        excess = 0
        if self.excess >= 0:
            excess = max(0, self.excess - self.rate * (now - self.last) // 1000 + 1000)
        if excess > self.burst:
            return False
        self.excess, self.last = excess, now
        return True


@settings(deadline=None)
@given(pauses=st.lists(st.integers(0, 40), max_size=300))
def test_limit_req_nodelay(pauses: list[int]) -> None:
    nginx = Nginx(100, 20)
    rate = (1, 100, 1_000_000_000, 21)
    word, now = 0, 10**9
    for pause in [0] * 25 + pauses:
        now += pause
        allowed, word, *_ = _core.decide_rate(rate, word, now * 1_000_000, 1)
        assert allowed == nginx.request(now)


def test_that_rate_is_the_recipes(url: str) -> None:
    (rate,) = run(url, "burst=21")["limiter"].rates
    assert (rate.amount, rate.period, rate.burst) == (100, 1, 21)


def test_limit_conn(store: celeriac.Store, url: str) -> None:
    space = run(url, "def handle")
    assert space["answer"] == "200"
    held = [store.concurrency("addr:198.51.100.7", 10).acquire(timeout=0) for _ in range(10)]
    exec(next(block for block in BLOCKS if "def handle" in block), space)
    assert space["answer"] == "503"
    for slot in held:
        slot.release()


def test_turns(url: str) -> None:
    space = run(url, "turns")
    assert space["decision"]
    assert space["turns"].wait("198.51.100.7", timeout=60)


def test_shadow(url: str) -> None:
    space = run(url, "shadow=True")
    assert space["would_refuse"] is False
    for _ in range(5):
        decision = space["trial"].hit("user:7")
    assert decision
    assert decision.retry_after > 0
