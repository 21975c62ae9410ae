"""Elections: of many processes one leads; what they have in common with locks is in `lock_base`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from celeriac import green, leases
from celeriac.errors import LockLost, NotOwner
from celeriac.lock_base import FOR_EVER, Named


class Leader(Named):
    """One of many leads; made by :meth:`celeriac.Store.leader`.

    The process leads, by this handle: any of its threads may ask and resign. Acquiring what one
    leads already is True at once. The others wait, and the first of them leads as soon as the
    leader resigns, its ``ttl`` is over, or its process is dead.

    ::

        leader = store.leader("cleanup")
        for token in leader:           # waits to lead; then once for each round, while it leads
            clean(); time.sleep(60)

        with leader: ...               # or as a lock
        leader.campaign(start, stop)   # or in a thread of its own
    """

    __slots__ = ("_campaign", "_lock", "_waits")
    kind = "leader"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()
        self._waits = 0  # the place of a campaign
        self._campaign: threading.Thread | None = None

    def owner_now(self) -> object:
        """The handle: leadership is no thread's."""
        return self

    def again(self, who: object) -> bool:
        """Whether it leads."""
        return self.is_leader

    @property
    def is_leader(self) -> bool:
        """Whether this handle leads now; costs next to nothing. Of a lease that may be over: no."""
        held = self.mine(self)
        return held is not None and time.monotonic() < self._ends(held)

    def __iter__(self) -> Iterator[int]:
        """The fencing token, again and again while this leads; waits while another does.

        When the loop is left, by ``break`` or an exception, it resigns.
        """
        try:
            while True:
                self.acquire(blocking=True)
                token = self.token
                if token is not None:
                    yield token
        finally:
            with suppress(LockLost, NotOwner):
                self.release()

    def campaign(
        self, on_elected: Callable[[int], object], on_lost: Callable[[Leader], object] | None = None
    ) -> None:
        """Wait to lead in a daemon thread, which then calls ``on_elected(token)`` and ends.

        It leads, whatever becomes of that call, until ``release()``, which also ends a campaign
        that waits. An exception of the call is logged, and it resigns.

        :param on_lost: called with this handle when its lease ends without being renewed.

        Raises RuntimeError while a campaign of this handle is under way.
        """
        self.check_campaign(on_elected, on_lost)
        if self._campaign is not None and self._campaign.is_alive():
            raise RuntimeError(f"a campaign for the leader {self.name!r} is under way already")
        place, token = self.core.enter(self.lease)
        self._waits = place
        self._campaign = threading.Thread(
            target=self._run,
            args=(on_elected, place, token),
            name=f"celeriac-leader-{self.name}",
            daemon=True,
        )
        self._campaign.start()

    def check_campaign(self, on_elected: object, on_lost: Callable[[Any], object] | None) -> None:
        """Keeps `on_lost`. Raises TypeError, ValueError."""
        if not callable(on_elected):
            raise TypeError(f"on_elected is a function, not {type(on_elected).__name__}")
        if on_lost is not None:
            self._check_on_lost(on_lost)
            self.on_lost = on_lost

    def _run(self, on_elected: Callable[[int], object], place: int, token: int) -> None:
        try:
            if not token and green.patched():
                token = green.wait(lambda: self.core.wait(place, 0), None)
            elif not token:
                token = self.core.wait(place, FOR_EVER)
        except LockLost:
            return  # resigned
        with self._lock:
            if self._waits != place:
                return  # resigned, as it was granted
            self._waits = 0
            self.keep(self, place, token)
        try:
            on_elected(token)
        except Exception:
            leases.logger.exception("on_elected of the leader %r failed", self.name)
            with suppress(LockLost, NotOwner):
                self.release()

    def give_back(self, who: object) -> None:
        """Resign, or end a campaign. Raises NotOwner, LockLost."""
        with self._lock:
            place, self._waits = self._waits, 0
        if place:
            self.core.leave(place)
        else:
            super().give_back(who)

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"the leader {self.name!r} is not this handle of this process")
