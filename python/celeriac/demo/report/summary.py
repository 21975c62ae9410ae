"""A run's numbers as one dictionary: the content of `demo-report.json`.

Percentiles are nearest-rank over all requests of a kind. Hit ratios count the views' own
`X-Demo-Cache` headers over all web workers, the same way in each phase. Because a faster stack gets
further through the requests and so has a warmer cache, `hit_ratio_same` is the ratio over the first
requests that every phase answered (`same_requests` of them); the goals compare that one.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from ..options import ORDERS, PRODUCTS, TASK_PROCESSES, THREADS
from ..phase import PhaseResult
from ..plan import KINDS, MIX, SIGNED_IN, WARM_UP
from ..run import DemoResult
from .goals import check_goals

FORMAT = 1
WAIT_POINTS = 100
FAILURES_SHOWN = 20


def summarize(result: DemoResult) -> dict[str, Any]:
    """Everything that the reports show."""
    same = min((len(phase.load["outcomes"]) for phase in result.phases), default=0)
    summary: dict[str, Any] = {
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "architecture": platform.machine(),
            "kernel": platform.release(),
        },
        "versions": result.versions,
        "options": {
            "seconds": result.options.seconds,
            "workers": result.options.workers,
            "threads": THREADS,
            "task_processes": TASK_PROCESSES,
            "connections": result.options.connections,
            "seed": result.options.seed,
            "trace": result.options.trace.name if result.options.trace else None,
        },
        "plan_sha256": result.plan_sha256,
        "compared": _compared(result),
        "same_requests": same,
        "phases": [_phase(phase, same) for phase in result.phases],
        "on_call": result.on_call,
        "skipped": result.skipped,
        "seconds": round(result.seconds, 1),
    }
    summary["goals"] = check_goals(summary["phases"])
    return summary


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted `values`; None where there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(len(values) * share) - 1)]


def hit_ratio(outcomes: str) -> float | None:
    """Hits among the cached views of a tally's `outcomes`; None where there were none."""
    hits, misses = outcomes.count("h"), outcomes.count("m")
    return hits / (hits + misses) if hits + misses else None


def _phase(phase: PhaseResult, same: int) -> dict[str, Any]:
    load, tasks = phase.load, phase.tasks
    waits = sorted(tasks.waits)
    return {
        "stack": phase.stack.name,
        "title": phase.stack.title,
        "how": phase.stack.how,
        "seconds": round(load["seconds"], 3),
        "requests": load["answered"],
        "failed": len(load["failed"]) + len(phase.warm_up["failed"]),
        "failures": (phase.warm_up["failed"] + load["failed"])[:FAILURES_SHOWN],
        "requests_per_second": round(load["answered"] / load["seconds"], 1),
        "latency_ms": {kind: _spread(load["milliseconds"][kind]) for kind in KINDS},
        "cpu_ms_per_request": round(phase.cpu_seconds * 1000 / max(1, load["answered"]), 3),
        "hit_ratio": hit_ratio(load["outcomes"]),
        "hit_ratio_same": hit_ratio(load["outcomes"][:same]),
        "stale_pages": load["stale"],
        "timeline": load["timeline"],
        "tasks": {
            "sent": tasks.sent,
            "done": tasks.done,
            "retried": tasks.retried,
            "lost": tasks.lost,
            "repeated": tasks.repeated,
            "per_second": round(tasks.per_second, 1),
            "by_kind": tasks.by_kind,
            "drain_seconds": round(phase.drain_seconds, 2),
        },
        "queue_wait_ms": _spread(waits),
        "queue_wait_curve_ms": [
            percentile(waits, point / WAIT_POINTS) for point in range(1, WAIT_POINTS + 1)
        ]
        if waits
        else [],
        "memory": {
            "processes": phase.processes,
            "rss": phase.memory.rss,
            "pss": phase.memory.pss,
            "backend": phase.backend_bytes,
        },
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50": percentile(ordered, 0.50),
        "p95": percentile(ordered, 0.95),
        "p99": percentile(ordered, 0.99),
    }


def _compared(result: DemoResult) -> list[str]:
    options = result.options
    source = f"the trace {options.trace.name}" if options.trace else "a seeded Zipf draw"
    mix = ", ".join(f"{kind} {share:.0%}" for kind, share in MIX.items())
    return [
        f"One Django project with {PRODUCTS:,} products and {ORDERS:,} orders in SQLite (WAL), "
        "each phase on a fresh copy of the same database; only the settings of cache, broker and "
        "results differ.",
        f"gunicorn with {options.workers} workers × {THREADS} threads (gthread, keep-alive); where "
        f"there is a broker, a Celery worker with {TASK_PROCESSES} processes and beat, with the "
        "same options. All run on this machine, and so does the load driver.",
        f"The same requests in the same order: {mix}; products from {source}; {SIGNED_IN:.0%} of "
        f"the page views come with a session. {options.connections} connections, each sends the "
        "next request when its last one is answered, and is opened anew after 25.",
        f"{WARM_UP} requests and a login of each customer warm up each phase and aren't measured; "
        f"then {options.seconds:g} s of load.",
        "Tasks are counted by the rows that they leave in the database: sent are those that a "
        "webhook acknowledged or beat noted. One event in ten fails at the first attempt, one in "
        "fifty also at the second. The mail service's answer is played by a sleep of 20 ms.",
        "Processor time is that of all processes but the driver, from the beginning of the load "
        "until the queue is drained, for each request answered.",
        "A page is stale when it shows an older version of its product than one that was confirmed "
        "before the page was asked for.",
        "Passwords have a cheap hash here, so that logins measure sessions.",
    ]
