"""``beat_scheduler = "celeriac.celery.beat:Scheduler"``: any number of beats, one of them leads.

Every host of a deployment, or every container of a host, may run ``celery beat``. They share the
store of ``broker_url``, and in its table ``celeriac.celery.beat`` two kinds of entries, each under
the application's name:

``NAME leader``
    Who leads: the process, by the name under which the kernel's word about its life is to be had,
    and a mark of the scheduler in it. Taken by ``add`` when it is absent, by ``compare_and_set``
    when the one it names is dead; removed at a graceful stop.
``NAME entry ENTRY``
    ``last_run_at`` and ``total_run_count`` of an entry of the schedule, as JSON, and while a task
    is on its way also ``sending``, the mark of this *occurrence*.

Who doesn't lead sleeps until the first entry changes, or a process of the store dies; nothing is
polled. The schedule itself (tasks, times, arguments) is each beat's own configuration: entries
that are new begin to count when a leader first sees them, those that are gone are forgotten, and
those whose schedule changed keep when they ran last.

A task that is due goes through three steps, and any of them may be the leader's last:

1. The entry is written: it has run now, and ``sending`` names the occurrence.
2. The task is sent. The message carries the occurrence as the property :data:`ONCE`, and as the id
   of the task, unless the entry's options give one.
3. The entry is written without ``sending``.

What holds:

- B1  At most one living process leads. One that was stopped (SIGSTOP) is alive, and still leads.
- B2  None is left out: when the leader dies before 1, the entry is still due for the next one; when
  it dies after 1, the next one finds ``sending``, looks whether the message waits in a queue or was
  delivered, and sends it if it finds neither.
- B3  None is delivered twice: a message that the look didn't find, because a worker was just taking
  it, is sent once more and has the same occurrence. Each consumer claims the occurrence for the
  message before it hands that on (:meth:`Broker.claim`), and drops a message whose occurrence
  another one has. The same message, redelivered after its worker's death, is delivered as ever.
- B4  What could not be sent, since its queue or the store was full, is logged and not repeated
  before it is due again. That is Celery's rule.
- As with every beat, times that passed while none was running are made up for by one run, not by
  one for each.

Claims are kept for :data:`~celeriac.celery.broker.CLAIM_SECONDS`. The state is in the store, and
lives as long as that does.
"""

from __future__ import annotations

import copy
import json
import secrets
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery import beat
from celery.utils.log import get_logger

from celeriac.celery.broker import ONCE, Broker, open_broker
from celeriac.celery.options import BROKER_OPTIONS, checked
from celeriac.celery.transport import Transport, hide_password, store_url
from celeriac.errors import ConfigurationError

if TYPE_CHECKING:
    from celeriac.table import Table

__all__ = ["Scheduler"]

logger = get_logger("celery.beat")

TABLE = "celeriac.celery.beat"

#: Messages of a queue that are looked through for one that a dead leader may have sent.
SEARCHED = 10_000


