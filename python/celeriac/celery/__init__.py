"""Celery and kombu on a celeriac store: message transport and result backend.

A Celery application needs no import at all::

    broker_url = "celeriac+shm://app"
    result_backend = "celeriac+shm://app"

Two entry points of the package do the registration. Bare kombu, where
``kombu.Connection`` is used without kombu's serializers having been loaded, imports this
package once; that registers the same names.

Each module imports only from those before it; the package reads from the bottom up:

- names and bytes: ``register`` (what kombu finds us by), ``errors`` and ``options`` (what users
  catch and set), ``fastjson`` and ``messages`` (the frame on the wire)
- one store seen as a broker: ``routing`` (exchanges and bindings), ``queue_arguments``,
  ``queue_uses`` and ``dead_letters`` (what ``x-`` arguments ask for), ``revocations`` (of tasks
  that wait for their ETA), ``task_counts`` (metrics of tasks), ``broker``
- a worker: ``waiting`` (for results), ``chord_watch`` (a thread that looks after the dead),
  ``given`` (tasks that a warm stop waits for), ``worker`` (the few places where Celery has to be
  told about the transport)
- what kombu calls: ``qos``, ``channel``, ``poller`` (a sleep until there is something, the event
  loop), ``transport`` (the class behind the URL)
- results: ``result_table`` (keys and values), ``chord_entry`` and ``chords`` (their callbacks,
  whoever dies), ``results`` (the result backend)
- to opt in: ``amqp`` (a shorter way for tasks to the broker), ``beat`` (the scheduler of any number
  of beats), ``once`` (tasks of which one runs at a time), ``rate_limit`` (so many in so much time)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.celery.register import TRANSPORT, register_transports

if TYPE_CHECKING:
    from celeriac.celery.amqp import AMQP as AMQP
    from celeriac.celery.once import lock_once as lock_once
    from celeriac.celery.rate_limit import RateLimit as RateLimit

__all__ = ["AMQP", "TRANSPORT", "RateLimit", "lock_once", "register_transports"]


def __getattr__(name: str) -> Any:
    """What needs Celery is imported when it is asked for."""
    if name == "AMQP":
        from celeriac.celery.amqp import AMQP

        return AMQP
    if name == "lock_once":
        from celeriac.celery.once import lock_once

        return lock_once
    if name == "RateLimit":
        from celeriac.celery.rate_limit import RateLimit

        return RateLimit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
