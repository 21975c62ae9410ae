"""Rates as text, ``"100/s"``, ``"60/min"``, ``"5/10s"``, and what the core takes for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from celeriac.errors import ConfigurationError

_UNITS: Final = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
_RATE: Final = re.compile(r"\s*([0-9]+)\s*/\s*([0-9]*)\s*([A-Za-z]+)\s*", re.ASCII)
_EXAMPLES: Final = '"100/s", "5/10s", "60/min", "1000/hour", "10000/day"'
_LARGEST: Final = 2**63 - 1

ALGORITHMS: Final = {"gcra": 1, "token_bucket": 1, "sliding_window": 2, "fixed_window": 3}
"""Names, and the form of the core's word. A token bucket is GCRA seen from the other side."""

CoreRate = tuple[int, int, int, int]
"""(form, count, period in ns, burst)."""


class Rate(str):
    """One rate: its text, and what it says."""

    amount: int
    """How many, in each period."""
    period: float
    """Seconds."""
    burst: int
    """The most that can be taken at once."""

    def __new__(cls, text: str, amount: int, period: float, burst: int) -> Rate:
        self = super().__new__(cls, text)
        self.amount, self.period, self.burst = amount, period, burst
        return self

    def __getnewargs__(self) -> tuple[str, int, float, int]:  # type: ignore[override]
        return str(self), self.amount, self.period, self.burst


def _parse(text: object, burst: int | None, algorithm: str) -> Rate:
    if not isinstance(text, str):
        raise TypeError(f"a rate is a str such as {_EXAMPLES}, not {type(text).__name__}")
    found = _RATE.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"rate {text!r}: not COUNT/PERIOD, such as {_EXAMPLES}")
    count, times, unit = int(found[1]), int(found[2] or 1), found[3].lower()
    if unit not in _UNITS:
        units = ", ".join(unit for unit in _UNITS if not unit.endswith("s") or len(unit) <= 2)
        raise ConfigurationError(
            f"rate {text!r}: {found[3]!r} is no unit of time; there are {units}"
        )
    if count < 1 or times < 1:
        what = "a count" if count < 1 else "a period"
        raise ConfigurationError(f"rate {text!r}: {what} of zero; at least 1")
    if count > _LARGEST or times > _LARGEST:
        raise ConfigurationError(f"rate {text!r}: a number beyond {_LARGEST}")
    if burst is not None and algorithm.endswith("_window") and burst != count:
        raise ConfigurationError(
            f"burst={burst} with algorithm={algorithm!r}: a window allows its whole count at once; "
            'burst= is for "gcra" and "token_bucket"'
        )
    return Rate(text.strip(), count, times * _UNITS[unit], count if burst is None else burst)


def _check_burst(burst: object, what: str = "burst") -> int:
    if isinstance(burst, bool) or not isinstance(burst, int):
        raise TypeError(f"{what} is an int or None, not {type(burst).__name__}")
    if not 1 <= burst <= _LARGEST:
        raise ConfigurationError(f"{what}={burst}: at least 1, the most that can be taken at once")
    return burst


def parse_rates(
    rates: str | Iterable[str], burst: int | Iterable[int | None] | None, algorithm: str
) -> list[Rate]:
    """The rates of a limiter. Raises TypeError, ConfigurationError."""
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm is a str, not {type(algorithm).__name__}")
    if algorithm not in ALGORITHMS:
        raise ConfigurationError(
            f"algorithm={algorithm!r} is unknown; there are {', '.join(ALGORITHMS)}"
        )
    if isinstance(rates, str):
        return [_parse(rates, None if burst is None else _check_burst(burst), algorithm)]
    if isinstance(rates, bytes) or not isinstance(rates, Iterable):
        raise TypeError(
            f"rates is a str such as {_EXAMPLES}, or a list, not {type(rates).__name__}"
        )
    texts = list(rates)
    if not 1 <= len(texts) <= 8:
        raise ConfigurationError(f"a limiter has 1 to 8 rates, not {len(texts)}")
    bursts: list[int | None]
    if burst is None:
        bursts = [None] * len(texts)
    elif isinstance(burst, Iterable) and not isinstance(burst, (str, bytes)):
        bursts = [one if one is None else _check_burst(one, "a burst") for one in burst]
    else:
        bursts = [_check_burst(burst)]
    if len(bursts) != len(texts):
        raise ConfigurationError(
            f"burst={burst!r} with {len(texts)} rates: a list of as many bursts, None for a rate's "
            "own count"
        )
    return [_parse(text, one, algorithm) for text, one in zip(texts, bursts, strict=True)]


def core_rate(rate: Rate, algorithm: str) -> CoreRate:
    """What the core takes for it."""
    period = round(rate.period * 1e9)
    return ALGORITHMS[algorithm], rate.amount, min(period, _LARGEST), rate.burst
