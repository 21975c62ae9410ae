"""Every worker watches over the chords' parts that a killed process has left undone.

A thread of the worker's main process sleeps on an entry of the result table. The death of any
process of the store ends the sleep, as it ends every sleep of the store's; then the thread looks
for intents of the dead (:mod:`celeriac.celery.chords`) and carries them out. Nothing wakes it while
nobody dies. Under gevent and eventlet, where such a sleep would be a clock's, it looks once a
second.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import signals
from kombu.log import get_logger
from kombu.utils.compat import detect_environment

from celeriac.celery.waiting import BELL
from celeriac.errors import CeleriacError

__all__ = ["ChordWatch", "install"]

logger = get_logger(__name__)

#: Longest sleep, in seconds. Only a bound on how late a store is noticed that was destroyed and
#: made anew.
LONGEST_WAIT = 300.0


class ChordWatch(threading.Thread):
    """The thread of one worker."""

    def __init__(self, app: Any) -> None:
        super().__init__(name="celeriac-chords", daemon=True)
        self.app = app
        self.stopped = False

    def run(self) -> None:
        """Look, sleep, look."""
        backend = self.app.backend  # this thread's own
        green = detect_environment() != "default"
        while not self.stopped:
            try:
                table = backend.table
                seen = table.change_count(BELL)
                backend.chords.recover()
                if self.stopped:
                    return
                if green:
                    time.sleep(1.0)
                else:
                    table.wait_for_change(BELL, seen, LONGEST_WAIT)
            except CeleriacError as exc:  # the store was destroyed, or is full
                logger.warning("chords of dead workers can't be looked for: %s", exc)
                time.sleep(1.0)

    def stop(self) -> None:
        """End the thread, so that the process can close its store."""
        self.stopped = True
        try:
            self.app.backend.ring()
        except CeleriacError:  # no store, nobody sleeps in it
            return
        if detect_environment() == "default":
            self.join(2.0)


_watch: ChordWatch | None = None


def install() -> None:
    """Start a watch with every worker of this process whose results are in a store. Idempotent.

    Called by the result backend and by the transport, since a worker's main process need not load
    the former.
    """
    signals.worker_ready.connect(_start, weak=False, dispatch_uid="celeriac.celery.chords")
    signals.worker_shutdown.connect(_stop, weak=False, dispatch_uid="celeriac.celery.chords")


def _start(sender: Any = None, **kwargs: Any) -> None:
    global _watch
    app = getattr(sender, "app", None)
    if app is None or not str(app.conf.result_backend or "").startswith("celeriac"):
        return
    if _watch is None or not _watch.is_alive():
        _watch = ChordWatch(app)
        _watch.start()


def _stop(**kwargs: Any) -> None:
    global _watch
    watch, _watch = _watch, None
    if watch is not None and watch.is_alive():
        watch.stop()
