"""The arithmetic of each algorithm against a few lines of Python with exact fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import _core

GCRA, SLIDING, FIXED = 1, 2, 3
START = 10**15
TICK = 1 << 17  # ns, of fixed windows


class Bucket:
    """A token bucket: full at first, filled by count each period."""

    def __init__(self, count: int, period: int, burst: int) -> None:
        # A token takes a whole number of quarters of a ns, never less than the rate says.
        self.each = Fraction(-(-4 * period // count), 4)
        self.burst, self.tokens, self.at = burst, Fraction(burst), START

    def left(self, now: int) -> Fraction:
        return min(Fraction(self.burst), self.tokens + (now - self.at) / self.each)

    def hit(self, now: int, cost: int) -> bool:
        self.tokens, self.at = self.left(now), now
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True


class Sliding:
    """Two windows, the one before weighted by what is left of it."""

    def __init__(self, count: int, period: int, burst: int) -> None:
        self.count, self.period = count, period
        self.used: dict[int, int] = {}

    def left(self, now: int) -> Fraction:
        window, elapsed = divmod(now, self.period)
        before = self.used.get(window - 1, 0) * Fraction(self.period - elapsed, self.period)
        return self.count - before - self.used.get(window, 0)

    def hit(self, now: int, cost: int) -> bool:
        if self.left(now) < cost:
            return False
        window = now // self.period
        self.used[window] = self.used.get(window, 0) + cost
        return True


class Fixed:
    """A counter that begins with the first hit and ends a period later."""

    def __init__(self, count: int, period: int, burst: int) -> None:
        self.count, self.period = count, period
        self.used, self.end = 0, 0

    def left(self, now: int) -> Fraction:
        return Fraction(self.count - (self.used if now < self.end else 0))

    def hit(self, now: int, cost: int) -> bool:
        if now >= self.end:
            self.used, self.end = 0, (now + self.period) // TICK * TICK
        if self.used + cost > self.count:
            return False
        self.used += cost
        return True


MODELS = {GCRA: Bucket, SLIDING: Sliding, FIXED: Fixed}


@settings(max_examples=400, deadline=None)
@given(
    form=st.sampled_from(sorted(MODELS)),
    count=st.integers(1, 60),
    period=st.integers(1_000_000, 3_000_000_000),
    burst=st.integers(1, 90),
    steps=st.lists(st.tuples(st.integers(0, 1_000_000_000), st.integers(1, 90)), max_size=40),
)
def test_decisions(
    form: int, count: int, period: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    model = MODELS[form](count, period, burst)
    rate = (form, count, period, burst)
    most = burst if form == GCRA else count
    word, now = 0, START
    for pause, wanted in steps:
        now += pause
        cost = min(wanted, most)
        allowed, word, remaining, retry, reset = _core.decide_rate(rate, word, now, cost)
        assert allowed == model.hit(now, cost)
        assert remaining == model.left(now) // 1
        assert (retry == 0) == allowed
        if not allowed:
            assert _core.decide_rate(rate, word, now + retry, cost)[0]
            assert not _core.decide_rate(rate, word, now + retry - 1, cost)[0]
        fresh = _core.decide_rate(rate, word, now + reset, 0)
        assert fresh[2] == most


@given(
    form=st.sampled_from(sorted(MODELS)),
    count=st.integers(1, 60),
    taken=st.lists(st.integers(1, 60), max_size=10),
    back=st.integers(1, 100),
)
def test_refunds(form: int, count: int, taken: list[int], back: int) -> None:
    rate = (form, count, 1_000_000_000, count)
    word, used = 0, 0
    for cost in taken:
        allowed, word, *_ = _core.decide_rate(rate, word, START, min(cost, count))
        used += min(cost, count) if allowed else 0
    word = _core.refund_rate(rate, word, START, back)
    assert _core.decide_rate(rate, word, START, 0)[2] == count - max(0, used - back)
