"""Rates: what counters did between two looks at a store, and looking again and again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator


def per_second(before: int, now: int, seconds: float) -> float:
    """How much a counter rose a second; never below zero, since what is removed takes its counts
    along."""
    return round(max(now - before, 0) / seconds, 1)


def turns(seconds: float) -> Iterator[float]:
    """One for each look, now and then every so many seconds, until Ctrl-C; the seconds since the
    last. Looks that take longer are not caught up with."""
    last = time.monotonic()
    yield 0.0
    while True:
        time.sleep(max(0.0, last + seconds - time.monotonic()))
        now = time.monotonic()
        took, last = now - last, now
        yield took


def add_seconds(parser: argparse.ArgumentParser, default: float) -> None:
    """Add --seconds, the time between two looks."""
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=default,
        metavar="S",
        help=f"between two looks, 0.1 to 3600 (default: {default:g})",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 0.1 and 3600")
    return value
