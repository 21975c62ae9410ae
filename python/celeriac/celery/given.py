"""A warm stop waits for the tasks that the pool's processes were already given.

When a prefork worker stops, Celery forgets the tasks that no process of its pool has yet said to
have accepted: the broker will deliver them again. But a process that a task was written to runs
it, whether or not the parent has read so; then the task would run twice, with any broker. Here such
a task counts as accepted while Celery forgets the others. The parent reads the rest as usual: that
it was accepted and how it ended, and acknowledges it, as the pool is joined before the connection
is closed. A process that dies before leaves its task unacknowledged; the broker delivers it again.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

__all__ = ["install"]


def install() -> None:
    """Extend the pool that the process has loaded, if it has. Idempotent."""
    pool = getattr(sys.modules.get("celery.concurrency.asynpool"), "AsynPool", None)
    if pool is not None and not hasattr(pool.flush, "celeriac"):
        pool.flush = _keeping_what_was_given(pool.flush)


def _keeping_what_was_given(flush: Any) -> Any:
    @functools.wraps(flush)
    def flush_but_given(pool: Any) -> None:
        given = [job for job in tuple(pool._cache.values()) if _was_given(job)]
        for job in given:
            job._accepted = True
        try:
            flush(pool)
        finally:
            for job in given:
                if job._time_accepted is None:  # else it was read in the meantime
                    job._accepted = False

    flush_but_given.celeriac = True  # type: ignore[attr-defined]
    return flush_but_given


def _was_given(job: Any) -> bool:
    """Whether a living process has been sent a task, if only in part: the rest follows."""
    process = getattr(job, "_write_to", None)
    return process is not None and not job._accepted and process._is_alive()
