"""A question before something is removed."""

from __future__ import annotations


def agreed(question: str) -> bool:
    """Whether somebody said yes; nobody did where nothing can be read."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
