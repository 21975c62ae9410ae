"""Results as entries of a table: what Celery calls keys and values.

A stored value is one byte that tells what it is, one that tells how it is encoded, and what Celery
encoded.

====  ==============================================================================
byte  value
====  ==============================================================================
S     a task that succeeded: final, a late or repeated task does not overwrite it
F     a task that failed
O     a task that ended in another way: revoked, rejected
T     a task that has not ended
I     a part of a chord whose task ignores its result: for the callback only
V     anything else: groups
====  ==============================================================================

Writing a result is a ``compare_and_set`` that looks at the first byte only, without decoding and
without a race. The second byte lets a reader whose ``result_serializer`` is another one still read
the value, or refuse it: content that is not in ``accept_content`` is never decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from json import JSONDecoder
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import BackendStoreError
from kombu.serialization import loads
from kombu.utils import json
from kombu.utils.encoding import bytes_to_str

from celeriac.celery.broker import open_broker
from celeriac.celery.fastjson import encoder
from celeriac.celery.options import RESULT_OPTIONS, checked
from celeriac.celery.waiting import LISTENERS, Waiting
from celeriac.errors import CeleriacError, ConfigurationError

try:
    from celery.backends.base import decompress_payload  # since Celery 5.7
except ImportError:

    def decompress_payload(payload: Any) -> Any:
        """Nothing is compressed."""
        return payload


if TYPE_CHECKING:
    from celeriac.celery.broker import Broker
    from celeriac.store import Store
    from celeriac.table import Table

__all__ = ["FINAL", "HIDDEN", "ResultTable", "first_byte"]

SUCCESS, FAILURE, OTHER, UNREADY, VALUE = b"S", b"F", b"O", b"T", b"V"
FINAL = (SUCCESS, FAILURE, OTHER)

#: How a result begins that is there for the callback only.
HIDDEN = b"I"

#: How a value is encoded; what isn't here is for readers with the same result_serializer.
JSON = b"j"
ENCODINGS = {
    JSON: ("application/json", "utf-8"),
    b"p": ("application/x-python-serialize", "binary"),
    b"m": ("application/x-msgpack", "binary"),
    b"y": ("application/x-yaml", "utf-8"),
}
UNKNOWN = b"o"

_dumps = encoder(",", ":")
_loads = JSONDecoder().decode


class ResultTable(Waiting, KeyValueStoreBackend):
    """The part of a result backend that stores. Thread-safe, fork-safe."""

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app=app, url=url, **kwargs)
        self._broker: Broker | None = None
        self._table: Table | None = None
        failure_expires = self.app.conf.get("result_failure_expires")
        self.failure_expires = (
            self.expires if failure_expires is None else self.prepare_expires(failure_expires)
        )
        kinds = {content_type: kind for kind, (content_type, _) in ENCODINGS.items()}
        self._kind = kinds.get(self.content_type, UNKNOWN)
        self._takes_json = self.accept is None or ENCODINGS[JSON][0] in self.accept
        self._joining = threading.local()
        #: Seconds, or None for ever: results; what chords need; results while a chord needs them.
        # chord_expires came with Celery 5.7
        self.ttl = _ttl(self.expires)
        self.chord_ttl = _ttl(getattr(self, "chord_expires", self.expires))
        self.chord_result_ttl = _ttl(getattr(self, "_chord_result_expires", self.expires))

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

    @property
    def store(self) -> Store:
        """The store of :attr:`table`."""
        if self._broker is None or not self._broker.usable():
            _ = self.table
        assert self._broker is not None
        return self._broker.store

    # --- keys and values ------------------------------------------------------------------

    def get(self, key: bytes) -> Any:
        """The stored value of a key, or None."""
        return self._content(self.table.get(key), self._sees_parts())

    def mget(self, keys: Iterable[bytes]) -> list[Any]:
        """The stored values of several keys, in their order, None for the missing."""
        return self.stored(list(keys), self._sees_parts())

    def stored(self, keys: list[bytes], parts: bool) -> list[Any]:
        """The same; with ``parts`` also results that are there for a chord only."""
        found = self.table.get_many(keys)
        parts = parts or self._sees_parts()
        return [self._content(found.get(key), parts) for key in keys]

    @staticmethod
    def _content(value: Any, parts: bool) -> Any:
        if not isinstance(value, bytes):
            return value  # None; or a counter, which has no first byte
        return None if value.startswith(HIDDEN) and not parts else value[1:]

    def _sees_parts(self) -> bool:
        return getattr(self._joining, "parts", False)

    @contextmanager
    def seeing_parts(self) -> Iterator[None]:
        """In here results are seen that are there for a chord only."""
        self._joining.parts = True
        try:
            yield
        finally:
            self._joining.parts = False

    def set(self, key: bytes, value: bytes | str) -> None:
        """Store a value until ``result_expires``."""
        self.table.set(key, VALUE + _as_bytes(value), ttl=self.ttl)

    def _set_with_state(self, key: bytes, value: bytes | str, state: str) -> bool:
        """Store a task's state, unless it has succeeded already; False in that case."""
        if not key.startswith(self.task_keyprefix):
            self.set(key, value)
            return True
        return self._put(key, first_byte(state) + _as_bytes(value), self._ttl_of(state))

    def _ttl_of(self, state: str) -> float | None:
        return _ttl(self.failure_expires) if state == states.FAILURE else self.ttl

    def _put(self, key: bytes, content: bytes, ttl: float | None) -> bool:
        """Crash-safe: one compare-and-set."""
        table = self.table
        while True:
            old, version = table.get_versioned(key)
            if isinstance(old, bytes):
                first = old[:1]
                if first == SUCCESS or (first in FINAL and content.startswith(HIDDEN)):
                    return False
            if table.compare_and_set(key, version, content, ttl=ttl):
                if LISTENERS in table:
                    self.ring()
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
                if table.add(key, 1, ttl=self.chord_ttl):
                    return 1

    def expire(self, key: bytes, value: float | None) -> None:
        """Let a key live for ``value`` seconds from now; 0 or None keeps it for ever."""
        ttl = _ttl(value)
        if ttl is None:
            self.table.persist(key)
        else:
            self.table.expire(key, ttl)

    def encode(self, data: Any) -> bytes:
        """Encode by ``result_serializer``, behind a byte that says so."""
        if self.compression or self.encoder is not json.dumps:
            return self._kind + _as_bytes(super().encode(data))
        try:
            return self._kind + _dumps(data).encode()  # the same without kombu's detours
        except Exception:
            return self._kind + _as_bytes(super().encode(data))  # raises kombu's EncodeError

    def decode(self, payload: Any) -> Any:
        """Decode what :meth:`encode` made, here or where another serializer is set.

        Raises:
            kombu.exceptions.ContentDisallowed: its content type is not accepted here.
        """
        if payload is None:
            return None
        kind, encoded = payload[:1], payload[1:]
        if kind == JSON and encoded[:1] == b"{" and b"__type__" not in encoded and self._takes_json:
            with suppress(ValueError):  # damaged: kombu's error says so
                return _loads(encoded.decode())  # the same without kombu's detours
        if kind == self._kind or kind not in ENCODINGS:
            return super().decode(encoded)
        content_type, encoding = ENCODINGS[kind]
        return loads(decompress_payload(encoded), content_type, encoding, accept=self.accept)

    # --- results --------------------------------------------------------------------------

    def _get_result_meta(
        self,
        result: Any,
        state: str,
        traceback: Any,
        request: Any,
        format_date: bool = True,
        encode: bool = False,
    ) -> Any:
        """As Celery's, which looks ``result_extended`` up in a way that takes a fifth of it all."""
        if encode or not format_date or self.app.conf.result_extended:
            return super()._get_result_meta(result, state, traceback, request, format_date, encode)
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": self.app.now().isoformat() if state in states.READY_STATES else None,
        }
        if request:
            if getattr(request, "group", None):
                meta["group_id"] = request.group
            if getattr(request, "parent_id", None):
                meta["parent_id"] = request.parent_id
        return meta

    def _encoded_result(
        self, task_id: str, result: Any, state: str, traceback: Any, request: Any
    ) -> bytes:
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        return self.encode(meta)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        encoded = self._encoded_result(task_id, result, state, traceback, request)
        ttl = self._ttl_of(state)
        if request and getattr(request, "chord", None) and ttl is not None:
            ttl = None if self.chord_result_ttl is None else max(ttl, self.chord_result_ttl)
        try:
            self._put(self.get_key_for_task(task_id), first_byte(state) + encoded, ttl)
        except CeleriacError as exc:
            raise BackendStoreError(str(exc), state=state, task_id=task_id) from exc
        return result

    def put_result(self, task_id: str, content: bytes) -> None:
        """Store the result of a chord's part, encoded already, unless it has succeeded."""
        try:
            self._put(self.get_key_for_task(task_id), content, self.chord_result_ttl)
        except CeleriacError as exc:
            raise BackendStoreError(str(exc), task_id=task_id) from exc

    def end_part(self, task_id: str) -> None:
        """A chord needs a part's result no more."""
        key = self.get_key_for_task(task_id)
        value, version = self.table.get_versioned(key)
        if not isinstance(value, bytes):
            return
        if value.startswith(HIDDEN):
            self.table.compare_and_delete(key, version)
        else:
            self.expire(key, self.failure_expires if value[:1] == FAILURE else self.expires)

    def fail(self, *args: Any) -> None:
        """What Celery does for a failed task."""
        super().mark_as_failure(*args)


def _ttl(seconds: float | None) -> float | None:
    return float(seconds) if seconds else None


def first_byte(state: str) -> bytes:
    """What a task in that state is stored as, if others may see it."""
    if state == states.SUCCESS:
        return SUCCESS
    if state == states.FAILURE:
        return FAILURE
    return OTHER if state in states.READY_STATES else UNREADY


def _as_bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
