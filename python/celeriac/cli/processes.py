"""What the kernel says about a store's processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

WATCHES = "/proc/sys/fs/inotify/max_user_instances"


def state_of(owner: Mapping[str, Any], store: str) -> str:
    """ "dead", "alive", or "stopped": a signal or a debugger has halted it, and it may hold a lock.

    `store` is the store's directory. The pid may be one of another container's, where another
    process has it here: so it counts only for a process that has this store's lock file open.
    """
    if not owner["alive"]:
        return "dead"
    with suppress(OSError, ValueError, IndexError):
        stat = _text_of(f"/proc/{owner['pid']}/stat")
        if stat[stat.rindex(")") + 2] in "Tt" and _has_open(owner["pid"], f"{store}/owners.lock"):
            return "stopped"
    return "alive"


def _text_of(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _has_open(pid: int, path: str) -> bool:
    wanted = os.stat(path)
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(OSError):  # closed since
            if os.path.samestat(os.stat(f"{folder}/{name}"), wanted):
                return True
    return False


def most_watches() -> int | None:
    """How many inotify instances the processes of one user may have, or None: not known."""
    try:
        return int(_text_of(WATCHES))
    except (OSError, ValueError):
        return None
