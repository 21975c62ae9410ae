"""Celery's result backend in a table of a celeriac store.

``result_backend = "celeriac+shm://app"``. Results live beside the queues, are never evicted and
expire after ``result_expires``. Whoever waits for one is woken when it is written: waiting costs
no polling, and a result is seen as soon as it is there.

A stored value is one byte and what Celery encoded. The byte tells whether the value is a task's
success, so that a late or repeated task cannot overwrite it: writing is a ``compare_and_set``
that looks at that byte only, without decoding and without a race.

====  =========================================
byte  value
====  =========================================
S     a task that succeeded
T     a task in another state
V     anything else: groups, chord counters
====  =========================================

Counters of chords are plain integers of the table.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError, TimeoutError
from kombu.utils.compat import detect_environment
from kombu.utils.encoding import bytes_to_str

from celeriac.celery.broker import open_broker
from celeriac.celery.options import RESULT_OPTIONS, checked
from celeriac.celery.transport import hide_password
from celeriac.errors import CeleriacError, ConfigurationError, ServerUnavailable, StoreNotFound

if TYPE_CHECKING:
    from celeriac.celery.broker import Broker
    from celeriac.table import Table

__all__ = ["ResultBackend"]

SUCCESS, TASK, VALUE = b"S", b"T", b"V"

#: Longest single wait, in seconds. Only a bound on how late a deadline that was computed from a
#: clock set back is noticed; nothing is polled.
LONGEST_WAIT = 60.0


class ResultBackend(KeyValueStoreBackend):
    """Results, groups and chord counters. Thread-safe, fork-safe; pickles as its URL."""

    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True
    implements_incr = True
    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        self._broker: Broker | None = None
        self._table: Table | None = None
        failure_expires = self.app.conf.get("result_failure_expires")
        self.failure_expires = (
            self.expires if failure_expires is None else self.prepare_expires(failure_expires)
        )

    @property
    def table(self) -> Table:
        """The table ``celeriac.celery.results`` of the store, opened on first use.

        Raises:
            ConfigurationError: the URL names no store, or its engine does not exist.
        """
        if self._table is None or self._broker is None or not self._broker.usable():
            url = (self.url or "").removeprefix("celeriac+")
            if "://" not in url or url.startswith("celeriac:"):
                raise ConfigurationError(
                    f"result_backend {self.url!r} names no store; write celeriac+shm://NAME"
                )
            options = self.app.conf.get("result_backend_transport_options")
            self._broker = open_broker(url, checked(options, RESULT_OPTIONS))
            self._table = self._broker.store.table("celeriac.celery.results")
        return self._table

    # --- keys and values ------------------------------------------------------------------

    def get(self, key: bytes) -> Any:
        """The stored value of a key, or None."""
        return _content(self.table.get(key))

    def mget(self, keys: Iterable[bytes]) -> list[Any]:
        """The stored values of several keys, in their order, None for the missing."""
        wanted = list(keys)
        found = self.table.get_many(wanted)
        return [_content(found.get(key)) for key in wanted]

    def set(self, key: bytes, value: bytes | str) -> None:
        """Store a value until ``result_expires``."""
        self.table.set(key, VALUE + _as_bytes(value), ttl=self._ttl(self.expires))

    def _set_with_state(self, key: bytes, value: bytes | str, state: str) -> bool:
        """Store a task's state, unless it has succeeded already; False in that case."""
        if not key.startswith(self.task_keyprefix):
            self.set(key, value)
            return True
        content = (SUCCESS if state == states.SUCCESS else TASK) + _as_bytes(value)
        ttl = self._ttl(self.failure_expires if state == states.FAILURE else self.expires)
        table = self.table
        while True:
            old, version = table.get_versioned(key)
            if isinstance(old, bytes) and old[:1] == SUCCESS:
                return False
            if table.compare_and_set(key, version, content, ttl=ttl):
                return True

    def delete(self, key: bytes) -> None:
        """Remove a key. Missing is fine."""
        self.table.delete(key)

    def incr(self, key: bytes) -> int:
        """Count up from 0; returns the new value."""
        table = self.table
        while True:
            try:
                return int(table.incr(key))
            except ValueError:
                # chord_expires came with Celery 5.7
                expires = getattr(self, "chord_expires", self.expires)
                if table.add(key, 1, ttl=self._ttl(expires)):
                    return 1

    def expire(self, key: bytes, value: float | None) -> None:
        """Let a key live for ``value`` seconds from now; 0 or None keeps it for ever."""
        ttl = self._ttl(value)
        if ttl is None:
            self.table.persist(key)
        else:
            self.table.expire(key, ttl)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        try:
            self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        except CeleriacError as exc:
            raise BackendStoreError(str(exc), state=state, task_id=task_id) from exc
        return result

    # --- waiting --------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """Wait until a task is ready; returns its meta data.

        ``interval`` is only how often ``on_interval`` is called.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in ``timeout`` seconds.
        """
        for _, meta in self.get_many(
            [task_id], timeout=timeout, interval=interval, on_interval=on_interval
        ):
            return meta
        raise TimeoutError("The operation timed out.")

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta) of tasks as they get ready.

        Sleeps on the first one that is missing. The last of a set is always the one slept on,
        so the set is complete as soon as its last result is written; when several are missing,
        those behind the first are looked for every ``interval`` seconds.

        Raises:
            celery.exceptions.TimeoutError: not all were ready in ``timeout`` seconds.
        """
        self._ensure_not_eager()
        interval = interval or 0.5
        deadline = None if timeout is None else time.monotonic() + timeout
        next_interval = time.monotonic() + interval
        pending = dict.fromkeys(bytes_to_str(task_id) for task_id in task_ids)
        for task_id in list(pending):
            cached = self._cached(task_id, READY_STATES)
            if cached is not None:
                del pending[task_id]
                yield task_id, cached
        iterations = 0
        while pending:
            first = self.get_key_for_task(next(iter(pending)))
            seen = self.table.change_count(first)  # before looking: what comes later wakes us
            ready = self._ready(list(pending), READY_STATES)
            for task_id, meta in ready:
                del pending[task_id]
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            if not pending:
                return
            if ready:
                continue
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"Operation timed out ({timeout})")
            if now >= next_interval:
                next_interval = now + interval
                iterations += 1
                if on_interval is not None:
                    on_interval()
                if max_iterations and iterations >= max_iterations:
                    return
            wake = next_interval if len(pending) > 1 or _does_anything(on_interval) else None
            if max_iterations:
                wake = next_interval
            self._sleep_until_change(first, seen, now, wake, deadline)

    def _cached(self, task_id: str, ready_states: frozenset[str]) -> Any:
        try:
            meta = self._cache[task_id]
        except KeyError:
            return None
        return meta if meta["status"] in ready_states else None

    def _ready(self, task_ids: list[str], ready_states: frozenset[str]) -> list[tuple[str, Any]]:
        values = self.mget([self.get_key_for_task(task_id) for task_id in task_ids])
        ready = []
        for task_id, value in zip(task_ids, values, strict=True):
            if value:
                meta = self.decode_result(value)
                if meta["status"] in ready_states:
                    if meta["status"] == states.SUCCESS:
                        self._cache[task_id] = meta
                    ready.append((task_id, meta))
        return ready

    def _sleep_until_change(
        self, key: bytes, seen: int, now: float, wake: float | None, deadline: float | None
    ) -> None:
        until = min(t for t in (wake, deadline, now + LONGEST_WAIT) if t is not None)
        timeout = max(until - now, 0.0)
        if detect_environment() == "default":
            self.table.wait_for_change(key, seen, timeout)
        else:  # a green thread must not block the others: there is only the clock to wait on
            time.sleep(min(timeout, 0.05))

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

    @staticmethod
    def _ttl(seconds: float | None) -> float | None:
        return float(seconds) if seconds else None


def _as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _content(value: Any) -> Any:
    """What was stored, without its tag byte; counters are integers and have none."""
    return value[1:] if isinstance(value, bytes) else value


def _does_anything(on_interval: Any) -> bool:
    """Whether calling it matters: Celery passes an empty promise when nobody asked for it."""
    if on_interval is None:
        return False
    listeners = getattr(on_interval, "listeners", ())
    return bool(getattr(on_interval, "fun", True) or any(each is not None for each in listeners))
