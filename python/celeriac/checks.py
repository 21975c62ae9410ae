"""Arguments as users give them: an error names the argument, what was given, and what is taken.

TypeError for what is of the wrong kind, ValueError for a number that can't be. They are raised
before anything is done, so that nothing has changed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

LARGEST = 2**63 - 1
_Item = TypeVar("_Item")


def check_ttl(ttl: object, what: str = "ttl") -> float | None:
    """The seconds, or None. Raises TypeError or ValueError for what is neither."""
    return None if ttl is None else _check_number(ttl, what, "a number of seconds or None")


def seconds(value: object, what: str) -> float:
    """A number of seconds, zero or more. Raises TypeError, ValueError."""
    if isinstance(value, bool):
        raise TypeError(f"{what} is a number of seconds, not bool")
    number = _check_number(value, what, "a number of seconds")
    if number < 0:
        raise ValueError(f"{what}={value!r}: a number of seconds, zero or more")
    return number


def limited(value: object, what: str, least: float | None = None, *, above: bool = False) -> float:
    """A finite number of seconds, at least or above `least`. Raises TypeError, ValueError."""
    taken = "a finite number of seconds"
    if least is not None:
        taken += f", {'above' if above else 'at least'} {least:g}"
    taken += ", or None for no limit"
    number = _check_number(value, what, taken)
    if math.isinf(number) or (
        least is not None and (number < least or (above and number == least))
    ):
        raise ValueError(f"{what}={value!r}: {taken}")
    return number


def moment(value: object, what: str) -> float:
    """A Unix time in seconds; infinite is never. A datetime without a zone is local time. Raises
    TypeError, ValueError."""
    if isinstance(value, datetime):
        try:
            return value.timestamp()
        except (OverflowError, ValueError, OSError):  # in the first or last year of the calendar
            return value.replace(tzinfo=timezone.utc).timestamp()
    return _check_number(value, what, "a Unix time in seconds or a datetime")


def _check_number(value: Any, what: str, taken: str) -> float:
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        raise TypeError(f"{what} is {taken}, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond a double
        return float("-inf" if value < 0 else "inf")
    if number != number:
        raise ValueError(f"{what}={value!r}: {taken}")
    return number


def integer(value: object, what: str) -> int:
    """An int of any size. Raises TypeError."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what} is an int, not {type(value).__name__}") from None


def whole(value: object, what: str, least: int | None = None, most: int = LARGEST) -> int:
    """An int between the two. Raises TypeError, ValueError."""
    if isinstance(value, bool):
        raise TypeError(f"{what} is an int, not bool")
    number = integer(value, what)
    if number > most or (least is not None and number < least):
        if least is None or number > most == LARGEST:
            bounds = f"at most {most}"
        else:
            bounds = f"at least {least}" if most == LARGEST else f"an int from {least} to {most}"
        raise ValueError(f"{what}={value!r}: {bounds}")
    return number


def yes_or_no(value: object, what: str) -> bool:
    """A bool. Raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {type(value).__name__}")
    return value


def text(value: object, what: str) -> str:
    """A str. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    return value


def mapping(value: object, what: str) -> Mapping[Any, Any]:
    """A mapping. Raises TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is a mapping such as a dict, not {type(value).__name__}")
    return value


def keys(values: Iterable[_Item], what: str = "keys") -> list[_Item]:
    """Keys, each str or bytes. Raises TypeError before the first of them is used."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{what} is an iterable of keys, not {type(values).__name__}")
    found = list(values)
    for key in found:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
    return found
