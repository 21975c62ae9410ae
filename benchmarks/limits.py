"""Rate limiters side by side: `python -m benchmarks.limits`, from the root of a clone.

Microseconds of a hit that is allowed, of one that is refused, and over 100,000 keys; then the sum
of 2 and 4 processes that hit one key at once, and how many hits were allowed where 2,000 are. The
package `limits` (`pip install limits`) counts in the memory of one process, or in a Redis server.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from .cache_systems import run
from .common import Options, Report, end_on_sigterm, parse_options, turns
from .crew import Crew, wait_for
from .servers import redis_missing, redis_server, store_url

STEPS = 50
KEYS = 100_000
EXACT = 2_000
SHAPES = (2, 4)
MANY = 10**9
DAY = 86_400_000_000  # µs
Hit = Callable[[str], Any]

GCRA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + ARGV[1]
if tat - now > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], string.format('%.17g', tat), 'PX', math.ceil((tat - now) / 1000))
return 1
"""

SYSTEMS = {
    "celeriac": "celeriac, gcra",
    "celeriac-list": "celeriac, two rates in one decision",
    "celeriac-window": "celeriac, sliding window",
    "limits-memory": "limits, memory storage, moving window: one process only",
    "limits-fixed": "limits, memory storage, fixed window: one process only",
    "limits-redis": "limits, redis storage, fixed window",
    "redis": "redis-py with hiredis, GCRA as a Lua script",
}
AGAINST = {
    "celeriac": ["limits-memory", "limits-fixed", "limits-redis", "redis"],
    "celeriac-list": ["limits-redis", "redis"],
    "celeriac-window": ["limits-memory", "limits-redis", "redis"],
}


def make_hits(url: str, redis: str, names: list[str], most: int) -> dict[str, Hit]:
    """For each system a hit of a limit of so many a day."""
    from redis import Redis

    import celeriac

    store = celeriac.connect(url)
    small = min(most, 65_535)
    text = f"{most}/day"
    hits: dict[str, Hit] = {
        "celeriac": store.limiter(text, name=text).hit,
        "celeriac-list": store.limiter([text, f"{most}/week"], name=text).hit,
        "celeriac-window": store.limiter(f"{small}/min", algorithm="sliding_window").hit,
    }
    script = Redis.from_url(redis).register_script(GCRA)
    given = [DAY / most, DAY * 1.0000001]
    hits["redis"] = lambda key: script(keys=[f"{most}:{key}"], args=given)
    if any(name.startswith("limits") for name in names):
        from limits import RateLimitItemPerDay
        from limits.storage import storage_from_string
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        memory = storage_from_string("memory://")
        item = RateLimitItemPerDay(most)
        few = RateLimitItemPerDay(500 if most == MANY else most)  # it keeps a list of hits
        moving = MovingWindowRateLimiter(memory)
        fixed = FixedWindowRateLimiter(memory)
        server = FixedWindowRateLimiter(storage_from_string(f"redis+{redis}"))
        hits["limits-memory"] = lambda key: moving.hit(few, key)  # refused after 500
        hits["limits-fixed"] = lambda key: fixed.hit(item, key)
        hits["limits-redis"] = lambda key: server.hit(item, key)
    return {name: hits[name] for name in names}


def make_worker(url: str, redis: str, names: list[str]) -> Callable[..., Any]:
    """A process of a crew: hits one key from a given moment on."""
    many, exact = (make_hits(url, redis, names, most) for most in (MANY, EXACT))

    def work(start: float, name: str, key: str, seconds: float) -> Any:
        hits = exact if key else many
        hit = hits[name]
        wait_for(start)
        if key:
            return sum(bool(hit(key)) for _ in range(EXACT))
        begun = time.perf_counter()
        n = 0
        while time.perf_counter() - begun < seconds:
            for _ in range(STEPS):
                hit("k")
            n += STEPS
        return n / (time.perf_counter() - begun)

    return work


def step_of(hit: Hit, keys: Callable[[], str]) -> Callable[[], int]:
    """Some hits in a row."""

    def step() -> int:
        for _ in range(STEPS):
            hit(keys())
        return STEPS

    return step


def one_process(report: Report, options: Options, url: str, redis: str, names: list[str]) -> None:
    """Microseconds a hit."""
    group = "One process"
    allowing, refusing = (make_hits(url, redis, names, most) for most in (MANY, 1))
    every = [f"client:{i}" for i in range(KEYS)]
    for number in range(options.rounds):
        report.round(number, "with one process")
        for case, hits in (
            ("hit, allowed", allowing),
            ("hit, refused", refusing),
            (f"hit, {KEYS:,} keys in turn", allowing),
        ):
            if not report.wanted(group, case):
                continue
            for name in turns(names, number):
                cycle = itertools.cycle(every if "turn" in case else ["k"])
                step = step_of(hits[name], cycle.__next__)
                step()
                _, taken = run(step, options.seconds)
                report.add(group, case, name, taken * 1e6, "µs a call")


def several_processes(report: Report, options: Options, crew: Crew, names: list[str]) -> None:
    """The sum of hits a second, and whether they are counted."""
    group = "Several processes that hit one key at once"
    exact = f"Allowed of {EXACT:,}, 4 processes that try {EXACT:,} each"
    for number in range(options.rounds):
        report.round(number, "with several processes")
        for size in SHAPES:
            case = f"hit, {size} processes"
            for name in turns(names, number) if report.wanted(group, case) else ():
                rates = crew.tell(*[(name, "", options.seconds)] * size)
                report.add(group, case, name, sum(rates), "calls/s", "higher")
        for name in turns(names, number) if number == 0 else ():
            allowed = crew.tell(*[(name, "exact", 0.0)] * 4)
            report.notes.setdefault(exact, {})[name] = sum(allowed)


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=7, seconds=0.2)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    with redis_server() as server, store_url("64M") as url:
        there = find_spec("limits") is not None
        names = [name for name in SYSTEMS if there or not name.startswith("limits")]
        systems = {name: SYSTEMS[name] for name in names}
        against = {ours: [p for p in peers if p in names] for ours, peers in AGAINST.items()}
        report = Report("limits", options, systems, against)
        report.versions["redis-server"] = server.version
        redis = server.socket_url
        one_process(report, options, url, redis, names)
        with Crew(max(SHAPES), make_worker, url, redis, names) as crew:
            several_processes(report, options, crew, names)
        report.finish()


if __name__ == "__main__":
    main()
