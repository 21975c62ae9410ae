"""Waiting for messages, in a blocking loop and in kombu's event loop.

One connection has one *waiter* of the store: a descriptor that becomes readable when one of the
watched queues may have something. Beside it stands an eventfd, the *nudge*: this process writes
it when there is reason to look again and no message has arrived, for instance when a thread has
acknowledged the message that filled the prefetch window.

The protocol with the store, each turn:

1. Watch exactly the queues whose consumers may be given a message now. A queue whose channel is
   full is not watched, so that its messages wake somebody else.
2. ``arm()``. True: nothing is ready, and the descriptor will become readable as soon as something
   is; go to sleep. False: something is ready already; fetch it first.
3. When the descriptor is readable, ``drain()``, then fetch.

Between 2 and 3 nothing is done at all: an idle worker is not woken.

Thread-safety: only :meth:`Poller.nudge` may be called from another thread than the consuming one.
After a fork the child must make its own (:attr:`Poller.pid` tells).
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

from celeriac.errors import StoreNotFound

if TYPE_CHECKING:
    from celeriac.queue import Queue
    from celeriac.store import Store

__all__ = ["Poller"]


class Poller:
    """The waiter of one connection and its nudge."""

    def __init__(self, store: Store) -> None:
        self.pid = os.getpid()
        self.armed = False
        self._waiter = store.waiter()
        self._watched: dict[str, Queue] = {}
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._nudged = False

    def fileno(self) -> int:
        """The waiter's descriptor."""
        return int(self._waiter.fileno())

    def nudge_fileno(self) -> int:
        """The nudge's descriptor."""
        return self._nudge

    def watch(self, queues: dict[str, Queue]) -> None:
        """Watch exactly these queues."""
        watched = self._watched
        if queues.keys() == watched.keys():
            return
        for name in watched.keys() - queues.keys():
            with suppress(StoreNotFound):
                self._waiter.unwatch(watched.pop(name))
        for name in queues.keys() - watched.keys():
            with suppress(StoreNotFound):  # gone: nothing will come, and fetching will tell
                self._waiter.watch(queues[name])
            watched[name] = queues[name]
        self.disarm()

    def arm(self) -> bool:
        """Park; False when something is ready that has to be fetched first."""
        if not self.armed:
            self.armed = bool(self._waiter.arm())
        return self.armed

    def disarm(self) -> None:
        """Not waiting now: let others be woken instead."""
        if self.armed:
            self.armed = False
            with suppress(StoreNotFound):
                self._waiter.disarm()

    def drain(self) -> None:
        """Take a wake-up."""
        self.armed = False
        self._waiter.drain()

    def nudge(self) -> None:
        """Make the consuming thread look again. From any thread."""
        if not self._nudged:
            self._nudged = True
            with suppress(OSError):
                os.eventfd_write(self._nudge, 1)

    def take_nudge(self) -> None:
        """Take the nudge, if there is one."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._nudge)
        # In this order: a nudge that is dropped in between is answered by the look that follows.
        self._nudged = False

    def sleep(self, timeout: float | None) -> None:
        """Block until there may be something, a nudge came, or ``timeout`` seconds are over."""
        timeout_ms = None if timeout is None else max(int(timeout * 1000 + 0.999), 0)
        if self._watched and not self.arm():
            return
        poll = select.poll()
        poll.register(self._nudge, select.POLLIN)
        poll.register(self.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout_ms)}
        if self._nudge in ready:
            self.take_nudge()
        if self.fileno() in ready:
            self.drain()
        else:
            self.disarm()

    def close(self) -> None:
        """Give the descriptors back. In a forked child the waiter is the parent's and stays."""
        if self._nudge < 0:
            return
        os.close(self._nudge)
        self._nudge = -1
        if self.pid == os.getpid():
            self.disarm()
            self._waiter.close()
