"""What processes use, as the kernel accounts for it: memory and processor time.

RSS counts shared pages in each process that maps them, PSS (proportional set size) shares them out,
so only PSS can be summed. A celeriac store's pages are in the PSS of the processes that use it.
Processor time, unlike requests per second, hardly depends on what else the machine is doing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes, summed over some processes."""

    rss: int
    pss: int


def memory_of(pids: Iterable[int]) -> Memory:
    """The memory of the processes; those that have ended count as nothing."""
    rss = pss = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines)
        rss += int(fields["Rss"].split()[0]) * 1024
        pss += int(fields["Pss"].split()[0]) * 1024
    return Memory(rss, pss)


def cpu_seconds(pids: Iterable[int]) -> float:
    """The processor time, user's and system's, that the processes have used since their start."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        ticks += sum(map(int, stat[stat.rindex(")") + 2 :].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def size_of(path: str) -> int:
    """The bytes that the files below `path` occupy, here: a store's allocated memory."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(path)
        for name in names
    )
