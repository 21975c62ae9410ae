"""What the keys of a cache hold, by their prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from celeriac import checks

MOST_PREFIXES = 10_000
"""More are never kept apart at a time."""


class PrefixStats(NamedTuple):
    """What the keys of one prefix hold."""

    entries: int
    bytes: int
    """Of keys and values as they are stored."""


def by_prefix(steps: Iterable[Mapping[Any, int]], sep: str, most: int) -> dict[str, PrefixStats]:
    """The sums of a walk, whose steps give the bytes of each key; the largest first.

    Raises ValueError for what is no separator or no number; TypeError where ``most`` is no int.
    """
    if not isinstance(sep, str) or not sep:
        raise ValueError(f"sep={sep!r}: one character or more")
    checks.whole(most, "most", 0)
    found: dict[str, list[int]] = {}
    for step in steps:
        for key, size in step.items():
            text = key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
            prefix, separated, _ = text.partition(sep)
            sums = found.setdefault(prefix if separated else "", [0, 0])
            sums[0] += 1
            sums[1] += size
        if len(found) > MOST_PREFIXES:
            _fold(found, MOST_PREFIXES // 2)
    _fold(found, most)
    return {prefix: PrefixStats(*sums) for prefix, sums in found.items() if sums[0]}


def _fold(found: dict[str, list[int]], most: int) -> None:
    """Leave the prefixes with the most bytes, the largest first; the others go under ""."""
    rest = found.pop("", [0, 0])
    largest = sorted(found.items(), key=lambda item: item[1][1], reverse=True)
    for _, (entries, size) in largest[most:]:
        rest[0] += entries
        rest[1] += size
    found.clear()
    found.update(largest[:most])
    found[""] = rest
