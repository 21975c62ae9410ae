"""prometheus_client's ``process_*``, over all processes that use the store."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.metrics_core import Metric

import celeriac
from celeriac.errors import CeleriacError
from celeriac.metric_facts import Facts

__all__ = ["summed"]

_CPU = "cpu"  # the entry: {"gone": seconds of the dead, "seen": {process: seconds}}


def summed(
    collector: Any,
    collect: Callable[[Any], Iterable[Metric]],
    store: celeriac.Store,
    facts: Facts,
) -> list[Metric]:
    """What the collector says of this process, and what it would of others, added up; the start is
    the earliest one's.

    CPU seconds are a counter: those of the dead stay, as far as the last scrape saw them.
    Processes of other PID namespaces can't be looked at, and are left out.
    """
    own = list(collect(collector))
    total = {metric.name.removeprefix(collector._prefix): metric.samples for metric in own}
    try:
        pids = {owner["pid"] for owner in store.owners() if owner["alive"]} - {os.getpid()}
    except CeleriacError:
        return own
    if "cpu_seconds" not in total:
        return own
    values = {name: samples[0].value for name, samples in total.items()}
    seen = {_named(os.getpid(), values): values["cpu_seconds"]}
    for pid in pids:
        try:
            more = _look(pid, collector)
        except (OSError, ValueError, IndexError):  # dead by now, or not to be seen from here
            continue
        seen[_named(pid, more)] = more["cpu_seconds"]
        for name, value in more.items():
            first = name == "start_time_seconds"
            values[name] = min(values[name], value) if first else values.get(name, 0.0) + value
    values["cpu_seconds"] += facts.change(_CPU, lambda before: _counted(before, seen))["gone"]
    for name, samples in total.items():
        samples[0] = samples[0]._replace(value=values[name])
    return own


def _look(pid: int, collector: Any) -> dict[str, float]:
    """What prometheus_client's collector would say of a process, by the names without prefix."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        parts = file.read().rpartition(b")")[2].split()
    return {
        "virtual_memory_bytes": float(parts[20]),
        "resident_memory_bytes": float(parts[21]) * collector._pagesize,
        "start_time_seconds": float(parts[19]) / collector._ticks + collector._btime,
        "cpu_seconds": (float(parts[11]) + float(parts[12])) / collector._ticks,
        "open_fds": float(len(os.listdir(f"/proc/{pid}/fd"))),
        "max_fds": float(resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]),
    }


def _named(pid: int, values: dict[str, float]) -> str:
    """A process, which its number alone doesn't tell from a later one."""
    return f"{pid} {values['start_time_seconds']:.2f}"


def _counted(before: Any, seen: dict[str, float]) -> dict[str, Any]:
    known = before or {"gone": 0.0, "seen": {}}
    dead = sum(cpu for process, cpu in known["seen"].items() if process not in seen)
    return {"gone": known["gone"] + dead, "seen": seen}
