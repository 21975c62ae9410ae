"""kombu's transport for celeriac URLs.

``celeriac+shm://app?memory=512M`` reaches the transport in one of two forms. kombu takes the part
before the first ``+`` for the transport's name and hands over the rest, ``shm://app?memory=512M``,
unparsed. When it switches to the next URL of a failover list, it parses that URL itself: then the
transport is called ``celeriac+shm`` and host, port and path come separately. :func:`store_url`
puts either together again.

Options of ``broker_transport_options``:

``priority_order``
    ``"rabbitmq"`` (default): the higher priority first. ``"redis"``: the lower one.
``deadletter_queue``
    Where messages go that no queue is bound for. Without it they are dropped.
``eta_timezone``
    The time zone of ETAs that have none, such as ``"Europe/Berlin"``: the ``timezone`` of your
    application. Without it a task with such an ETA waits in a worker, which knows.
``connect_options``
    Options of :func:`celeriac.connect`, in addition to those of the URL. For a failover list they
    belong here: kombu parses the URLs that it switches to itself and trips over a query.

Names of other transports' options are ignored; a misspelt name of these is an error.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kombu.transport import virtual
from kombu.transport.base import ChannelError
from kombu.transport.base import ConnectionError as TransportConnectionError

import celeriac
from celeriac.celery import worker
from celeriac.celery.broker import Broker, open_broker
from celeriac.celery.channel import Channel, Subscription
from celeriac.celery.errors import operational
from celeriac.celery.options import BROKER_OPTIONS, checked
from celeriac.celery.poller import Poller
from celeriac.celery.register import ALIASES
from celeriac.celery.routing import EXCHANGE_TYPES
from celeriac.errors import ConfigurationError, ServerUnavailable, StoreNotFound

if TYPE_CHECKING:
    from celeriac.queue import Queue

__all__ = ["Transport", "hide_password", "store_url"]

#: Messages that one call of ``drain_events`` delivers at most to consumers that acknowledge.
DRAIN_BATCH = 16

#: Messages that one turn of the event loop delivers at most.
TURN_BATCH = 64

#: Messages in a row that consumers without acknowledging get at most before others.
FAVOURED = 16

#: Seconds after which a turn delivers no further message. A consumer that works inside of its
#: callback, as Celery's solo pool does, gets back to its loop after each long piece of work.
TURN_SECONDS = 0.005


def store_url(client: Any) -> str:
    """The store's URL of a kombu connection.

    Raises:
        ConfigurationError: the URL names no engine.
    """
    hostname: str = client.hostname or ""
    scheme: str = client.transport_cls if isinstance(client.transport_cls, str) else ""
    if "://" in hostname:
        url = hostname.removeprefix("celeriac+")
    elif scheme == "celeriac+shm":
        # That is all of such a URL. A port, a path, a user would be those of the URL that kombu
        # switched from: it keeps what the next one doesn't have.
        url = f"shm://{hostname}"
    elif scheme == "celeriac+file":  # the same: a path alone
        url = f"file:///{(client.virtual_host or '').lstrip('/')}"
    else:
        credentials = ""
        if client.userid or client.password:
            credentials = f"{quote(client.userid or '')}:{quote(client.password or '')}@"
        port = f":{client.port}" if client.port else ""
        path = (client.virtual_host or "").lstrip("/")
        url = f"{scheme.removeprefix('celeriac+')}://{credentials}{hostname}{port}"
        url += f"/{path}" if path else ""
    if url.startswith("celeriac:"):
        known = ", ".join(f"{alias}://" for alias in ALIASES if "+" in alias)
        raise ConfigurationError(f"{url!r} names no engine; URLs start with one of {known}")
    return url


def hide_password(url: str, mask: str = "**") -> str:
    """The URL with its password masked and everything else kept."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    user, _, password = credentials.partition(":")
    if not password:
        return url
    return f"{scheme}{separator}{user}:{mask}{at}{host}{slash}{path}"


