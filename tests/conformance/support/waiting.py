"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LONG = 60.0  # seconds after which something hangs


def until(true: Callable[[], Any]) -> Any:
    """Waits until it is, and gives it. Raises AssertionError when it hangs."""
    deadline = time.monotonic() + LONG
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError("it never became true")
        time.sleep(0.001)
    return found
