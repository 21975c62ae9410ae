"""Who uses the queues with ``x-expires``, and which of them nobody has used for long enough.

One entry of the table ``celeriac.celery.uses`` for each such queue, as JSON: under ``""`` when it
was last used (declared, looked at, left by a consumer), and each consumer by the name under which
the kernel's word about its process is to be had. A consumer whose process died is found by who
looks next, and the queue counts as used until then: the time of the death is nobody's knowledge.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celeriac.store import Store

__all__ = ["Uses"]


class Uses:
    """The table. Thread-safe, fork-safe."""

    def __init__(self, store: Store) -> None:
        self._core = store._core
        self._table = store.table("celeriac.celery.uses")

    def touch(self, queue: str) -> None:
        """Somebody uses a queue now."""
        self._change(queue, lambda users: {**users, "": time.time()})

    def enter(self, queue: str) -> Callable[[], None]:
        """A consumer of this process uses a queue until what this returns is called."""
        user = f"{self._core.identity()} {secrets.token_hex(4)}"
        self._change(queue, lambda users: {**users, user: 1})

        def left(users: dict[str, float]) -> dict[str, float]:
            return {**{k: v for k, v in users.items() if k != user}, "": time.time()}

        return lambda: self._change(queue, left)

    def forget(self, queue: str) -> None:
        """The queue is gone."""
        self._table.delete(queue)

    def is_over(self, queue: str, seconds: float) -> bool:
        """Whether nobody has used a queue for that time."""
        users: dict[str, float] = json.loads(self._table.get(queue, "{}"))
        dead = {u for u in users if u and not self._core.is_alive(u.partition(" ")[0])}
        if dead:
            now = time.time()
            self._change(queue, lambda old: {**{k: old[k] for k in old.keys() - dead}, "": now})
            return False
        return users.keys() == {""} and time.time() - users[""] >= seconds

    def _change(self, queue: str, change: Callable[[dict[str, float]], dict[str, float]]) -> None:
        while True:
            text, version = self._table.get_versioned(queue)
            users = json.dumps(change(json.loads(text or "{}")))
            if self._table.compare_and_set(queue, version, users):
                return
