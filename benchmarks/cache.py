"""Caches side by side: `python -m benchmarks.cache`, from the root of a clone.

One process: microseconds a call. 1, 2 and 4 processes at once: the sum of their calls a second,
and the slowest sets. See README.md for what is compared and how.
"""

from __future__ import annotations

import gc
import pickle
import sys
from collections.abc import Callable
from typing import Any

from . import cache_systems as systems
from .common import Options, Report, end_on_sigterm, parse_options, percentile, turns
from .crew import Crew, wait_for
from .servers import directory, memcached_server, redis_missing, redis_server, store_url

SHAPES = (1, 2, 4)
TAIL = "5-field dict"


def make_worker(place: systems.Place, names: list[str]) -> Callable[..., Any]:
    """A process of a crew: does one case on one cache from a given moment on."""
    caches = systems.connect(place, names)
    for cache in caches.values():
        systems.fill(cache)
    cases = {case.name: case for case in systems.SHARED}

    def work(start: float, name: str, case: str, seconds: float) -> Any:
        gc.collect()
        if case == "tail":
            wait_for(start)
            return systems.latencies(caches[name].set, TAIL, seconds)
        step = cases[case].make(caches[name], cases[case].kind)
        wait_for(start)
        rate, _ = systems.run(step, seconds)
        return rate

    return work


def one_process(report: Report, options: Options, caches: dict[str, Any]) -> None:
    """Microseconds a call."""
    group = "One process"
    for cache in caches.values():
        systems.fill(cache)
        systems.check(cache)
    for number in range(options.rounds):
        report.round(number, "with one process")
        for case in systems.SINGLE:
            if not report.wanted(group, case.name):
                continue
            for name in turns(list(caches), number):
                if name == "redis-raw" and not case.raw:
                    continue
                step = case.make(caches[name], case.kind)
                step()
                gc.collect()
                _, taken = systems.run(step, options.seconds)
                report.add(group, case.name, name, taken * 1e6, "µs a call")


def several_processes(report: Report, options: Options, crew: Crew, names: list[str]) -> None:
    """The sum of calls a second, and the slowest sets."""
    group = "Sum of several processes at once"
    for number in range(options.rounds):
        report.round(number, "with several processes")
        for size in SHAPES:
            for case in systems.SHARED:
                row = f"{case.name}, {size} process{'es' if size > 1 else ''}"
                if not report.wanted(group, row):
                    continue
                for name in turns(names, number):
                    job = (name, case.name, options.seconds)
                    rates = crew.tell(*[job] * size)
                    report.add(group, row, name, sum(rates), "calls/s", "higher")
        size = SHAPES[-1]
        slowest = f"Slowest of all sets, {size} processes at once"
        if report.wanted(slowest, "set dict"):
            for name in turns(names, number):
                answers = crew.tell(*[(name, "tail", options.seconds * 2)] * size)
                every = sorted(taken for answer in answers for taken in answer)
                for share in (0.5, 0.99, 0.999):
                    value = percentile(every, share) / 1000
                    report.add(slowest, f"set dict, p{share * 100:g}", name, value, "µs a call")


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=7, seconds=0.2)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    with (
        redis_server() as server,
        store_url("256M") as store,
        directory() as folder,
        memcached_server() as memcached,
    ):
        place = systems.Place(store, server.socket_url, str(folder), memcached)
        names = systems.available(place)
        report = Report("cache", options, names, systems.AGAINST)
        report.versions["redis-server"] = server.version
        sizes = ", ".join(
            f"{kind} {len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)):,} B"
            for kind, value in systems.VALUES.items()
        )
        report.notes["values, as pickles"] = sizes
        one_process(report, options, systems.connect(place, list(names)))
        shared = [name for name in names if name != "redis-raw"]
        with Crew(max(SHAPES), make_worker, place, shared) as crew:
            several_processes(report, options, crew, shared)
        report.finish()


if __name__ == "__main__":
    main()
