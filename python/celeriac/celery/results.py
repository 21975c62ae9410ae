"""Celery's result backend in a table of a celeriac store.

``result_backend = "celeriac+shm://app"``. Results live beside the queues, are never evicted and
expire by themselves after ``result_expires`` (:mod:`celeriac.celery.result_table`). Whoever waits
for one is woken when it is written (:mod:`celeriac.celery.waiting`); chords survive the death of
any worker (:mod:`celeriac.celery.chords`).
"""

from __future__ import annotations

from typing import Any

from celery import states
from celery.exceptions import WorkerLostError

from celeriac.celery import chord_watch, task_counts
from celeriac.celery.chords import FAILED, FIELDS, RETURNED, Chords
from celeriac.celery.result_table import FINAL, HIDDEN, ResultTable, first_byte
from celeriac.celery.transport import hide_password
from celeriac.errors import ServerUnavailable, StoreNotFound

__all__ = ["ResultBackend"]


class ResultBackend(ResultTable):
    """Results, groups and chords. Thread-safe, fork-safe; pickles as its URL."""

    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True
    implements_incr = False  # it does, but chords here don't count
    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        self.chords = Chords(self)
        chord_watch.install()
        task_counts.install()  # a pool may be forked before there is a connection

    # --- chords ---------------------------------------------------------------------------

    def recover(self) -> int:
        """Carry out what the dead have left undone of chords; how many parts that were."""
        return self.chords.recover()

    def apply_chord(self, header_result_args: tuple[str, Any], body: Any, **kwargs: Any) -> None:
        """A chord is about to be sent."""
        group_id, results = header_result_args
        self.chords.begin(group_id, results, body)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """How many parts a chord has; known before the last one is sent."""
        self.chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """A chord has one more part than it began with."""
        self.chords.add(chord_id, result.id)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """A task has succeeded; of a part of a chord that is the protocol's begin."""
        if not (request and request.chord and request.group):
            super().mark_as_done(task_id, result, request, store_result, state)
            return
        shown = store_result and not request.ignore_result
        self._return_part(task_id, self.encode_result(result, state), state, request, shown)

    def _return_part(
        self, task_id: str, result: Any, state: str, request: Any, shown: bool
    ) -> None:
        encoded = self._encoded_result(task_id, result, state, None, request)
        content = (first_byte(state) if shown else HIDDEN) + encoded
        with self.chords.intending(RETURNED, task_id, request, content):
            self._ensure_retryable(self.put_result, task_id, content)
            self.chords.count(
                request.group, task_id, request.group_index, not shown, lambda: request.chord
            )

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """A task has failed, and with it what waits behind it."""
        if not (request and (request.chord or request.chain)):
            self.fail(task_id, exc, traceback, request, store_result, call_errbacks, state)
            return
        if isinstance(exc, WorkerLostError):
            self.chords.settle(task_id)
        fields = {name: getattr(request, name, None) for name in FIELDS}
        error = self.encode_result(exc, state)
        meta = {"status": state, "result": error, "traceback": traceback}
        rest = self.encode([fields, meta, store_result, call_errbacks])
        with self.chords.intending(FAILED, task_id, request, b"", rest):
            self.fail(task_id, exc, traceback, request, store_result, call_errbacks, state)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A part of a chord has ended, in another way than by :meth:`mark_as_done`."""
        task_id, group_id = request.id, request.group
        if not group_id or not task_id:
            return
        encoded = self.encode_result(result, state)
        stored = self.table.get(self.get_key_for_task(task_id))
        shown = isinstance(stored, bytes) and stored[:1] in FINAL
        self._return_part(task_id, encoded, state, request, shown)

    # --- the rest -------------------------------------------------------------------------

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether ``result_backend_always_retry`` may repeat what failed with ``exc``."""
        return isinstance(exc, ServerUnavailable | StoreNotFound)

    def as_uri(self, include_password: bool = False) -> str:
        """The backend's URL for logs, its password masked."""
        url = (self.url or "").removeprefix("celeriac+")
        return f"celeriac+{url if include_password else hide_password(url)}"

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return super().__reduce__(
            args,
            {
                **(kwargs or {}),
                "url": self.url,
                "expires": self.expires,
                "serializer": self.serializer,
            },
        )
