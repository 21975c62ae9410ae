"""The part of a store that makes locks, semaphores and leaders."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac import checks
from celeriac.concurrency import ConcurrencyInfo
from celeriac.errors import ConfigurationError
from celeriac.leaders import Leader
from celeriac.lock_base import LockInfo
from celeriac.locks import Lock, Semaphore

if TYPE_CHECKING:
    from celeriac import _core

MOST_NAME_BYTES = 1000


class StoreLocks:
    """What :class:`celeriac.Store` has for locks."""

    _core: _core.Store

    @property
    def path(self) -> str:
        """The directory of the store."""
        return self._core.path

    def lock(
        self,
        name: str,
        ttl: float | None = None,
        reentrant: bool = False,
        *,
        timeout: float | None = None,
        renew: bool = False,
        on_lost: Callable[[Any], object] | None = None,
    ) -> Lock:
        """A lock by name, for all threads and processes of the host, first come first served.

        :param ttl: seconds, above zero, after which it ends unless renewed; None: it is held until
            released, or until the process dies, when the next has it within milliseconds.
        :param reentrant: the thread that holds it may acquire it again, by any reentrant handle,
            and releases it as often.
        :param timeout: seconds that ``with`` waits before it raises LockTimeout, and ``acquire()``
            when it is given none; None: for ever.
        :param renew: whether the lease is renewed, by a thread, for as long as it is held and the
            process isn't stopped; then ``ttl`` says how soon another has the lock of one that is.
        :param on_lost: called with the lock, in a thread of its own, when its lease ends while it
            is held; with ``renew`` when it couldn't be renewed in time.

        Raises TypeError, ValueError; ConfigurationError for a name that isn't 1 to 1,000 bytes.
        Locks aren't evicted when memory is short, and take none while nobody holds or waits.
        """
        core = self._core.lock(_named("lock", name), 1)
        asked = {"ttl": ttl, "timeout": timeout, "on_lost": on_lost, "renew": renew}
        again = functools.partial(self.lock, name, reentrant=reentrant, **asked)  # type: ignore[arg-type]
        return Lock(core, self.path, name, again, ttl, timeout, on_lost, renew, reentrant=reentrant)

    def semaphore(
        self,
        name: str,
        permits: int,
        *,
        ttl: float | None = None,
        timeout: float | None = None,
        renew: bool = False,
        on_lost: Callable[[Any], object] | None = None,
    ) -> Semaphore:
        """A semaphore by name: at most ``permits`` (1 to 65,535) are held at once on the host.

        Raises ConfigurationError, here and when acquiring, while others hold it or wait for it
        with another number of permits. For the rest see `lock`.
        """
        checks.whole(permits, "permits", 1, 65_535)
        core = self._core.lock(_named("semaphore", name), permits)
        asked = {"ttl": ttl, "timeout": timeout, "on_lost": on_lost, "renew": renew}
        again = functools.partial(self.semaphore, name, permits, **asked)  # type: ignore[arg-type]
        return Semaphore(
            core, self.path, name, again, ttl, timeout, on_lost, renew, permits=permits
        )

    def leader(
        self,
        name: str,
        *,
        ttl: float | None = None,
        timeout: float | None = None,
        renew: bool = False,
    ) -> Leader:
        """An election by name: of all processes that ask, one leads, and the others wait.

        With a ``ttl`` a leader that hangs, and so doesn't renew, is followed by the next as well.
        For the rest see `lock`.
        """
        core = self._core.lock(_named("leader", name), 1)
        again = functools.partial(self.leader, name, ttl=ttl, timeout=timeout, renew=renew)
        return Leader(core, self.path, name, again, ttl, timeout, None, renew)

    def locks(self) -> list[LockInfo]:
        """All who hold a lock, a semaphore or a leadership, or wait for one; in no order."""
        found = []
        for one in self._core.locks():
            kind, _, name = one.pop("name").partition(":")
            found.append(LockInfo(kind=kind, name=name, **one))
        return found

    def concurrencies(self) -> list[ConcurrencyInfo]:
        """All concurrency limits that somebody is in; in no order."""
        return [ConcurrencyInfo._make(one) for one in self._core.concurrencies()]

    def _locks_by_name(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for one in self.locks():
            counts = found.setdefault(f"{one.kind} {one.name}", {"holders": 0, "waiting": 0})
            counts["holders" if one.holds else "waiting"] += 1
        return dict(sorted(found.items()))


def _named(kind: str, name: object) -> str:
    """What the core knows it by. Raises TypeError, ConfigurationError, UnicodeEncodeError."""
    size = len(checks.text(name, f"the name of a {kind}").encode())
    if not 1 <= size <= MOST_NAME_BYTES:
        raise ConfigurationError(
            f"the name of a {kind} has 1 to {MOST_NAME_BYTES} bytes, this one has {size}"
        )
    return f"{kind}:{name}"
