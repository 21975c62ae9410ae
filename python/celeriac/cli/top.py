"""`celeriac top URL`: what a store does now, live, or once for scripts."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from celeriac.django.samples import own
from celeriac.errors import ConfigurationError, StoreNotFound
from celeriac.store import Store

from . import processes
from .look import look
from .queues import row_of
from .rates import add_seconds, per_second, turns
from .stats import show
from .tables import print_table, visible

COUNTED = ("hits", "misses", "sets", "deletes", "evictions", "expirations")
OPERATIONS = COUNTED[:4]
"""What somebody called; the other two happen."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "top",
        help="show live what a store does",
        description="Shows hit ratio, operations a second, memory, queues and the processes that "
        "are attached, until Ctrl-C. In a terminal it needs rich (pip install 'celeriac[top]'); "
        "--once and --json don't. Changes nothing, and never creates a store.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument(
        "--once", action="store_true", help="look twice, print the difference and end"
    )
    parser.add_argument(
        "--json", action="store_true", help="for programs: a line of JSON for each look"
    )
    add_seconds(parser, 1.0)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look, until Ctrl-C."""
    live = not (options.once or options.json)
    if live and not sys.stdout.isatty():
        raise ConfigurationError("top is for a terminal; elsewhere: celeriac top URL --once|--json")
    if live and not importlib.util.find_spec("rich"):
        raise ConfigurationError(
            "top needs rich: pip install 'celeriac[top]'; --once and --json don't"
        )
    with look(options.url) as store:
        try:
            if live:
                from .top_page import show_live

                show_live(looks(store, options.seconds), options.seconds)
                return 0
            for found in looks(store, options.seconds):
                if options.json:
                    print(json.dumps(found), flush=True)
                else:
                    print_once(found)
                if options.once:
                    break
        except KeyboardInterrupt:  # how it is ended
            print("\n" if sys.stdout.isatty() else "", end="")
    return 0


def looks(store: Store, seconds: float) -> Iterator[dict[str, Any]]:
    """What happened since the look before, every so many seconds."""
    before: dict[str, Any] = {}
    for took in turns(seconds):
        now = store.stats()
        if before:
            yield difference(store, before, now, took)
        before = now


def difference(
    store: Store, before: Mapping[str, Any], now: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Two results of `Store.stats` and the seconds between them, in the numbers that are shown."""
    caches = {
        name: _cache(before["caches"].get(name, counts), counts, seconds)
        for name, counts in now["caches"].items()
        if not own(name)
    }
    queues = {
        name: row
        for name, counts in now["queues"].items()
        if (row := row_of(store, name, before["queues"].get(name, counts), seconds))
    }
    return {
        "url": now["url"].partition("?")[0],
        "time": round(time.time(), 3),
        "seconds": round(seconds, 3),
        "memory": {
            "used": now["memory_used"],
            "limit": now["memory_limit"],
            "share": round(now["memory_used"] / now["memory_limit"], 4),
        },
        "total": _total(list(caches.values())),
        "caches": caches,
        "queues": queues,
        "processes": _processes(store, list(queues)),
    }


def _cache(before: Mapping[str, int], now: Mapping[str, int], seconds: float) -> dict[str, Any]:
    hits, misses = (max(now[name] - before[name], 0) for name in ("hits", "misses"))
    rates = {f"{name}_per_second": per_second(before[name], now[name], seconds) for name in COUNTED}
    return {
        "hits": now["hits"],
        "misses": now["misses"],
        "hit_ratio": _ratio(now["hits"], now["misses"]),
        "hit_ratio_now": _ratio(hits, misses),
        "operations_per_second": round(sum(rates[f"{name}_per_second"] for name in OPERATIONS), 1),
        **rates,
        "entries": now["entries"],
        "bytes": now["bytes"],
    }


def _ratio(hits: float, misses: float) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _total(caches: list[dict[str, Any]]) -> dict[str, Any]:
    summed = {
        name: round(sum(cache[name] for cache in caches), 1)
        for name in (
            *("hits", "misses", "operations_per_second"),
            *(f"{name}_per_second" for name in COUNTED),
            *("entries", "bytes"),
        )
    }
    now = _ratio(summed["hits_per_second"], summed["misses_per_second"])
    return {
        "hit_ratio": _ratio(summed["hits"], summed["misses"]),
        "hit_ratio_now": now,
        **summed,
    }


def _processes(store: Store, queues: list[str]) -> list[dict[str, Any]]:
    """Who is attached, the first first; and from which queues it takes messages."""
    takes: dict[int, list[str]] = {}
    reserved: dict[int, int] = {}
    for name in queues:
        try:
            consumers = store.queue(name, create=False).consumers()
        except StoreNotFound:  # gone since
            continue
        for consumer in consumers:
            takes.setdefault(consumer.pid, []).append(name)
            reserved[consumer.pid] = reserved.get(consumer.pid, 0) + consumer.reserved
    return [
        {
            "pid": owner["pid"],
            "command": owner["command"],
            "state": processes.state_of(owner, store.path),
            "seconds": round(max(time.time() - owner["started"], 0), 1),
            "queues": takes.get(owner["pid"], []),
            "reserved": reserved.get(owner["pid"], 0),
        }
        for owner in sorted(store.owners(), key=lambda owner: owner["started"])
    ]


def tables(found: Mapping[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """The look as tables for people: caches, queues, processes; those that have rows."""
    caches = {**found["caches"], "all": found["total"]} if len(found["caches"]) != 1 else {}
    rows = [
        [name, *(_shown(cache[column]) for column in _CACHES.values())]
        for name, cache in (caches or found["caches"]).items()
    ]
    parts = [(["cache", *_CACHES], rows)] if found["caches"] else []
    if found["queues"]:
        heads = list(next(iter(found["queues"].values())))
        titles = [_SHORT.get(head, head) for head in heads]
        rows = [[name, *map(_shown, row.values())] for name, row in found["queues"].items()]
        parts.append((["queue", *titles], rows))
    heads = ["process", "pid", "state", "seconds", "reserved", "takes from"]
    rows = [
        [
            one["command"],
            str(one["pid"]),
            one["state"],
            f"{one['seconds']:,.0f}",
            str(one["reserved"]),
            ", ".join(map(visible, one["queues"])) or "-",
        ]
        for one in found["processes"]
    ]
    return [*parts, (heads, rows)]


_CACHES = {
    "hit ratio": "hit_ratio",
    "now": "hit_ratio_now",
    "ops/s": "operations_per_second",
    "hits/s": "hits_per_second",
    "misses/s": "misses_per_second",
    "sets/s": "sets_per_second",
    "evictions/s": "evictions_per_second",
    "entries": "entries",
    "bytes": "bytes",
}
_SHORT = {"oldest_seconds": "oldest s", "put_per_second": "put/s", "done_per_second": "done/s"}


def headline(found: Mapping[str, Any]) -> str:
    """The look in one line."""
    memory, total, processes = found["memory"], found["total"], len(found["processes"])
    return (
        f"{visible(found['url'])}  "
        f"memory {show('memory', memory['used'])} of {show('memory', memory['limit'])} "
        f"({memory['share']:.0%})  hit ratio {_percent(total['hit_ratio'])}, "
        f"now {_percent(total['hit_ratio_now'])}  "
        f"{total['operations_per_second']:,.0f} operations/s  "
        f"{processes} process{'' if processes == 1 else 'es'}"
    )


def print_once(found: Mapping[str, Any]) -> None:
    """Print it as text."""
    print(headline(found))
    for heads, rows in tables(found):
        print()
        print_table(heads, rows)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
