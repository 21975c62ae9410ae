"""What the keys of a cache hold and what was counted of them, by their prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from celeriac import checks

SEPARATOR: Final = ":"
"""By which the core tells prefixes apart while it counts (`src/store/prefixes.hpp`)."""
OTHER: Final = "(other)"
"""The row of all prefixes that have none of their own."""
MOST_PREFIXES = 10_000
"""More are never kept apart at a time."""
MOST_LEAD: Final = 240  # bytes
NOT_APART: Final = MOST_LEAD + 1
"""A lead of so many bytes says that keys aren't told apart."""

Counted = tuple[bytes, int, int, int, int, int, int]


class PrefixStats(NamedTuple):
    """What the keys of one prefix hold, and what was counted of them as in :class:`CacheStats`.

    What is None wasn't counted for this prefix alone.
    """

    entries: int
    bytes: int
    """Of keys and values as they are stored."""
    hits: int | None = None
    misses: int | None = None
    sets: int | None = None
    deletes: int | None = None
    evictions: int | None = None
    expirations: int | None = None

    @property
    def hit_ratio(self) -> float | None:
        """Hits per lookup, 0.0 to 1.0; 0.0 before the first lookup; None where none are counted."""
        if self.hits is None or self.misses is None:
            return None
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


def lead_size(lead: str) -> int:
    """The bytes of what all keys of a cache begin with; 0 where they are too many.

    Raises ValueError when it ends otherwise than with a separator, TypeError where it is no str.
    """
    if checks.text(lead, "lead") and not lead.endswith(SEPARATOR):
        raise ValueError(f'lead={lead!r}: it ends with "{SEPARATOR}"')
    size = len(lead.encode("utf-8", "surrogatepass"))
    return size if size <= MOST_LEAD else 0


def counted(rows: Iterable[Counted]) -> dict[str, tuple[int, ...]]:
    """Hits, misses, sets, deletes, evictions and expirations by prefix; not those of all zeros."""
    found: dict[str, tuple[int, ...]] = {}
    for prefix, *counts in rows:
        if any(counts):
            _add(found, _text(prefix), counts)
    return found


def _add(to: dict[str, tuple[int, ...]], prefix: str, counts: Iterable[int]) -> None:
    to[prefix] = tuple(map(sum, zip(to.get(prefix, (0,) * 6), counts, strict=True)))


def by_prefix(
    steps: Iterable[Mapping[Any, int]], sep: str, most: int, lead: int, rows: Iterable[Counted]
) -> dict[str, PrefixStats]:
    """The sums of a walk, whose steps give the bytes of each key, and the core's counts, where it
    has counted by this separator; the largest first.

    Raises ValueError for what is no separator or no number; TypeError where ``most`` is no int.
    """
    if not isinstance(sep, str) or not sep:
        raise ValueError(f"sep={sep!r}: one character or more")
    checks.whole(most, "most", 0)
    found: dict[str, list[int]] = {}
    for step in steps:
        for key, size in step.items():
            sums = found.setdefault(prefix_of(key, sep.encode(), lead), [0, 0])
            sums[0] += 1
            sums[1] += size
        if len(found) > MOST_PREFIXES:
            _fold(found, MOST_PREFIXES // 2, {})
    counts = counted(rows) if sep == SEPARATOR else {}
    for prefix in counts:
        found.setdefault(prefix, [0, 0])
    _fold(found, most, counts)
    for prefix in [prefix for prefix in counts if prefix not in found]:
        _add(counts, OTHER, counts.pop(prefix))
        found.setdefault(OTHER, [0, 0])
    return {
        prefix: PrefixStats(*sums, *counts.get(prefix, ()))
        for prefix, sums in found.items()
        if sums[0] or prefix in counts
    }


def prefix_of(key: Any, sep: bytes, lead: int) -> str:
    """What stands in a key before ``sep``, "" where nothing does; behind the lead, if it has it."""
    raw = key.encode() if isinstance(key, str) else key
    if lead and raw[lead - 1 : lead] == SEPARATOR.encode():
        raw = raw[lead:]
    prefix, separated, _ = raw.partition(sep)
    return _text(prefix) if separated else ""


def _text(prefix: bytes) -> str:
    try:
        return prefix.decode()
    except UnicodeDecodeError:
        return repr(prefix)


def _fold(found: dict[str, list[int]], most: int, counts: Mapping[str, Iterable[int]]) -> None:
    """Leave the prefixes with the most bytes, and then counts, the largest first; the others go
    under OTHER."""
    last: dict[str, list[int]] = {
        prefix: found.pop(prefix) for prefix in ("", OTHER) if prefix in found
    }

    def size_of(item: tuple[str, list[int]]) -> tuple[int, int]:
        return item[1][1], sum(counts.get(item[0], ()))

    largest = sorted(found.items(), key=size_of, reverse=True)
    for _, (entries, size) in largest[most:]:
        rest = last.setdefault(OTHER, [0, 0])
        rest[0] += entries
        rest[1] += size
    found.clear()
    found.update(largest[:most])
    found.update(last)
