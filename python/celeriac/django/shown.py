"""Numbers as the page shows them to people."""

from __future__ import annotations

import time

__all__ = ["NONE", "ago", "count", "per_second", "ratio", "seconds", "size"]

NONE = "–"

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def count(value: int | None) -> str:
    """1,234."""
    return NONE if value is None else f"{value:,}"


def size(value: int) -> str:
    """Bytes, in the largest unit that leaves a digit before the point."""
    amount, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"


def ratio(hits: float, misses: float) -> str:
    """Hits per lookup; nothing before the first."""
    lookups = hits + misses
    return f"{100 * hits / lookups:.1f} %" if lookups else NONE


def per_second(value: float | None) -> str:
    """A rate, with as many digits as say something."""
    if value is None:
        return NONE
    return f"{value:,.0f}/s" if value >= 100 or value == 0 else f"{value:.1f}/s"


def seconds(value: float | None) -> str:
    """A length of time."""
    if value is None:
        return NONE
    for unit, name in _UNITS:
        if value >= unit:
            return f"{value / unit:,.1f} {name}"
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def ago(moment: float) -> str:
    """How long ago a time was, in seconds since 1970."""
    return f"{seconds(max(time.time() - moment, 0))} ago"
