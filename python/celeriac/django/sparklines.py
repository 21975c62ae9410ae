"""Small curves as SVG: the points of a line in a box of 120 by 32, the last value at its right."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HEIGHT", "WIDTH", "points"]

WIDTH, HEIGHT = 120, 32
_MARGIN = 2


def points(values: Sequence[float], most: int, top: float | None = None) -> str:
    """For a `<polyline>`; from 0 at the bottom to `top`, by default the largest value.

    :param most: how many values fill the width; fewer begin further right.
    """
    if len(values) < 2:
        return ""
    largest = top or max(values) or 1.0
    step = (WIDTH - 2 * _MARGIN) / max(most - 1, 1)
    first = WIDTH - _MARGIN - step * (len(values) - 1)
    height = HEIGHT - 2 * _MARGIN
    return " ".join(
        f"{first + place * step:.1f},{HEIGHT - _MARGIN - height * min(value / largest, 1):.1f}"
        for place, value in enumerate(values)
    )
