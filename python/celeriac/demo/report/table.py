"""The one table of the demo: measures down, stacks across. Used by the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MIB = 1024 * 1024
KIND_NAMES = {
    "product": "product page",
    "list": "list of 100",
    "analytics": "analytics",
    "login": "login",
    "webhook": "webhook",
    "price": "price change",
}


def table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The heads and the rows; a row's first cell is its label."""
    phases = summary["phases"]
    same = summary["same_requests"]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("requests/s", lambda p: f"{p['requests_per_second']:,.0f}"),
    ]
    rows.append(("processor time per request, ms", lambda p: f"{p['cpu_ms_per_request']:.2f}"))
    for kind, name in KIND_NAMES.items():
        rows.append((f"{name}, ms  p50/p95/p99", lambda p, k=kind: spread(p["latency_ms"][k])))  # type: ignore[misc]
    rows += [
        ("webhook answer, ms  p95", lambda p: number(p["latency_ms"]["webhook"]["p95"])),
        ("hit ratio over all workers", lambda p: percent(p["hit_ratio"])),
        (f"  over the same {same:,} requests", lambda p: percent(p["hit_ratio_same"])),
        ("stale pages shown", lambda p: f"{p['stale_pages']:,}"),
        ("tasks/s", lambda p: number(p["tasks"]["per_second"])),
        ("queue wait, ms  p50/p95/p99", lambda p: spread(p["queue_wait_ms"])),
        ("tasks sent/done", lambda p: _counts(p["tasks"], ("sent", "done"))),
        (
            "tasks retried/lost/repeated",
            lambda p: _counts(p["tasks"], ("retried", "lost", "repeated")),
        ),
        ("requests failed", lambda p: f"{p['failed']:,}"),
        ("memory of the processes, PSS", lambda p: mib(p["memory"]["pss"])),
        ("store or server", lambda p: mib(p["memory"]["backend"])),
    ]
    heads = ["", *(phase["title"] for phase in phases)]
    return heads, [[label, *(cell(phase) for phase in phases)] for label, cell in rows]


def on_call_table(seen: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What whoever is on call sees, a line each."""
    rows = [
        [
            f"{role['role']}, {role['limit']}/min",
            f"{role['asked']} asked, {role['answered']} answered, {role['refused']} refused: 429, "
            f"Retry-After {role['retry_after']} s",
        ]
        for role in seen["roles"]
    ]
    slow, metrics, top = seen["slow"], seen["metrics"], seen["top"]
    rows += [
        [
            "slow request",
            f"/bestsellers: {slow['x-sql-queries']} queries, {slow['x-request-time']} s, "
            f"id {slow['x-request-id']}",
        ],
        [
            "metrics",
            f"{metrics['families']} families, {metrics['samples']:,} samples, "
            f"{metrics['succeeded']:.0f} tasks, {metrics['milliseconds']:.0f} ms",
        ],
        ["admin page", f"{seen['admin']['status']}, queues {', '.join(seen['admin']['queues'])}"],
        ["answers", ", ".join(f"{path} {code}" for path, code in seen["answers"].items())],
        [
            "celeriac top",
            f"{top['processes']} processes, {number(top['operations_per_second'])} operations/s, "
            f"{mib(top['memory'])}",
        ],
    ]
    return ["on call", "seen"], rows


def spread(values: dict[str, Any]) -> str:
    """Three percentiles, or a dash where there was nothing to measure."""
    if not values["count"]:
        return "–"
    return " / ".join(number(values[name]) for name in ("p50", "p95", "p99"))


def number(value: float | None) -> str:
    """A measured number with as many digits as are worth reading."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percent(value: float | None) -> str:
    """A share."""
    return "–" if value is None else f"{value:.1%}"


def mib(value: int) -> str:
    """An amount of memory."""
    return f"{value / MIB:,.0f} MiB" if value else "–"


def _counts(tasks: dict[str, Any], names: Iterable[str]) -> str:
    return " / ".join(f"{tasks[name]:,}" for name in names)
