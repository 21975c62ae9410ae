"""What stands in `broker_transport_options` and `result_backend_transport_options`: checked.

The two are one dictionary for every broker that a project may use, so names of other transports
(`visibility_timeout`, `fanout_prefix`, ...) and kombu's own (`max_retries`, ...) are no error; they
have no effect here. But a misspelt name of ours must not quietly mean the default.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from zoneinfo import ZoneInfo

from celeriac.errors import ConfigurationError
from celeriac.url import Options

__all__ = ["BROKER_OPTIONS", "PRIORITY_ORDERS", "RESULT_OPTIONS", "checked"]

CONNECT_OPTIONS = tuple(field.name for field in fields(Options))
BROKER_OPTIONS = ("connect_options", "deadletter_queue", "eta_timezone", "priority_order")
RESULT_OPTIONS = ("connect_options",)
PRIORITY_ORDERS = ("rabbitmq", "redis")

#: How alike two names are that are taken for one and a misspelling of it; difflib's measure.
ALIKE = 0.82


def checked(given: Any, ours: tuple[str, ...]) -> dict[str, Any]:
    """The options of :func:`celeriac.connect` that transport options name.

    Raises:
        ConfigurationError: a name is one of ours in the wrong place, or misspelt; a value of ours
            is none that it takes. What `connect_options` holds is for connect() to check.
    """
    options: Mapping[Any, Any] = given or {}
    for name in options:
        if not isinstance(name, str) or name in ours:
            continue
        if name in CONNECT_OPTIONS:
            raise ConfigurationError(
                f"transport option {name!r} is one of the store: write it into the URL "
                f"(?{name}=...), or into the transport option 'connect_options'"
            )
        guess = difflib.get_close_matches(name, [*ours, *CONNECT_OPTIONS], n=1, cutoff=ALIKE)
        if guess:
            raise ConfigurationError(
                f"unknown transport option {name!r}: did you mean {guess[0]!r}?"
            )
    order = options.get("priority_order", PRIORITY_ORDERS[0])
    if "priority_order" in ours and order not in PRIORITY_ORDERS:
        known = " or ".join(map(repr, PRIORITY_ORDERS))
        raise ConfigurationError(f"transport option priority_order={order!r}: {known}")
    queue = options.get("deadletter_queue")
    if "deadletter_queue" in ours and not (queue is None or isinstance(queue, str)):
        raise ConfigurationError(
            f"transport option deadletter_queue={queue!r}: the name of a queue, or None"
        )
    zone = options.get("eta_timezone")
    if "eta_timezone" in ours and zone is not None:
        try:
            ZoneInfo(zone)
        except Exception:  # of several kinds, by what is wrong with the name
            raise ConfigurationError(
                f"transport option eta_timezone={zone!r}: the name of a time zone, such as "
                "'Europe/Berlin', or None"
            ) from None
    connect = options.get("connect_options")
    if not (connect is None or isinstance(connect, Mapping)):
        raise ConfigurationError(
            f"transport option connect_options={connect!r}: a dict of options of the store, "
            "such as {'memory': '512M'}"
        )
    return dict(connect or {})
