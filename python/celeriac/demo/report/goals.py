"""What the demo is to show, and whether this run did."""

from __future__ import annotations

from typing import Any

from .. import on_call

WEBHOOK_P95_MS = 100.0


def check_goals(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each goal with `met` (None where a phase that it needs didn't run) and the numbers for it."""
    by_stack = {phase["stack"]: phase for phase in phases}
    ours, locmem, redis = (by_stack.get(name) for name in ("celeriac", "locmem", "redis"))
    return [
        _goal(
            "Nothing lost: every task that was sent is done",
            ours and ours["tasks"]["lost"] == 0 and ours["tasks"]["sent"] > 0,
            ours and f"{ours['tasks']['sent']} sent, {ours['tasks']['lost']} lost",
        ),
        _goal(
            "Hit ratio over all workers above LocMem's, over the same requests",
            ours and locmem and _above(ours["hit_ratio_same"], locmem["hit_ratio_same"]),
            ours and locmem and _both(ours, locmem, "hit_ratio_same", "{:.1%} against {:.1%}"),
        ),
        _goal(
            "Requests per second at least those of the Redis run",
            ours and redis and ours["requests_per_second"] >= redis["requests_per_second"],
            ours and redis and _both(ours, redis, "requests_per_second", "{:.0f} against {:.0f}"),
        ),
        _goal(
            f"Webhook answered in under {WEBHOOK_P95_MS:.0f} ms (p95)",
            ours and _above(WEBHOOK_P95_MS, ours["latency_ms"]["webhook"]["p95"]),
            ours and f"{ours['latency_ms']['webhook']['p95'] or 0:.1f} ms",
        ),
    ]


def went_wrong(phases: list[dict[str, Any]], seen: dict[str, Any] | None = None) -> list[str]:
    """What makes the demo's exit code 1: lost tasks and failed requests, of any phase, and what
    whoever is on call doesn't see."""
    problems = []
    for phase in phases:
        if phase["tasks"]["lost"]:
            problems.append(f"{phase['title']}: {phase['tasks']['lost']} tasks lost")
        if phase["failed"]:
            first = phase["failures"][0]
            problems.append(f"{phase['title']}: {phase['failed']} requests failed, first {first}")
    return problems + (on_call.problems(seen) if seen else [])


def _goal(text: str, met: Any, detail: Any) -> dict[str, Any]:
    return {"goal": text, "met": None if met is None else bool(met), "detail": detail or "not run"}


def _above(high: float | None, low: float | None) -> bool:
    return high is not None and low is not None and high > low


def _both(ours: dict[str, Any], other: dict[str, Any], field: str, form: str) -> str:
    return form.format(ours[field] or 0, other[field] or 0)
