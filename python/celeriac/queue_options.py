"""What a queue may be told when it is opened: checked, and in the core's terms."""

from __future__ import annotations

import math
from typing import Any

from celeriac import checks
from celeriac.errors import ConfigurationError

Keep = tuple[int | None, float | None]


def check_count(value: object, what: str) -> int:
    """A count, 0 for no limit. Raises TypeError, ConfigurationError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int or None, not {type(value).__name__}")
    if not 1 <= value <= checks.LARGEST:
        bound = "at least 1" if value < 1 else f"at most {checks.LARGEST}"
        raise ConfigurationError(f"{what}={value!r}: {bound}, or None for no limit")
    return value


def check_seconds(value: object, what: str) -> float:
    """Seconds above zero, 0 for none. Raises TypeError, ConfigurationError."""
    if value is None:
        return 0.0
    if isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds or None, not bool")
    checks.check_ttl(value, what)
    seconds = float(value)  # type: ignore[arg-type]
    if seconds <= 0 or math.isinf(seconds):
        raise ConfigurationError(f"{what}={value!r}: seconds above zero, or None for no limit")
    return seconds


def check_keep(value: object, what: str) -> tuple[int, float]:
    """(count, seconds), 0 for no limit. Raises TypeError, ConfigurationError."""
    if value is None:
        return 0, 0.0
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{what} is a pair (count, seconds), either of which may be None")
    count, age = check_count(value[0], f"{what}[0]"), check_seconds(value[1], f"{what}[1]")
    if not count and not age:
        raise ConfigurationError(f"{what}={value!r}: one of the two has to be a limit")
    return count, age


def check_options(
    name: str,
    *,
    max_length: int | None,
    max_deliveries: int | None,
    drop_oldest: bool,
    owner_bound: bool,
    dead_letter: str | None,
    keep_done: Keep | None,
    keep_failed: Keep | None,
    dedup_ttl: float | None,
    visibility: float | None,
) -> dict[str, Any]:
    """The options as the core takes them. Raises TypeError, ConfigurationError."""
    for option, value in (("drop_oldest", drop_oldest), ("owner_bound", owner_bound)):
        checks.yes_or_no(value, option)
    if dead_letter is not None:
        size = len(checks.text(dead_letter, "dead_letter").encode())
        if not 1 <= size <= 256:
            raise ConfigurationError(f"dead_letter={dead_letter!r}: a name of 1 to 256 bytes")
        if dead_letter == name:
            raise ConfigurationError(f"dead_letter={dead_letter!r}: that is this queue itself")
    return {
        "max_length": check_count(max_length, "max_length"),
        "max_deliveries": check_count(max_deliveries, "max_deliveries"),
        "drop_oldest": drop_oldest,
        "owner_bound": owner_bound,
        "dead_letter": dead_letter or "",
        "visibility": check_seconds(visibility, "visibility"),
        "dedup_ttl": check_seconds(dedup_ttl, "dedup_ttl"),
        "keep_done": check_keep(keep_done, "keep_done"),
        "keep_failed": check_keep(keep_failed, "keep_failed"),
    }
