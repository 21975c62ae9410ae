"""Names that kombu finds celeriac by, and the serializer called ``celeriac``.

kombu has no entry point for transports, but it loads every entry point of the group
``kombu.serializers`` as soon as its serializers are needed, which is whenever a Celery
application or a ``kombu.Queue`` exists. The module behind such an entry point is therefore the
place to add transports to kombu's table of aliases, and the entry point itself has to be a real
serializer. Both are here.

Importing this module is cheap: neither Celery nor the transport is imported, and nothing is
opened.

The serializer carries ``bytes`` and ``str`` unchanged and everything else as JSON with kombu's
extensions (dates, decimals, UUIDs). It never unpickles, so accepting it is as safe as accepting
JSON. Its payload is one tag byte and the content:

====  ==========================================
tag   content
====  ==========================================
b     the bytes themselves
t     text, UTF-8
j     JSON, UTF-8
====  ==========================================
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES

#: Where the transport class lives; a string, so that kombu imports it on first use.
TRANSPORT = "celeriac.celery.transport:Transport"

#: Every name resolves, also those whose engine is not there yet: kombu looks names up itself
#: when it parses a list of failover URLs or switches a connection. The error with the reason
#: comes from :func:`celeriac.connect`, when the connection is established.
ALIASES = (
    "celeriac",
    "celeriac+shm",
    "celeriac+file",
    "celeriac+redis",
    "celeriac+rediss",
    "celeriac+redis+socket",
    "celeriac+redis+sentinel",
    "celeriac+redis+cluster",
)

CONTENT_TYPE = "application/x-celeriac"


def register_transports() -> None:
    """Add the aliases to kombu's table. Idempotent; what a user put there stays."""
    for alias in ALIASES:
        TRANSPORT_ALIASES.setdefault(alias, TRANSPORT)


def encode(value: Any) -> bytes:
    """Serialize ``value`` to tagged bytes.

    Raises:
        TypeError: the value is neither bytes, nor text, nor something that JSON can hold.
    """
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, str):
        return b"t" + value.encode()
    from kombu.utils.json import dumps

    text: str = dumps(value, default_kwargs={"separators": (",", ":")})
    return b"j" + text.encode()


def decode(data: bytes | str) -> Any:
    """Give back what :func:`encode` was given.

    Raises:
        ValueError: the data is empty, carries an unknown tag, or is not what the tag says.
    """
    raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    tag, content = raw[:1], raw[1:]
    if tag == b"b":
        return content
    if tag == b"t":
        return content.decode()
    if tag == b"j":
        from kombu.utils.json import loads

        return loads(content)
    raise ValueError(f"not a celeriac payload: it starts with {tag!r}")


#: The arguments that kombu registers the serializer with.
register_args = (encode, decode, CONTENT_TYPE, "binary")

register_transports()