class Transport(virtual.Transport):
    """A connection to a store. kombu uses one connection in one thread at a time."""

    Channel = Channel

    can_parse_url = True
    driver_type = worker.DRIVER
    driver_name = worker.DRIVER
    polling_interval = None

    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=EXCHANGE_TYPES, heartbeats=False
    )

    #: Worth a new connection: a server that is away, a store that is not there (yet).
    connection_errors = (TransportConnectionError, ServerUnavailable, StoreNotFound)
    channel_errors = (ChannelError,)
    recoverable_connection_errors = connection_errors
    recoverable_channel_errors = channel_errors

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.exclusive: set[str] = set()
        self._broker: Broker | None = None
        self._poller: Poller | None = None
        self._hub: Any = None
        self._hub_thread: int | None = None
        self._subscriptions: deque[Subscription] = deque()
        self._mixed = False  # some acknowledge, others don't
        self._favoured = 0  # messages in a row that were given to those that don't
        self._starved = False  # somebody would consume, but its channel is full
        self._having: deque[Subscription] | None = None  # who may have more, this turn
        self._handing = False  # in a consumer's callback, which may acknowledge
        self._failure: Exception | None = None  # what a consumer raised inside of another's ack
        self._pid = os.getpid()
        worker.extend_celery()

    # --- the connection -------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The store as a broker; there from :meth:`establish_connection` on."""
        if self._broker is None:
            raise TransportConnectionError("the connection is closed")
        return self._broker

    @property
    def is_open(self) -> bool:
        """Whether the connection is established, and neither closed nor collected."""
        return self._broker is not None

    @operational
    def establish_connection(self) -> Any:
        """Open the store.

        Raises:
            ConfigurationError: the URL or an option is wrong, or there is no such engine.
            CeleriacError: see :func:`celeriac.connect`.
        """
        options = checked(self.client.transport_options, BROKER_OPTIONS)
        self._broker = open_broker(store_url(self.client), options)
        self._pid = os.getpid()
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        """Close the channels; unacknowledged messages go back, exclusive queues go away."""
        self._leave_hub()
        super().close_connection(connection)
        if self._broker is not None and self._pid == os.getpid():
            with suppress(StoreNotFound):  # destroyed, with all that was in it
                for name in self.exclusive:
                    self._broker.delete(name)
        self._drop()

    def _collect(self, connection: Any) -> None:
        """Free a connection that was lost, or that a forked child has inherited."""
        if self._pid == os.getpid():
            self.close_connection(connection)
            return
        for channel in [*self._avail_channels, *self.channels]:
            channel.abandon()
        self._avail_channels.clear()
        self.channels.clear()
        self._hub = None  # the parent's; its descriptors must stay registered there
        self._drop()

    def _drop(self) -> None:
        self.exclusive.clear()
        self._subscriptions.clear()
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        self._broker = None

    def verify_connection(self, connection: Any) -> bool:
        """Whether the store is open and still there."""
        return self._broker is not None and self._broker.usable()

    def driver_version(self) -> str:
        """The version of celeriac."""
        return str(getattr(celeriac, "__version__", "N/A"))

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """The broker's URL for logs, its password masked."""
        try:
            url = store_url(self.client)
        except ConfigurationError:
            return uri
        return f"celeriac+{url if include_password else hide_password(url, mask)}"

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """Nothing is assumed about a URL."""
        return {"port": None, "hostname": None}

    # --- consumers ------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        """A channel starts to consume."""
        self._subscriptions.append(subscription)
        self._mixed = len({each.no_ack for each in self._subscriptions}) > 1
        self._wake_from_elsewhere()

    def unsubscribe(self, subscription: Subscription) -> None:
        """A channel stops consuming."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._mixed = len({each.no_ack for each in self._subscriptions}) > 1

    def on_settled(self) -> None:
        """A message was acknowledged or put back; maybe in another thread."""
        if self._starved:
            self._wake_from_elsewhere()

    def on_acked(self) -> None:
        """A message was acknowledged. In the loop's own thread the next one takes its place: it
        reaches Celery's pool in the same turn of the loop, and nobody has to be woken for it.

        Not inside of a consumer's callback, where the same is done when it returns, nor while the
        loop is closed, when it makes up for the acknowledgements that it still has.
        """
        if not self._starved or self._handing or self._hub is None or not self._hub.readers:
            return
        if threading.get_ident() != self._hub_thread or self._failure is not None:
            return
        if self._having is None:
            self._having = self._all_in_turn()
        try:
            self._hand_out(self._having, 1)
        except Exception as error:  # not the acknowledgement's: the loop shall hear it
            self._failure = error

    def _wake_from_elsewhere(self) -> None:
        poller = self._poller
        if poller is not None and threading.get_ident() != self._hub_thread:
            poller.nudge()

    def _deliver(self, limit: int, blocking: bool = False) -> int:
        """Deliver ready messages, a queue at a time in turn; returns how many.

        A blocking caller that consumes without acknowledging gets one message per call, because
        what it does not look at after the call would be lost.
        """
        return self._hand_out(self._all_in_turn(), limit, blocking)

    def _all_in_turn(self) -> deque[Subscription]:
        self._subscriptions.rotate(-1)
        return deque(self._in_order())

    def _hand_out(self, having: deque[Subscription], limit: int, blocking: bool = False) -> int:
        """Deliver to those who may have more; who has nothing more leaves them."""
        delivered = 0
        end = monotonic() + TURN_SECONDS if limit > 1 else 0.0
        outer, self._handing = self._handing, True
        try:
            while having:
                subscription = having[0]
                if subscription.wants() and subscription.deliver():
                    if self._mixed and subscription.no_ack and self._favoured < FAVOURED:
                        self._favoured += 1  # once more, until there are none
                    else:
                        self._favoured = 0
                        having.rotate(-1)
                    delivered += 1
                    if delivered == limit or (blocking and subscription.no_ack):
                        break
                    if monotonic() > end:
                        break
                else:
                    having.popleft()
        finally:
            self._handing = outer
        return delivered

    def _in_order(self) -> list[Subscription]:
        """The subscriptions, those that don't acknowledge first, but not for ever: so a worker is
        given its control commands, and a revocation that was sent before a task is heard before it.
        """
        if not self._mixed:
            return list(self._subscriptions)
        favoured = self._favoured < FAVOURED
        return sorted(self._subscriptions, key=lambda each: each.no_ack is not favoured)

    def _wanted(self) -> dict[str, Queue]:
        """The queues that may be consumed from now; notes whether a full channel has others."""
        wanted: dict[str, Queue] = {}
        self._starved = bool(self._subscriptions)  # a message settled while we look counts
        starved = False
        for subscription in self._subscriptions:
            if subscription.wants():
                wanted[subscription.queue.name] = subscription.queue
            else:
                starved = True
        self._starved = starved
        return wanted

    def _own_poller(self) -> Poller:
        if self._poller is None or self._poller.pid != os.getpid():
            if self._poller is not None:
                self._poller.close()
            self._poller = Poller(self.broker.store)
        return self._poller

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Wait for messages and deliver them: at least one, at most :data:`DRAIN_BATCH`.

        Raises:
            TimeoutError: none came in ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self._deliver(DRAIN_BATCH, blocking=True):
            remaining = None if deadline is None else deadline - monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError("timed out")
            poller = self._own_poller()
            poller.watch(self._wanted())
            poller.sleep(remaining)

    # --- the event loop -------------------------------------------------------------------

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Consume from now on as the loop runs. Again after the loop was reset."""
        poller = self._own_poller()
        self._hub = loop
        loop.add_reader(poller.fileno(), self._on_readable)
        loop.add_reader(poller.nudge_fileno(), self._on_nudge)
        loop.on_tick.add(self._on_tick)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        """Stop consuming in the loop."""
        self._leave_hub()

    def _leave_hub(self) -> None:
        hub, self._hub = self._hub, None
        if hub is None or self._pid != os.getpid():
            return
        hub.on_tick.discard(self._on_tick)
        poller = self._poller
        if poller is not None and hub.readers:
            for descriptor in (poller.fileno(), poller.nudge_fileno()):
                if descriptor in hub.readers:
                    hub.remove_reader(descriptor)
            poller.disarm()

    def _on_tick(self) -> None:
        """Before the loop sleeps: arm, or make it look at once."""
        poller = self._poller
        if poller is None or self._hub is None:
            return
        self._hub_thread = threading.get_ident()
        self._having = None  # the next acknowledgement begins another turn
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        wanted = self._wanted()
        poller.watch(wanted)
        if wanted and not poller.arm():
            poller.nudge()

    def _on_readable(self) -> None:
        if self._poller is not None:
            self._poller.drain()
            self._deliver(TURN_BATCH)

    def _on_nudge(self) -> None:
        if self._poller is not None:
            self._poller.take_nudge()
            self._deliver(TURN_BATCH)
