"""Results as SVG: one file per group, a panel per case, a bar per system, whiskers least to most.

The scale is logarithmic, because the systems lie orders of magnitude apart. Each panel has its own
unit, so a chart holds cases of one unit only; the file's name ends with the group's number.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 860.0, 150.0, 110.0
BAR, GAP, TITLE = 15.0, 4.0, 26.0
OURS = "#2f7d4f"
PEERS = ("#7a8ca3", "#a3917a", "#8f7aa3", "#7aa39c", "#a37a86", "#94a37a")

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.small{font-size:11px;"
    "fill:#555}.grid{stroke:#ddd}.whisker{stroke:#222;stroke-width:1.2}"
)


def draw(document: dict[str, Any]) -> dict[str, str]:
    """File name (without .svg) to drawing."""
    charts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in document["results"]:
        charts.setdefault((result["group"], result["unit"]), []).append(result)
    name = f"{document['benchmark']}-{document['started'][:10]}"
    return {
        f"{name}-{index}": _chart(document, group, unit, results)
        for index, ((group, unit), results) in enumerate(charts.items(), 1)
    }


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _chart(document: dict[str, Any], group: str, unit: str, results: list[dict[str, Any]]) -> str:
    values = [
        part[end]
        for result in results
        for part in result["systems"].values()
        for end in ("min", "max")
        if part[end] > 0
    ]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=10.0))))

    def place(value: float) -> float:
        power = math.log10(max(value, 10.0**low))
        return LEFT + (power - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    better = results[0]["better"]
    parts: list[str] = []
    y = 44.0
    for result in results:
        parts.append(_text(8, y + 14, result["case"], "title"))
        y += TITLE
        for system in document["systems"]:
            part = result["systems"].get(system)
            if part is None:
                continue
            parts += _bar(document, system, part, y, place)
            y += BAR + GAP
        y += 6
    grid = [
        _line(place(10.0**power), 40, place(10.0**power), y, "grid")
        + _text(place(10.0**power), y + 16, f"{10.0**power:g}", "small", "middle")
        for power in range(low, high + 1)
    ]
    heading = f"{group}: {unit}, {better} is better"
    height = y + 28
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'width="{WIDTH:.0f}" role="img" aria-label="{escape(heading)}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{_text(8, 22, heading, "title")}'
        f"{''.join(grid)}{''.join(parts)}</svg>\n"
    )


def _bar(
    document: dict[str, Any], system: str, part: dict[str, Any], y: float, place: Any
) -> list[str]:
    others = [name for name in document["systems"] if name not in document["ours"]]
    colour = OURS if system in document["ours"] else PEERS[others.index(system) % len(PEERS)]
    end = place(part["median"])
    middle = y + BAR / 2
    return [
        _text(LEFT - 6, y + BAR - 3, system, "small", "end"),
        f'<rect x="{LEFT:.1f}" y="{y:.1f}" width="{max(end - LEFT, 1):.1f}" height="{BAR:.0f}" '
        f'fill="{colour}"/>',
        _line(place(part["min"]), middle, place(part["max"]), middle, "whisker"),
        _text(place(part["max"]) + 6, y + BAR - 3, f"{part['median']:,.4g}", "small"),
    ]
