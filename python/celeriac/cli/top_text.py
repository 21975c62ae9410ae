"""What `celeriac top` has found, as text and tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .stats import show
from .tables import print_table, visible


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
