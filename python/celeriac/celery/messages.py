"""The frame that a message travels in.

A queue of the store carries bytes. The frame puts the AMQP attributes of a message in front of
its body, and the body follows as it is, with no base64 and no copy into a JSON document::

    offset  size  content
    0       1     0xCE
    1       1     form of the header: 1 JSON, 2 the store's own codec for plain data
    2       4     length of the header in bytes, little endian
    6       n     header
    6+n     rest  body, raw

The header is a list, because its fields are always the same: content type, content encoding,
headers, properties, exchange, routing key. The codec takes a fifth of JSON's time, and gives back
what JSON would; a header with anything else in it (a date, a lazy text) is written as JSON, in
kombu's way. Bytes that are no frame (another program put them
into the queue) are delivered as a message without headers, so that a consumer can see and
reject them instead of failing on them for ever.
"""

from __future__ import annotations

import struct
import time
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from kombu import message as kombu_message
from kombu.serialization import registry
from kombu.transport import virtual
from kombu.utils.json import loads as kombu_loads
from kombu.utils.json import object_hook

from celeriac import _core
from celeriac.celery import fastjson

if TYPE_CHECKING:
    from celeriac.message import Message as NativeMessage

__all__ = [
    "Message",
    "decode_frame",
    "encode_frame",
    "frame_of",
    "seconds_to_eta",
    "time_to_live",
]

_JSON = "application/json"

MAGIC = 0xCE
JSON, PLAIN = 1, 2

_prefix = struct.Struct("<BBI")
_dumps = fastjson.encoder(",", ":")
_loads_plain = fastjson.decoder()
_loads_typed = fastjson.decoder(object_hook)

#: content type, content encoding, headers, properties, exchange, routing key
Header = tuple[str | None, str | None, dict[str, Any], dict[str, Any], str, str]


def encode_frame(message: dict[str, Any], exchange: str, routing_key: str) -> bytes:
    """Build the bytes for a queue from what :meth:`Channel.prepare_message` made.

    Raises:
        TypeError: a header or property is not JSON, or the body is neither bytes nor text.
    """
    return frame_of(
        (
            message["content-type"],
            message["content-encoding"],
            message["headers"],
            {k: v for k, v in message["properties"].items() if k != "delivery_info"},
            exchange,
            routing_key,
        ),
        message["body"],
    )


def frame_of(header: Header, body: bytes | str | None) -> bytes:
    """Build the bytes for a queue. The header's properties hold no ``delivery_info``.

    Raises:
        TypeError: a header or property is not JSON, or the body is neither bytes nor text.
    """
    form, text = PLAIN, _core.encode_json(header)
    if text is None:
        form, text = JSON, _dumps(header).encode()
    if isinstance(body, str):
        body = body.encode()
    return b"".join((_prefix.pack(MAGIC, form, len(text)), text, body or b""))


def decode_frame(frame: bytes) -> tuple[Header, bytes]:
    """Split a frame into its header and the body. Never raises on foreign bytes."""
    if len(frame) >= _prefix.size:
        magic, form, length = _prefix.unpack_from(frame)
        end = _prefix.size + length
        if magic == MAGIC and form in (PLAIN, JSON) and end <= len(frame):
            try:
                content_type, encoding, headers, properties, exchange, routing_key = _fields(
                    form, frame[_prefix.size : end]
                )
            except Exception:  # whatever is wrong with it, it is no header of ours
                pass
            else:
                if type(headers) is dict and type(properties) is dict:
                    return (
                        (content_type, encoding, headers, properties, exchange, routing_key),
                        frame[end:],
                    )
    return ("application/data", "binary", {}, {}, "", ""), frame


def _fields(form: int, header: bytes) -> Any:
    if form == PLAIN:
        return _core.decode_json(header)
    text = header.decode()
    return (_loads_typed if "__type__" in text else _loads_plain)(text)


def seconds_to_eta(
    headers: dict[str, Any] | None, now: float | None = None, zone: tzinfo | None = None
) -> float:
    """Seconds that a task message still has to wait for its ETA; 0 when it is due.

    An ETA without a time zone is relative to that of the consumer's application, which the broker
    doesn't know: it is taken to be ``zone``. Without one the ETA doesn't count here, and the
    consumer holds the task, as with any other broker.
    """
    eta = headers.get("eta") if headers else None
    if not eta:
        return 0.0
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta[:-1] + "+00:00" if eta.endswith("Z") else eta)
        except ValueError:
            return 0.0
    if not isinstance(eta, datetime):
        return 0.0
    if eta.tzinfo is None:
        if zone is None:
            return 0.0
        eta = eta.replace(tzinfo=zone)
    return max(eta.timestamp() - (time.time() if now is None else now), 0.0)


def time_to_live(properties: dict[str, Any], queue_ttl: float | None) -> float | None:
    """Seconds that a message may stay in its queue, or None for ever.

    The ``expiration`` property is text in milliseconds, as in AMQP. The shorter of it and the
    queue's own ``x-message-ttl`` holds.
    """
    expiration = properties.get("expiration")
    if expiration is None:
        return queue_ttl
    try:
        ttl = max(int(expiration), 0) / 1000.0
    except (TypeError, ValueError):
        return queue_ttl
    return ttl if queue_ttl is None else min(ttl, queue_ttl)


class Message(virtual.Message):
    """A delivered message; its delivery tag stands for the queue's own handle.

    ``native`` is that handle. Acknowledging goes through the channel, as kombu wants it, and
    ends in one call on the handle.
    """

    def __init__(
        self, native: NativeMessage, channel: Any, delivery_tag: int, frame: bytes | None = None
    ) -> None:
        header, body = decode_frame(native.body if frame is None else frame)
        content_type, content_encoding, headers, properties, exchange, routing_key = header
        delivery_info = {
            "exchange": exchange,
            "routing_key": routing_key,
            "redelivered": native.redelivered,
        }
        properties["delivery_info"] = delivery_info
        properties["delivery_tag"] = delivery_tag
        self.native = native
        kombu_message.Message.__init__(
            self,
            body=body,
            channel=channel,
            delivery_tag=delivery_tag,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            properties=properties,
            delivery_info=delivery_info,
        )

    def _decode(self) -> Any:
        """kombu's decoding; for JSON, as most messages are, without its detours."""
        accept = self.accept
        if (
            self.content_type == _JSON
            and (accept is None or _JSON in accept)
            and registry._decoders.get(_JSON) is kombu_loads
        ):
            try:
                text = self.body.decode()
                return (_loads_typed if "__type__" in text else _loads_plain)(text)
            except Exception:  # what it is of is for kombu to say
                pass
        return super()._decode()

    @property
    def _raw(self) -> dict[str, Any]:
        """The message as kombu's other virtual transports keep it."""
        return {
            "body": self.body,
            "content-type": self.content_type,
            "content-encoding": self.content_encoding,
            "headers": self.headers,
            "properties": self.properties,
        }
