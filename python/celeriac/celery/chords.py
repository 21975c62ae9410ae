"""Chords: the callback of a group, sent once when the last part is done, whoever dies meanwhile.

Celery's own chords on a store of keys and values count parts with a counter, and a worker that is
killed between its result and the count, or between the count and the callback, leaves a chord that
hangs for ever. Here what a part has to do is written down, in one step, before it begins.

Three entries, the first in a table of its own, ``celeriac.celery.parts``, which is as long as there
are processes in the middle of a part; the others in the table of results.

=========  =======================================================  ==============================
entry      holds                                                    there
=========  =======================================================  ==============================
intent     who carries it out, the part, its result as it will be   while a part is being returned
chord      state, size, who sends the callback, the parts returned  from the chord's start until
                                                                    it expires
header     ids of the header's results, the callback                until the callback was sent
=========  =======================================================  ==============================

A part is returned in these steps. Each is one atomic change of one entry, but for *send*.

1. *intent*: the intent is added. From here on the part is done, whoever dies.
2. *result*: the part's result is stored, unless it has one that is a success.
3. *count*: one compare-and-set adds the part to the chord's set of parts, and when that makes it
   complete, writes in the same step that this process sends the callback (**claim**).
4. *send*: the claimant joins the results and publishes the callback.
5. *sent*: the claimant turns the chord to ``done``, and removes the header.
6. *end*: the intent is removed.

- C1  **A killed process's steps are carried out by another.** An intent whose owner is dead, as the
  kernel says, is taken over by compare-and-set and repeated from step 2. Each step may be repeated:
  a success isn't overwritten, the parts are a set, a chord that is done stays so.
- C2  **One sends.** A claim names the intent it was made for, and holds while that is there and its
  owner lives. Whoever repeats the intent has the claim; a part that comes again finds one that
  doesn't hold, and takes it by compare-and-set.
- C3  **Nobody asks a clock.** Intents of the dead are looked for when a worker starts, when any
  process of the store dies (a thread of every worker's main process sleeps until then, see
  :mod:`celeriac.celery.chord_watch`), when a process that waits for a result is woken by that
  death, and when a worker's main process reports that a child of its pool was lost.
- C4  A process that is killed before step 1 has not returned its part. That is a task that died:
  with ``acks_late`` and ``reject_on_worker_lost`` it is delivered again, without them it fails or
  is lost as Celery's settings say, and with it the chord.
- C5  A process that is killed between the publishing and step 5, some microseconds, has sent the
  callback, and another sends it again, **with the same task id**: that is the one way to a doubled
  callback. Of a callback that is several messages (a group, a chord) those that were sent before
  the kill are doubled. The results of the first to succeed stay.
- C6  A part that comes twice (delivered again, late) counts once: parts are told apart by task id
  and place in the header. One that comes when the chord is done does nothing.
- C7  An intent is repeated by processes of an application of the same name only, so that its
  callback is routed and serialized as that application does.

A part of a task that ignores its result stores one all the same, for the callback; it can't be
seen by others and goes with the header.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from celery import states
from celery.app.task import Context
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, TimeoutError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import _regen
from kombu.log import get_logger
from kombu.utils.encoding import bytes_to_str

from celeriac.celery.chord_entry import CLAIMED, DONE, Chord
from celeriac.celery.result_table import HIDDEN, ResultTable

if TYPE_CHECKING:
    from celeriac.store import Store
    from celeriac.table import Table

__all__ = ["FAILED", "FIELDS", "PARTS", "RETURNED", "Chords"]

logger = get_logger(__name__)

#: The table of intents.
PARTS = "celeriac.celery.parts"

#: Seconds that a lost child's task may wait for another process to carry out what it wrote down.
SETTLE_SECONDS = 1.0

#: Seconds that a chord which is done is remembered, for parts that come late, at least.
DONE_SECONDS = 300.0

RETURNED, FAILED = "returned", "failed"

#: What a failure has to know about its task to be carried on to those that wait behind it.
FIELDS = (
    "id",
    "task",
    "group",
    "group_index",
    "chord",
    "chain",
    "errbacks",
    "root_id",
    "parent_id",
)

_numbers = count()


def step(name: str) -> None:
    """Between two steps of the protocol; a test puts its own here, and dies."""


class Chords:
    """The chords of one backend object. Crash-safe: the protocol above."""

    def __init__(self, backend: ResultTable) -> None:
        self.backend = backend
        self.app = backend.app
        self._current = threading.local()
        self._store: Store | None = None
        self._parts: Table | None = None

    @property
    def parts(self) -> Table:
        """The table of intents."""
        store = self.backend.store
        if self._parts is None or self._store is not store:
            self._store = store
            self._parts = store.table(PARTS)
        return self._parts

    def identity(self) -> str:
        """This process as an owner."""
        return self.backend.store._core.identity()

    def is_alive(self, owner: str) -> bool:
        """Whether a process that called itself so is still there."""
        alive: bool = self.backend.store._core.is_alive(owner) if owner else False
        return alive

    @property
    def _intent(self) -> str:
        """The key of the intent that this thread carries out, or nothing."""
        return getattr(self._current, "intent", "")

    @_intent.setter
    def _intent(self, key: str) -> None:
        self._current.intent = key

    # --- what Celery calls, by way of the backend ---------------------------------------------

    def begin(self, group_id: str, header: Any, body: Any) -> None:
        """A chord is about to be sent, perhaps again: nothing of it is done yet.

        Crash-safe: its parts have not been sent, so whoever dies here has sent no chord.
        """
        backend = self.backend
        chord = Chord(None)
        ids = None
        if isinstance(header, _regen):  # made as it is sent, which is not now
            chord.unmade = True
        elif any(isinstance(result, GroupResult) for result in header):
            backend.save_group(group_id, GroupResult(group_id, header, app=self.app))
            backend.expire(backend.get_key_for_group(group_id), backend.chord_result_ttl)
        else:
            ids = [result.id for result in header]
        ttl = backend.chord_ttl
        backend.table.set(self._header(group_id), (ids, backend.encode(body)), ttl)
        backend.table.set(self._chord(group_id), chord.value(), ttl)

    def set_size(self, group_id: str, size: int) -> None:
        """How many parts there are is known now; the last one has been made and is not sent yet.

        Crash-safe: one compare-and-set, behind which the chord can be complete.
        """

        def change(chord: Chord) -> bool:
            if chord.state == DONE:  # a frozen chord is sent once more
                chord.reset()
            chord.size = size
            return True

        self._change(group_id, change)

    def add(self, group_id: str, task_id: str) -> None:
        """A chord has one part more than it began with; it is not sent yet.

        Crash-safe: one compare-and-set.
        """

        def change(chord: Chord) -> bool:
            chord.added.append(task_id)
            return True

        self._change(group_id, change)

    @contextmanager
    def intending(
        self, kind: str, task_id: str, request: Any, content: bytes, rest: bytes = b""
    ) -> Iterator[None]:
        """Step 1, and step 6 at the end; or an exception comes between, then another goes on.

        Inside of another intent of this thread there is only that one.

        Crash-safe: one entry is added, then changed or removed.
        """
        if self._intent:
            yield
            return
        owner = self.identity()
        key = f"{owner} {next(_numbers)}"
        part = (kind, task_id, request.group, request.group_index, content, rest)
        self.parts.set(key, (owner, str(self.app.main), *part), ttl=self.backend.chord_result_ttl)
        step("intended")
        with self._carrying(key):
            yield

    @contextmanager
    def _carrying(self, key: str) -> Iterator[None]:
        self._intent = key
        carried_out = False
        try:
            yield
            carried_out = True
        finally:
            self._intent = ""
            if carried_out:
                step("done")
                self.parts.delete(key)
            else:
                self._give_up(key)

    def _give_up(self, key: str) -> None:
        value, version = self.parts.get_versioned(key)
        if value is not None:
            ttl = self.backend.chord_result_ttl
            self.parts.compare_and_set(key, version, ("", *value[1:]), ttl=ttl)
            self.backend.ring()

    def _holds(self, claim: str) -> bool:
        if claim == self._intent:
            return False
        value = self.parts.get(claim)
        return value is not None and self.is_alive(value[0])

    def count(
        self,
        group_id: str,
        task_id: str,
        index: Any,
        hidden: bool,
        callback: Callable[[], Any] = lambda: None,
    ) -> None:
        """Steps 3 to 5: the part is there, its result is stored. Inside of :meth:`intending`.

        :param hidden: the result is there for the callback only.
        :param callback: gives the chord's body, when it is needed; or None: the saved one.
        """
        step("stored")

        def change(chord: Chord) -> bool:
            if chord.state == DONE or (chord.state == CLAIMED and self._holds(chord.claim)):
                return False
            chord.add(task_id, index)
            chord.hidden |= hidden
            if chord.complete():
                chord.state, chord.claim = CLAIMED, self._intent
            return True

        chord = self._change(group_id, change)
        if chord is None or chord.state != CLAIMED:
            step("counted")
            return
        step("claimed")
        self._send(group_id, callback, chord)

    # --- the callback -------------------------------------------------------------------------

    def _send(self, group_id: str, callback: Callable[[], Any], chord: Chord) -> None:
        """Steps 4 and 5."""
        ids, body = self._saved(group_id)
        if chord.unmade:
            ids = chord.made()
        signature = maybe_signature(callback() or body, app=self.app)
        if signature is None:
            logger.error("Chord %r has expired: its callback is lost", group_id)
            return
        group = None
        try:
            if ids is not None:
                results = self._joined([*ids, *chord.added])
            else:
                group = GroupResult.restore(group_id, backend=self.backend, app=self.app)
                results = [*self._joined_group(group_id, group), *self._joined(chord.added)]
        except Exception as exc:
            logger.exception("Chord %r raised: %r", group_id, exc)
            self._fail(signature, exc)
        else:
            step("joined")
            try:
                publish = getattr(self.app.amqp, "_retry_publish", None)  # since Celery 5.7
                if publish is None:
                    signature.delay(results)
                else:
                    publish(signature.delay, results)
            except Exception as exc:
                logger.exception("Chord %r raised: %r", group_id, exc)
                error = ChordError(f"Callback error: {exc!r}")
                error.__cause__ = exc
                self._fail(signature, error)
        step("sent")
        self._change(group_id, Chord.finish, max(self.backend.chord_ttl or 0, DONE_SECONDS))
        step("marked")
        self._tidy(group_id, ids, group, chord)

    def _fail(self, signature: Any, error: Exception) -> None:
        """Instead of step 4: the callback fails, and what would have followed it."""
        self.backend.chord_error_from_stack(signature, error)
        for follower in _followers(signature.options.get("chain")):
            self.backend.on_chord_part_return(follower, states.FAILURE, error)

    def _joined(self, ids: list[str]) -> list[Any]:
        """The results of a header without groups in it, in its order.

        Raises:
            ChordError: a part has failed, or its result is gone.
        """
        timeout = self.app.conf.result_chord_join_timeout
        try:
            found = dict(self.backend.get_many(ids, timeout=timeout, parts=True))
        except TimeoutError as exc:
            raise ChordError(f"a result of the chord's header is gone: {exc}") from exc
        results = []
        for task_id in ids:
            meta = found[bytes_to_str(task_id)]
            value = meta["result"]
            if meta["status"] in states.PROPAGATE_STATES:
                error = ChordError(f"Dependency {task_id} raised {value!r}")
                if isinstance(value, BaseException):
                    error.__cause__ = value
                raise error
            results.append(value)
        return results

    def _joined_group(self, group_id: str, group: Any) -> list[Any]:
        if group is None:
            raise ChordError(f"GroupResult {group_id} no longer exists")
        try:
            with allow_join_result(), self.backend.seeing_parts():
                joined: list[Any] = group.join_native(
                    timeout=self.app.conf.result_chord_join_timeout, propagate=True
                )
                return joined
        except Exception as exc:
            culprit = next(group._failed_join_report(), None)
            text = repr(exc) if culprit is None else f"Dependency {culprit.id} raised {exc!r}"
            raise ChordError(text) from exc

    def _tidy(self, group_id: str, ids: list[str] | None, group: Any, chord: Chord) -> None:
        """What only the chord needed goes; the header's results live on as long as others do."""
        backend = self.backend
        backend.table.delete(self._header(group_id))
        if group is not None:
            group.delete(backend=backend)
        if chord.hidden or backend.chord_result_ttl != backend.ttl:
            parts = ids if ids is not None else [each.id for each in group or ()]
            for task_id in [*parts, *chord.added]:
                backend.end_part(task_id)

    # --- after a death ------------------------------------------------------------------------

    def recover(self) -> int:
        """Carry out the intents of the dead; how many there were.

        Crash-safe: as the steps are; who dies here leaves an intent that is his.
        """
        if self._intent:
            return 0
        found = 0
        main = str(self.app.main)
        for key, value in self.parts.items():
            if value[1] == main and not self.is_alive(value[0]):
                found += self._take_over(bytes_to_str(key), value[0])
        return found

    def settle(self, task_id: str) -> None:
        """Before a task is said to have failed since its process was lost: what that has written
        down comes first, and where another carries it out now, that is waited for, a moment."""
        self.recover()
        ends = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < ends and not self._intent:
            if all(value[3] != task_id for _, value in self.parts.items()):
                return
            time.sleep(0.001)

    def _take_over(self, key: str, owner: str) -> bool:
        value, version = self.parts.get_versioned(key)
        if value is None or value[0] != owner:
            return False
        mine = (self.identity(), *value[1:])
        ttl = self.backend.chord_result_ttl
        if not self.parts.compare_and_set(key, version, mine, ttl=ttl):
            return False
        step("taken over")
        with self._carrying(key):
            try:
                self._repeat(*value[2:])
            except Exception as exc:  # it would be the same again
                logger.exception("a chord's part that its process left undone raised: %r", exc)
        return True

    def _repeat(
        self, kind: str, task_id: str, group_id: str, index: Any, content: bytes, rest: bytes
    ) -> None:
        backend = self.backend
        if kind == RETURNED:
            backend.put_result(task_id, content)
            self.count(group_id, task_id, index, content.startswith(HIDDEN))
            return
        fields, meta, store_result, call_errbacks = backend.decode(rest)
        error, state = backend.exception_to_python(meta["result"]), meta["status"]
        request = Context(fields)
        backend.fail(task_id, error, meta["traceback"], request, store_result, call_errbacks, state)
        for follower in _followers(fields.get("chain")):
            backend.on_chord_part_return(follower, state, error)

    # --- entries ------------------------------------------------------------------------------

    def _chord(self, group_id: str) -> bytes:
        key: bytes = self.backend.get_key_for_chord(group_id)
        return key

    def _header(self, group_id: str) -> bytes:
        key: bytes = self.backend.get_key_for_chord(group_id, ".header")
        return key

    def _saved(self, group_id: str) -> tuple[list[str] | None, Any]:
        saved = self.backend.table.get(self._header(group_id))
        if saved is None:
            return None, None
        ids, body = saved
        return ids, self.backend.decode(body)

    def _change(
        self, group_id: str, change: Callable[[Chord], bool], ttl: float | None = None
    ) -> Chord | None:
        """Change the chord entry in one step; None when ``change`` left it as it was."""
        table, key = self.backend.table, self._chord(group_id)
        ttl = self.backend.chord_ttl if ttl is None else ttl
        while True:
            value, version = table.get_versioned(key)
            chord = Chord(value)
            if not change(chord):
                return None
            if table.compare_and_set(key, version, chord.value(), ttl=ttl):
                return chord


def _followers(chain: Any) -> Iterator[Any]:
    """The parts of chords among the tasks that would have followed a failed one.

    Celery passes those by that have failed already: they have, but perhaps they aren't counted.
    """
    waiting = list(chain or ())
    while waiting:
        task = waiting.pop()
        options = task.get("options") or {}
        if "chord" in options and options.get("task_id"):
            follower = Context(options)
            follower.id, follower.group = options["task_id"], options.get("group_id")
            yield follower
        if task.get("subtask_type") == "chord" and (task.get("kwargs") or {}).get("body"):
            waiting.append(task["kwargs"]["body"])
