"""Clean up after a demo that was killed: a small process that outlives it by a moment.

It reads lines from the demo: `group N` and `path P` note a process group and a directory, `forget
N` a group that has ended. When its input ends, the demo is over, whichever way, and whatever is
still noted is killed and removed. After a clean end nothing is left to do. Standard library only;
runs with `python -I -S`, in a session of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Note what is told until the input ends, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    paths: list[str] = []
    for line in sys.stdin:
        verb, _, argument = line.rstrip("\n").partition(" ")
        if verb == "group":
            groups.add(int(argument))
        elif verb == "forget":
            groups.discard(int(argument))
        elif verb == "path":
            paths.append(argument)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    main()
