"""Run a command that the kernel kills when the demo dies: `launch.py PARENT_PID COMMAND...`.

A program of its own, so that nothing has to run between fork and exec in a process with threads.
Standard library only; runs with `python -I -S`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, make sure that the parent is still there, become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the demo is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
