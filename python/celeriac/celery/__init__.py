"""Celery and kombu on a celeriac store: message transport and result backend.

A Celery application needs no import at all::

    broker_url = "celeriac+shm://app"
    result_backend = "celeriac+shm://app"

Two entry points of the package do the registration. Bare kombu, where
``kombu.Connection`` is used without kombu's serializers having been loaded, imports this
package once; that registers the same names.

The package reads from the bottom up: ``register`` (names), ``errors`` and ``options`` (what users
catch and set), ``fastjson`` and ``messages`` (the frame on the wire), ``routing`` (exchanges and
bindings), ``queue_arguments``, ``queue_uses`` and ``dead_letters`` (what ``x-`` arguments ask for),
``broker`` (one store seen as a broker), ``qos`` and ``channel`` (what kombu calls), ``poller``
(waiting, event loop), ``transport`` (the class behind the URL), ``worker`` (the few places where
Celery asks for a transport by its name), ``waiting`` (for results), ``chords`` and ``chord_watch``
(their callbacks, whoever dies), ``results`` (the result backend), ``amqp`` (an opt-in publisher),
``beat`` (the scheduler of any number of beats).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.celery.register import TRANSPORT, register_transports

if TYPE_CHECKING:
    from celeriac.celery.amqp import AMQP as AMQP

__all__ = ["AMQP", "TRANSPORT", "register_transports"]


def __getattr__(name: str) -> Any:
    """What needs Celery is imported when it is asked for."""
    if name == "AMQP":
        from celeriac.celery.amqp import AMQP

        return AMQP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
