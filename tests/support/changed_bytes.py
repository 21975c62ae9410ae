"""How much of a store's memory a call changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from celeriac.url import parse_url

PAGE, WORD = 4096, 8
FEW = 60
"""Words, where something takes one step: counts, a generation, a flight."""


def arena(url: str) -> bytes:
    """The store's memory as it is now."""
    root = Path(os.environ.get("CELERIAC_SHM_DIR", "/dev/shm"))
    return (root / f"celeriac-{os.geteuid()}" / parse_url(url).name / "arena").read_bytes()


def changed(url: str, call: Callable[[], object]) -> int:
    """How many words of the store a call changes."""
    before = arena(url)
    call()
    after = arena(url)
    pages = [
        (before[at : at + PAGE], after[at : at + PAGE])
        for at in range(0, len(after), PAGE)
        if before[at : at + PAGE] != after[at : at + PAGE]
    ]
    return sum(
        one[at : at + WORD] != other[at : at + WORD]
        for one, other in pages
        for at in range(0, len(other), WORD)
    )
