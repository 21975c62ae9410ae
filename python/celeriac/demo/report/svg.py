"""The few shapes that the charts need, as SVG text. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text; `kind` is a class of the style sheet."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(content)}</text>"
    )


def bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A bar."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" '
        f'rx="3" class="{kind}"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def dot(x: float, y: float, radius: float, kind: str) -> str:
    """A dot."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"/>'


def curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Straight lines through the points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{kind}"/>'


def drawing(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """The picture; `label` is for people who can't see it."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def round_ticks(largest: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least `largest`."""
    step = 10 ** math.floor(math.log10(max(largest, 1e-9) / about))
    step = next(step * factor for factor in (1, 2, 5, 10) if largest / (step * factor) <= about)
    return [index * step for index in range(math.ceil(largest / step) + 1)]


class LogScale:
    """Places positive values between two ends of an axis by their logarithm."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        usable = [value for value in values if value > 0] or [1.0]
        self._low = math.floor(math.log10(min(usable)))
        self._high = max(math.ceil(math.log10(max(usable))), self._low + 1)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        """Where the value lies; what is below the scale lies at its start."""
        place = (math.log10(max(value, 10.0**self._low)) - self._low) / (self._high - self._low)
        return self._start + place * (self._end - self._start)

    def ticks(self) -> list[float]:
        """The powers of ten."""
        return [10.0**power for power in range(self._low, self._high + 1)]