class Scheduler(beat.Scheduler):
    """Celery's scheduler with its state in the store, and one leader; see the head of this file."""

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self._broker: Broker | None = None
        self._mark = ""
        self._leads = False
        self._sending: dict[str, str] = {}
        self._name = app.main or "celery"
        super().__init__(app, *args, **kwargs)

    # --- the store ------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The store of ``broker_url``, opened on first use.

        Raises:
            ConfigurationError: that is no store of celeriac, or one without queues.
            CeleriacError: see :func:`celeriac.connect`.
        """
        if self._broker is None or not self._broker.usable():
            with self.app.connection_for_write() as connection:
                if not issubclass(connection.get_transport_cls(), Transport):
                    raise ConfigurationError(
                        "celeriac.celery.beat:Scheduler keeps its schedule in the broker's store, "
                        f"and broker_url is {connection.as_uri()}: use celeriac+shm://NAME, or "
                        "another beat_scheduler"
                    )
                options = checked(connection.transport_options, BROKER_OPTIONS)
                self._broker = open_broker(store_url(connection), options)
            self._leads = False
        return self._broker

    @property
    def table(self) -> Table:
        """Where the state is."""
        return self.broker.beat

    @property
    def info(self) -> str:
        """A line of beat's banner."""
        url = self.app.conf.broker_write_url
        return f"    . schedule -> {hide_password(str(url))}, table {TABLE}"

    def setup_schedule(self) -> None:
        """Take the configured entries; their state comes with the lead."""
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.data)
        self.table.change_count("")  # a broker that can't be used says so before beat has begun

    # --- leading --------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due, if this is the leader; sleep until it may be, otherwise.

        Returns the seconds until there is more to do.
        """
        key = f"{self._name} leader"
        seen = self.table.change_count(key)
        if not (self._leads and self.table.get(key) == self._mark):
            self._leads = self._take_the_lead(key)
            if not self._leads:
                self.table.wait_for_change(key, seen, self.max_interval)
                return 0
            logger.info("beat: Leading from now on.")
            self._load()
        return super().tick(*args, **kwargs)

    def _take_the_lead(self, key: str) -> bool:
        table, core = self.table, self.broker.store._core
        self._mark = f"{core.identity()} {secrets.token_hex(8)}"
        for _ in range(8):  # another may come and go between two of these calls
            if table.add(key, self._mark):
                return True
            leader, version = table.get_versioned(key)
            if version == 0:
                continue
            if core.is_alive(str(leader).partition(" ")[0]):
                return False
            if table.compare_and_set(key, version, self._mark):
                return True
        return False

    def close(self) -> None:
        """Stop, and let another beat lead at once."""
        leads, self._leads = self._leads, False
        if leads and self._broker is not None and self._broker.usable():
            key = f"{self._name} leader"
            leader, version = self._broker.beat.get_versioned(key)
            if leader == self._mark:
                self._broker.beat.compare_and_delete(key, version)
        super().close()

    # --- the state ------------------------------------------------------------------------

    def _load(self) -> None:
        """What the leaders before this one have left."""
        prefix = f"{self._name} entry "
        states: dict[str, dict[str, Any]] = {}
        for key, value in self.table.items():
            name = key.decode() if isinstance(key, bytes) else str(key)
            if name.startswith(prefix):
                states[name.removeprefix(prefix)] = json.loads(value)
        for name in states.keys() - self.schedule.keys():
            self.table.delete(prefix + name)
        self._heap = None
        for name, entry in self.schedule.items():
            state = states.get(name)
            if state is None:
                entry.last_run_at = entry.default_now()
                self._note(entry)
                continue
            ran = datetime.fromisoformat(state["last_run_at"])
            entry.last_run_at = ran.astimezone(self.app.timezone) if ran.tzinfo else ran
            entry.total_run_count = state["total_run_count"]
            if state.get("sending"):
                self._finish(entry, state["sending"])

    def _finish(self, entry: Any, occurrence: str) -> None:
        """Send what the leader before this one was sending, unless it did."""
        if self.broker.claimed(occurrence) or self._waits(entry, occurrence):
            self._note(entry)
            return
        self._sending[entry.name] = occurrence
        self.apply_entry(entry, producer=self.producer)

    def _waits(self, entry: Any, occurrence: str) -> bool:
        """Whether a message of this occurrence is to be seen in a queue."""
        given = entry.options.get("queue")
        names = {str(getattr(given, "name", given))} if given else set()
        for name in names | set(self.app.amqp.queues):
            queue = self.broker.existing(name)
            if queue is None:
                continue
            for look in (queue.delayed, queue.ready):
                for peeked in look(SEARCHED):
                    if isinstance(peeked.body, bytes) and occurrence.encode() in peeked.body:
                        return True
        return False

    def _note(self, entry: Any, sending: str | None = None) -> None:
        state = {
            "last_run_at": entry.last_run_at.isoformat(),
            "total_run_count": entry.total_run_count,
        }
        if sending:
            state["sending"] = sending
        self.table.set(f"{self._name} entry {entry.name}", json.dumps(state))

    # --- sending --------------------------------------------------------------------------

    def reserve(self, entry: Any) -> Any:
        """An entry is due: from here on it has run."""
        following = super().reserve(entry)
        self._sending[entry.name] = occurrence = str(uuid.uuid4())
        self._note(following, occurrence)
        return following

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send an entry's task."""
        if advance:
            self.reserve(entry)
        occurrence = self._sending.pop(entry.name, None) or str(uuid.uuid4())
        marked = copy.copy(entry)
        marked.options = {"task_id": occurrence, **entry.options, ONCE: occurrence}
        try:
            result = super().apply_async(marked, producer=producer, advance=False, **kwargs)
        except Exception:  # not sent; what ends the process instead leaves it to the next leader
            self._note(self.schedule.get(entry.name, entry))
            raise
        self._note(self.schedule.get(entry.name, entry))
        return result
