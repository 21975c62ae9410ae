"""Rate limiters: what they allow, whatever engine serves them."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import Decision, Limiter, aio

ALGORITHMS = ["gcra", "token_bucket", "sliding_window", "fixed_window"]


def allowed(limiter: Limiter, key: str, tries: int) -> int:
    return sum(bool(limiter.hit(key)) for _ in range(tries))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hits(store: celeriac.Store, algorithm: str) -> None:
    limiter = store.limiter("5/hour", algorithm=algorithm)
    first = limiter.hit("k")
    assert isinstance(first, Decision)
    assert (first.allowed, first.limit, first.remaining, first.retry_after) == (True, 5, 4, 0.0)
    assert first.policy == "5/hour"
    assert 0 < first.reset_after <= 7200
    assert allowed(limiter, "k", 10) == 4
    refused = limiter.hit("k")
    assert not refused
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert 0 < refused.retry_after <= refused.reset_after <= 7200
    assert allowed(limiter, "other", 10) == 5
    assert allowed(limiter, b"k", 1) == 0  # a str is its UTF-8


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_allows_again_after_retry_after(store: celeriac.Store, algorithm: str) -> None:
    limiter = store.limiter("4/200ms", algorithm=algorithm)
    while decision := limiter.hit("k"):
        pass
    time.sleep(decision.retry_after)
    assert limiter.hit("k")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_peek_cost_refund_reset(store: celeriac.Store, algorithm: str) -> None:
    limiter = store.limiter("10/hour", algorithm=algorithm)
    assert limiter.peek("k") == (True, 10, 10, 0.0, 0.0, "10/hour")
    assert limiter.peek("k", cost=10)
    assert limiter.hit("k", cost=7).remaining == 3
    assert not limiter.hit("k", cost=4)
    assert not limiter.peek("k", 4)
    assert limiter.peek("k", 4).retry_after > 0
    assert limiter.peek("k").remaining == 3
    limiter.refund("k", 2)
    assert limiter.hit("k", 5)
    limiter.refund("k", 9)
    limiter.refund("k", 9)
    assert limiter.peek("k").remaining == 10
    limiter.refund("never seen")
    assert limiter.hit("k", 10)
    limiter.reset("k")
    assert limiter.hit("k", 10)
    limiter.reset("never seen")


def test_burst(store: celeriac.Store) -> None:
    assert allowed(store.limiter("100/hour", burst=20), "k", 50) == 20
    assert store.limiter("100/hour", burst=20).hit("new").limit == 20
    assert allowed(store.limiter("1/hour", burst=30), "k", 50) == 30
    assert allowed(store.limiter("1/hour", burst=1, algorithm="fixed_window"), "k", 5) == 1


def test_a_list_is_one_decision(store: celeriac.Store) -> None:
    limiter = store.limiter(["5/hour", "3/10min"])
    assert limiter.hit("k").policy == "3/10min"  # that has less left
    assert allowed(limiter, "k", 5) == 2
    refused = limiter.hit("k")
    assert (refused.policy, refused.limit, refused.remaining) == ("3/10min", 3, 0)
    limiter.refund("k")
    assert limiter.peek("k", 1)
    assert limiter.hit("k")
    limiter.reset("k")
    assert allowed(limiter, "k", 9) == 3
    both = store.limiter(["5/hour", "10/hour"], burst=[None, 2])
    assert allowed(both, "k", 9) == 2
    assert both.hit("k").policy == "10/hour"
    # The refusals of one rate have taken nothing of the other.
    assert store.limiter(["5/hour", "10/hour"], burst=[None, 9], name=both.name).peek("k", 3)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("100/s", 100, 1),
        ("7/10s", 7, 10),
        ("60/min", 60, 60),
        ("60/minute", 60, 60),
        ("3/2minutes", 3, 120),
        ("5/250ms", 5, 0.25),
        ("1000/h", 1000, 3600),
        ("1/hour", 1, 3600),
        ("10/day", 10, 86400),
        ("10/week", 10, 604800),
        (" 10 / 5 sec ", 10, 5),
    ],
)
def test_rates(store: celeriac.Store, text: str, amount: int, seconds: float) -> None:
    (rate,) = store.limiter(text).rates
    assert (rate.amount, rate.period, rate.burst) == (amount, seconds, amount)
    assert rate == text.strip()
    assert store.limiter(text).hit("k").limit == amount


def test_names_share_state(store: celeriac.Store, connect: Callable[..., celeriac.Store]) -> None:
    assert allowed(store.limiter("5/hour", name="api"), "k", 3) == 3
    assert allowed(connect().limiter("5/hour", name="api"), "k", 9) == 2
    assert allowed(store.limiter("5/hour", name="other"), "k", 9) == 5
    assert allowed(store.limiter("5/hour"), "k", 9) == 5
    assert allowed(connect().limiter("5/hour"), "k", 9) == 0
    # A new count goes on with what was used: five of seven.
    windows = store.limiter("5/hour", name="w", algorithm="fixed_window")
    assert allowed(windows, "k", 9) == 5
    assert allowed(store.limiter("7/hour", name="w", algorithm="fixed_window"), "k", 9) == 2


def test_shadow(store: celeriac.Store) -> None:
    limiter = store.limiter("2/hour", shadow=True)
    assert [bool(limiter.hit("k")) for _ in range(4)] == [True] * 4
    would = limiter.hit("k")
    assert (would.allowed, would.remaining) == (True, 0)
    assert would.retry_after > 0
    assert not store.limiter("2/hour", name=limiter.name).hit("k")
    assert limiter.wait("k", timeout=0)


def test_wait(store: celeriac.Store) -> None:
    limiter = store.limiter("1/100ms")
    began = time.monotonic()
    assert limiter.wait("k")
    assert limiter.wait("k")
    assert limiter.wait("k", timeout=60)
    assert time.monotonic() - began >= 0.2
    slow = store.limiter("1/hour")
    assert slow.wait("k", timeout=0)
    refused = slow.wait("k", timeout=0.05)
    assert not refused
    assert refused.retry_after > 3000
    assert not slow.wait("k", timeout=0)


def test_a_refund_lets_who_waits_go_on(store: celeriac.Store) -> None:
    limiter = store.limiter("1/500ms")
    limiter.hit("k")
    threading.Timer(0.05, limiter.reset, ("k",)).start()
    assert limiter.wait("k", timeout=30)


def test_decorator(store: celeriac.Store) -> None:
    limiter = store.limiter("2/hour")

    @limiter.limit(key="tenant:{tenant}", timeout=0)
    def call(tenant: int, more: str = "") -> str:
        """Text."""
        return f"{tenant}{more}"

    assert (call.__name__, call.__doc__) == ("call", "Text.")
    assert [call(1), call(1, more="x"), call(2)] == ["1", "1x", "2"]
    with pytest.raises(celeriac.RateLimited, match="2 at once of 2/hour, 0 left") as refused:
        call(tenant=1)
    assert isinstance(refused.value, celeriac.LockTimeout)
    assert refused.value.decision.retry_after > 0
    assert limiter.peek("tenant:1").remaining == 0

    @limiter.limit(key=lambda n: f"n{n}", cost=2, timeout=0)
    def other(n: int) -> int:
        return n

    assert other(5) == 5
    assert limiter.peek("n5").remaining == 0
    with pytest.raises(celeriac.ConfigurationError, match="has no argument 'user'"):
        limiter.limit(key="{user}")(call)


def test_context_manager(store: celeriac.Store) -> None:
    limiter = store.limiter("2/hour")
    for _ in range(2):
        with limiter.limit("openrouter") as decision:
            assert decision
    with pytest.raises(celeriac.RateLimited), limiter.limit("openrouter", timeout=0.01):
        pytest.fail("it isn't allowed")
    with limiter.limit("another", timeout=0):
        pass
    fast = store.limiter("1/50ms")
    began = time.monotonic()
    for _ in range(3):
        with fast.limit():
            pass
    assert time.monotonic() - began >= 0.1


def test_async(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            limiter = await store.limiter("2/hour", name="x")
            assert await limiter.hit("k")
            assert (await limiter.peek("k")).remaining == 1
            assert await limiter.wait("k")
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.005)

            task = asyncio.ensure_future(tick())
            assert not await limiter.wait("k", timeout=0.1)
            task.cancel()
            assert ticks > 3
            await limiter.refund("k")
            async with limiter.limit("k") as decision:
                assert decision
            with pytest.raises(celeriac.RateLimited):
                async with limiter.limit("k", timeout=0.01):
                    pytest.fail("it isn't allowed")
            await limiter.reset("k")

            @limiter.limit(key="u{user}", timeout=0)
            async def call(user: int) -> int:
                return user

            assert [await call(1), await call(1), await call(2)] == [1, 1, 2]
            with pytest.raises(celeriac.RateLimited):
                await call(1)
            assert (limiter.name, limiter.rates) == ("x", ("2/hour",))

    asyncio.run(main())


def test_exact_over_processes(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = (
        "one = store.limiter('3000/day', name='one')\n"
        "two = store.limiter(['3000/day', '2000/week'], name='two')\n"
        "windows = store.limiter('3000/day', algorithm='fixed_window')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(*(sum(bool(l.hit('k')) for _ in range(1500)) for l in (one, two, windows)))\n"
    )
    others = [python(code) for _ in range(4)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    for other in others:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
    counts = [[int(n) for n in (other.communicate()[0]).split()] for other in others]
    assert [sum(each) for each in zip(*counts, strict=True)] == [3000, 2000, 3000]


def test_outgoing_calls_over_all_workers(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = (
        "limiter = store.limiter('10/100ms', burst=1, name='openrouter')\n"
        "made = []\n"
        "@limiter.limit(key='openrouter')\n"
        "def call(): made.append(time.monotonic())\n"
        "for _ in range(5): call()\n"
        "print(*made)\n"
    )
    others = [python(code) for _ in range(3)]
    times = sorted(float(t) for other in others for t in other.communicate()[0].split())
    assert len(times) == 15
    assert times[-1] - times[0] >= 14 * 0.01 - 0.009  # 10 ms each, but for how late one is noted


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"rates": "100/fortnight"}, celeriac.ConfigurationError, "'fortnight'.*minute.*week"),
        ({"rates": "fast"}, celeriac.ConfigurationError, "'fast': not COUNT/PERIOD"),
        ({"rates": ""}, celeriac.ConfigurationError, "not COUNT/PERIOD"),
        ({"rates": "-5/s"}, celeriac.ConfigurationError, "not COUNT/PERIOD"),
        ({"rates": "1.5/s"}, celeriac.ConfigurationError, "not COUNT/PERIOD"),
        ({"rates": "0/s"}, celeriac.ConfigurationError, "a count of zero"),
        ({"rates": "5/0s"}, celeriac.ConfigurationError, "a period of zero"),
        ({"rates": "2000000000/s"}, celeriac.ConfigurationError, "1,000,000,000 a second"),
        ({"rates": "5/1000weeks"}, celeriac.ConfigurationError, "from a millisecond to a year"),
        ({"rates": f"{2**63}/s"}, celeriac.ConfigurationError, "beyond"),
        ({"rates": []}, celeriac.ConfigurationError, "1 to 8 rates, not 0"),
        ({"rates": ["1/s"] * 9}, celeriac.ConfigurationError, "1 to 8 rates, not 9"),
        ({"rates": 100}, TypeError, "rates is a str such as .*, or a list, not int"),
        ({"rates": [100]}, TypeError, "a rate is a str such as"),
        ({"rates": b"1/s"}, TypeError, "not bytes"),
        ({"burst": 0}, celeriac.ConfigurationError, "burst=0: at least 1"),
        ({"burst": -1}, celeriac.ConfigurationError, "burst=-1"),
        ({"burst": 2.5}, TypeError, "burst is an int or None, not float"),
        ({"burst": True}, TypeError, "not bool"),
        ({"burst": 10**15}, celeriac.ConfigurationError, "more than two years to fill"),
        ({"rates": ["1/s", "2/min"], "burst": 5}, celeriac.ConfigurationError, "with 2 rates"),
        ({"algorithm": "leaky"}, celeriac.ConfigurationError, "'leaky'.*gcra.*fixed_window"),
        ({"algorithm": 1}, TypeError, "algorithm is a str"),
        (
            {"algorithm": "fixed_window", "burst": 5},
            celeriac.ConfigurationError,
            "a window allows its whole count",
        ),
        (
            {"rates": "9000000/s", "algorithm": "fixed_window"},
            celeriac.ConfigurationError,
            "use algorithm=",
        ),
        ({"on_error": "raise"}, celeriac.ConfigurationError, "'allow' or 'deny'"),
        ({"shadow": 1}, TypeError, "shadow is True or False"),
        ({"name": 5}, TypeError, "name of a limiter is a str"),
    ],
)
def test_wrong_options(
    store: celeriac.Store, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        store.limiter(**{"rates": "10/s", **arguments})


@pytest.mark.parametrize("call", ["hit", "peek", "refund", "wait"])
def test_wrong_costs_and_keys(store: celeriac.Store, call: str) -> None:
    for limiter in (store.limiter("10/hour", burst=5), store.limiter(["10/hour", "5/min"])):
        ask = getattr(limiter, call)
        for cost in (0, -1, -(2**70)):
            with pytest.raises(celeriac.ConfigurationError, match=f"cost={cost}: at least 1"):
                ask("k", cost)
        for cost in (6, 2**63 - 1):
            with pytest.raises(celeriac.ConfigurationError, match="more than the 5 that can"):
                ask("k", cost)
        with pytest.raises(celeriac.ConfigurationError, match=f"cost={2**70}: more than any rate"):
            ask("k", 2**70)
        for cost in ("1", 1.0, None, True):
            with pytest.raises(TypeError, match="cost is an int, not"):
                ask("k", cost)
        for key in (5, None, ["k"], 1.5):
            with pytest.raises(TypeError, match="str or bytes"):
                ask(key)
        assert limiter.peek("k").remaining == 5


def test_wrong_timeouts_and_decorations(store: celeriac.Store) -> None:
    limiter = store.limiter("10/hour")
    with pytest.raises(TypeError, match="timeout is a number of seconds or None"):
        limiter.wait("k", timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout is a number"):
        limiter.limit("k", timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key is str, bytes or a callable, not int"):
        limiter.limit(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cost=0"):
        limiter.limit("k", cost=0)
    with pytest.raises(TypeError, match="decorates a function, not int"):
        limiter.limit("k")(5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="`with` takes the key itself"), limiter.limit(str):
        pass


def test_keys_of_any_length(store: celeriac.Store) -> None:
    limiter = store.limiter("1/hour")
    for key in ("", "x" * 1_000_000, "ü", "\0", b"\xff\xfe"):
        assert limiter.hit(key)
        assert not limiter.hit(key)


def fill(core: Any) -> int:
    """Hits new keys until there is no memory for one more: its number."""
    for n in range(10_000_000):
        try:
            core.hit(f"k{n}")
        except celeriac.NotEnoughMemory:
            return n
    raise AssertionError("the store has no end")


@pytest.mark.parametrize("on_error", ["allow", "deny"])
def test_when_the_store_cant_answer(
    memory: Callable[[str], celeriac.Store], on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = memory("2M")
    limiter = store.limiter("5/hour", on_error=on_error)
    limiter.hit("first")
    n = fill(limiter._core)
    with caplog.at_level(logging.WARNING, logger="celeriac.limits"):
        answers = [limiter.hit(f"k{n}") for _ in range(3)]
    assert [bool(answer) for answer in answers] == [on_error == "allow"] * 3
    assert answers[0].retry_after == (0.0 if on_error == "allow" else 1.0)
    assert len(caplog.records) == 1  # not once for each
    assert "rate limits need a table" in caplog.text
    assert limiter.hit("first").remaining == 3  # who has room is answered as ever
    with pytest.raises(celeriac.ConfigurationError, match="at least 1"):
        limiter.hit("k", -1)
    store.close()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        limiter.hit("k")


def test_a_store_that_another_destroyed(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    limiters = [store.limiter("5/s", on_error=on) for on in ("allow", "deny")]
    shadow = store.limiter("5/s", on_error="deny", shadow=True)
    assert python("store.destroy(force=True)").wait() == 0
    assert [bool(limiter.hit("k")) for limiter in limiters] == [True, False]
    assert [bool(limiter.peek("k")) for limiter in limiters] == [True, False]
    assert shadow.hit("k")
    assert not limiters[1].wait("k", timeout=0.02)
    with pytest.raises(celeriac.StoreNotFound):
        limiters[0].reset("k")


def test_pickle(store: celeriac.Store) -> None:
    limiter = store.limiter(["5/hour", "9/day"], burst=[3, None], name="n", on_error="deny")
    limiter.hit("k")
    again = pickle.loads(pickle.dumps(limiter))
    assert again.peek("k").remaining == 2
    assert (again.name, again.rates, again._on_error) == ("n", limiter.rates, "deny")
    assert repr(again) == "<Limiter 'n': 5/hour, 9/day>"
    decision = limiter.peek("k")
    again = pickle.loads(pickle.dumps(decision))
    assert again == decision
    assert again.policy.burst == 3


def test_limits_arent_the_caches(memory: Callable[[str], celeriac.Store]) -> None:
    store = memory("4M")
    limiter = store.limiter("1/day")
    assert allowed(limiter, "k", 2) == 1
    cache = store.cache("c")
    for i in range(100):
        cache.set(f"k{i}", b"x" * 100_000)
    cache.clear()
    assert allowed(limiter, "k", 2) == 0
    assert store.stats()["limits_keys"] == 1
    assert store.stats()["limits_memory"] > 0
