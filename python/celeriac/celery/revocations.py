"""Tasks that were revoked while they wait in the store for their ETA.

``app.control.revoke(id)`` tells the workers that run at this moment, and each keeps the id in its
memory, for three hours. That is right for tasks that a worker holds. Those with an ETA are in the
store here, perhaps for days, and the worker that gets one when it is due may be another, or a later
one. So the transport overhears the command where it is published, by whichever program, and notes
the ids in the table ``celeriac.celery.revoked``, whether a worker runs or not. Who takes a task
with an ETA looks there and, in a worker, adds the id to those that it drops, just before it hands
the message on: the task ends as revoked in the way that Celery ends it, with its state, its signal
and its event, when it is due and not before. Other tasks cost no look.

At most :data:`MOST` ids are kept, for :data:`SECONDS`; beyond that the oldest go.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger
from kombu.serialization import loads

from celeriac.errors import NotEnoughMemory

if TYPE_CHECKING:
    from celeriac.table import Table

__all__ = ["Revocations"]

logger = get_logger(__name__)

#: What the name of the exchange ends with that carries Celery's remote control.
CONTROL = ".pidbox"

MOST = 50_000

SECONDS = 90 * 86_400.0


class Revocations:
    """The table. Thread-safe, fork-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __contains__(self, task_id: object) -> bool:
        return isinstance(task_id, str) and task_id in self._table

    def overhear(self, exchange: str, message: dict[str, Any]) -> None:
        """Look at a message that is published, and note what it revokes."""
        if not exchange.endswith(CONTROL):
            return
        content_type = message["content-type"]
        try:
            payload = loads(
                message["body"], content_type, message["content-encoding"], accept={content_type}
            )
            if payload["method"] != "revoke":
                return
            given = payload["arguments"]["task_id"]
        except Exception:  # whatever it is, it is no command to revoke
            return
        self.note([given] if isinstance(given, str) else given)

    def note(self, task_ids: Iterable[Any]) -> None:
        """Revoke tasks that wait."""
        ids = [task_id for task_id in task_ids if isinstance(task_id, str) and task_id]
        try:
            excess = len(self._table) + len(ids) - MOST
            if excess > 0:
                oldest = sorted(self._table.items(), key=lambda item: float(item[1]))
                for key, _ in oldest[: excess + MOST // 10]:
                    self._table.delete(key)
            for task_id in ids[-MOST:]:
                self._table.set(task_id, time.time(), SECONDS)
        except NotEnoughMemory as error:  # the workers were told, which is what Celery promises
            logger.warning("Revoked tasks that wait are not noted: %s", error)
