"""The page's charts, each a function from the summary to an SVG picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import svg
from .table import KIND_NAMES, MIB, mib, number, percent

WIDTH = 680
LEFT = 120
RIGHT = 70
ROW = 30
BUCKET_SECONDS = 0.5

Phases = Sequence[dict[str, Any]]


def throughput(phases: Phases) -> str:
    """Requests per second."""
    return _bars(
        phases, "requests per second", lambda p: p["requests_per_second"], lambda v: f"{v:,.0f}"
    )


def processor_time(phases: Phases) -> str:
    """Processor time for each request."""
    return _bars(
        phases,
        "processor time per request",
        lambda p: p["cpu_ms_per_request"],
        lambda v: f"{v:.2f} ms",
    )


def hit_ratios(phases: Phases) -> str:
    """Hit ratios over the same requests."""
    return _bars(phases, "hit ratio", lambda p: p["hit_ratio_same"] or 0.0, percent, most=1.0)


def webhooks(phases: Phases) -> str:
    """The webhook's p95."""
    return _bars(
        phases,
        "webhook answer, p95",
        lambda p: p["latency_ms"]["webhook"]["p95"] or 0.0,
        lambda v: f"{number(v)} ms",
    )


def memory(phases: Phases) -> str:
    """Processes, and beside them the store's or server's own."""
    return _bars(
        phases,
        "memory",
        lambda p: p["memory"]["pss"] / MIB,
        lambda v: mib(int(v * MIB)),
        extra=lambda p: p["memory"]["backend"] / MIB if p["stack"] == "redis" else 0.0,
    )


def latencies(phases: Phases) -> str:
    """p50, p95 and p99 of each kind of view, on a logarithmic scale."""
    names = ("p50", "p95", "p99")
    values = [
        spread[name]
        for phase in phases
        for spread in phase["latency_ms"].values()
        for name in names
        if spread["count"]
    ]
    scale = svg.LogScale(values, LEFT, WIDTH - RIGHT)
    step, top = 15, 24
    block = step * len(phases) + 16
    height = top + block * len(KIND_NAMES)
    parts = []
    for tick in scale.ticks():
        parts.append(svg.line(scale(tick), top - 6, scale(tick), height, "grid"))
        parts.append(svg.text(scale(tick), 12, f"{tick:g} ms", "tick", "middle"))
    for row, (kind, name) in enumerate(KIND_NAMES.items()):
        y = top + row * block + 12
        parts.append(svg.text(LEFT - 14, y + step * (len(phases) - 1) / 2 + 4, name, "", "end"))
        for place, phase in enumerate(phases):
            spread = phase["latency_ms"][kind]
            if not spread["count"]:
                continue
            p50, p95, p99 = (scale(spread[name]) for name in names)
            at, stack = y + place * step, phase["stack"]
            parts.append(svg.line(p50, at, p99, at, f"range {stack}"))
            parts.append(svg.dot(p50, at, 5, f"fill {stack}"))
            parts.append(svg.dot(p95, at, 3.5, f"fill {stack}"))
            parts.append(svg.line(p99, at - 4, p99, at + 4, f"range {stack}"))
            parts.append(svg.text(p99 + 8, at + 4, number(spread["p95"]), "tick"))
    return svg.drawing(WIDTH, height, "answer times by kind of view", parts)


def timeline(phases: Phases) -> str:
    """Requests per second over the time of the load."""
    longest = max((len(phase["timeline"]) for phase in phases), default=1)
    rates = [[count / BUCKET_SECONDS for count in phase["timeline"][:-1]] for phase in phases]
    ticks = svg.round_ticks(max((max(rate, default=1) for rate in rates), default=1))
    top, height, left = 12, 220, 60
    bottom, right = height - 28, WIDTH - 20

    def x(bucket: float) -> float:
        return left + (right - left) * bucket / max(longest, 1)

    def y(rate: float) -> float:
        return bottom - (bottom - top) * rate / ticks[-1]

    parts = []
    for tick in ticks:
        parts.append(svg.line(left, y(tick), right, y(tick), "grid"))
        parts.append(svg.text(left - 8, y(tick) + 4, f"{tick:,.0f}", "tick", "end"))
    for second in svg.round_ticks(longest * BUCKET_SECONDS, 8):
        if second <= longest * BUCKET_SECONDS:
            at = x(second / BUCKET_SECONDS)
            parts.append(svg.text(at, height - 8, f"{second:g} s", "tick", "middle"))
    for phase, rate in zip(phases, rates, strict=True):
        points = [(x(place + 0.5), y(value)) for place, value in enumerate(rate)]
        if points:
            parts.append(svg.curve(points, f"curve {phase['stack']}"))
    return svg.drawing(WIDTH, height, "requests per second over time", parts)


def queue_waits(phases: Phases) -> str:
    """Which share of the tasks had started after how long, on a logarithmic scale."""
    queued = [phase for phase in phases if phase["queue_wait_curve_ms"]]
    if not queued:
        return ""
    top, height, left = 12, 220, 60
    bottom, right = height - 28, WIDTH - 20
    least = 0.1
    values = [max(v, least) for phase in queued for v in phase["queue_wait_curve_ms"]]
    scale = svg.LogScale(values, left, right)
    parts = []
    for share in (0, 25, 50, 75, 100):
        at = bottom - (bottom - top) * share / 100
        parts.append(svg.line(left, at, right, at, "grid"))
        parts.append(svg.text(left - 8, at + 4, f"{share} %", "tick", "end"))
    for tick in scale.ticks():
        anchor = "end" if scale(tick) >= right else "middle"
        parts.append(svg.text(scale(tick), height - 8, f"{tick:g} ms", "tick", anchor))
    for phase in queued:
        curve = phase["queue_wait_curve_ms"]
        points = [
            (scale(max(wait, least)), bottom - (bottom - top) * (place + 1) / len(curve))
            for place, wait in enumerate(curve)
        ]
        parts.append(svg.curve(points, f"curve {phase['stack']}"))
    return svg.drawing(WIDTH, height, "share of tasks started after a time", parts)


def _bars(
    phases: Phases,
    label: str,
    value: Callable[[dict[str, Any]], float],
    form: Callable[[float], str],
    most: float | None = None,
    extra: Callable[[dict[str, Any]], float] = lambda phase: 0.0,
) -> str:
    """A bar for each stack; `extra` is stacked behind the value in a lighter shade."""
    totals = [value(phase) + extra(phase) for phase in phases]
    factor = (WIDTH - LEFT - RIGHT) / (most or max(totals, default=0) or 1)
    parts = []
    for row, (phase, total) in enumerate(zip(phases, totals, strict=True)):
        y, stack = row * ROW + 4, phase["stack"]
        own = value(phase)
        parts.append(svg.text(LEFT - 14, y + 15, phase["title"], "", "end"))
        parts.append(svg.bar(LEFT, y, own * factor, ROW - 8, f"fill {stack}"))
        if total > own:
            x = LEFT + own * factor
            parts.append(svg.bar(x, y, (total - own) * factor, ROW - 8, f"fill light {stack}"))
        parts.append(svg.text(LEFT + total * factor + 8, y + 15, form(total), "value"))
    return svg.drawing(WIDTH, len(phases) * ROW + 4, label, parts)
