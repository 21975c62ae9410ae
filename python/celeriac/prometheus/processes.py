"""prometheus_client's ``process_*``, over all processes that use the store."""

from __future__ import annotations

import copy
import os
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
    """What the collector says of each process, added up; the start is the earliest one's.

    CPU seconds are a counter: those of the dead stay, as far as the last scrape saw them.
    Processes of other PID namespaces can't be looked at, and are left out.
    """
    own = list(collect(collector))
    try:
        pids = {owner["pid"] for owner in store.owners() if owner["alive"]} - {os.getpid()}
    except CeleriacError:
        return own
    cpu_name = collector._prefix + "cpu_seconds"
    seen: dict[str, float] = {}
    total = {metric.name: metric for metric in own}
    _see(seen, total, os.getpid(), cpu_name, collector._prefix)
    for pid in pids:
        other = copy.copy(collector)
        other._pid = lambda pid=pid: pid
        found = {metric.name: metric for metric in collect(other)}
        _see(seen, found, pid, cpu_name, collector._prefix)
        for name, metric in found.items():
            if name not in total:
                continue
            sample, more = total[name].samples[0], metric.samples[0].value
            first = name.endswith("start_time_seconds")
            value = min(sample.value, more) if first else sample.value + more
            total[name].samples[0] = sample._replace(value=value)
    if cpu_name in total:
        sample = total[cpu_name].samples[0]
        gone = facts.change(_CPU, lambda before: _counted(before, seen))["gone"]
        total[cpu_name].samples[0] = sample._replace(value=sample.value + gone)
    return own


def _see(
    seen: dict[str, float], found: dict[str, Metric], pid: int, cpu_name: str, prefix: str
) -> None:
    """Notes the CPU seconds of a process, which its number alone doesn't tell from a later one."""
    if cpu_name in found:
        started = found[prefix + "start_time_seconds"].samples[0].value
        seen[f"{pid} {started:.2f}"] = found[cpu_name].samples[0].value


def _counted(before: Any, seen: dict[str, float]) -> dict[str, Any]:
    known = before or {"gone": 0.0, "seen": {}}
    dead = sum(cpu for process, cpu in known["seen"].items() if process not in seen)
    return {"gone": known["gone"] + dead, "seen": seen}
