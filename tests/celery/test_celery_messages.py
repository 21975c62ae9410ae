"""The frame around a message, ETA and time to live."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import kombu
import pytest
from kombu import message as kombu_message
from kombu.exceptions import ContentDisallowed, DecodeError

from celeriac.celery import fastjson
from celeriac.celery.messages import decode_frame, encode_frame, seconds_to_eta, time_to_live


def message(**fields: Any) -> dict[str, Any]:
    return {
        "body": b"body",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {},
        **fields,
    }


@pytest.mark.parametrize("body", [b"", b"\x00\xce\x01", b"x" * 100_000])
def test_the_body_travels_as_it_is(body: bytes) -> None:
    frame = encode_frame(message(body=body), "ex", "key")
    assert frame.endswith(body)
    assert decode_frame(frame)[1] == body


def test_all_attributes_come_back() -> None:
    when = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc)
    headers = {"id": "1", "nested": {"when": when, "raw": b"\xff\x00"}, "none": None}
    properties = {"priority": 3, "correlation_id": "c", "delivery_info": {"exchange": "old"}}
    frame = encode_frame(message(headers=headers, properties=properties), "ex", "k\u00e4y")
    fields, _ = decode_frame(frame)
    assert fields == (
        "application/json",
        "utf-8",
        headers,
        {"priority": 3, "correlation_id": "c"},
        "ex",
        "k\u00e4y",
    )


def test_text_becomes_utf8() -> None:
    assert decode_frame(encode_frame(message(body="\u00e4"), "", ""))[1] == b"\xc3\xa4"


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"\xce",
        b'{"json": 1}',
        b"\xce\x01\xff\xff\xff\x7f",  # a header longer than the message
        b"\xce\x01\x02\x00\x00\x00[]",  # a header that lacks its fields
        b"\xce\x01\x02\x00\x00\x00\xff\xffx",  # a header that is no text
        b"\xce\x02\x02\x00\x00\x00\x01\xc0",  # the same in the other form
        b"\xce\x02\x02\x00\x00\x00[]",  # the first form under the number of the second
        b"\xce\x02\x08\x00\x00\x00\x01\xc6\x80\x80\x80\x80\x80\x80",  # six numbers
        b"\xce\x03\x02\x00\x00\x00[]",  # a later form
    ],
)
def test_foreign_bytes_are_a_message_without_headers(foreign: bytes) -> None:
    fields, body = decode_frame(foreign)
    assert body == foreign
    assert fields[0] == "application/data"
    assert fields[2] == {}


NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("eta", "seconds"),
    [
        (NOW + timedelta(seconds=90), 90),
        ((NOW + timedelta(seconds=1.5)).isoformat(), 1.5),
        ("2026-01-01T12:00:30Z", 30),
        ("2026-01-01T14:00:30+02:00", 30),
        ((NOW - timedelta(days=1)).isoformat(), 0),
        ("2026-01-01T13:00:00", 0),  # naive: only the worker knows its zone
        ("tomorrow", 0),
        (None, 0),
        (17, 0),
    ],
)
def test_seconds_to_eta(eta: object, seconds: float) -> None:
    assert seconds_to_eta({"eta": eta}, NOW.timestamp()) == pytest.approx(seconds)


def test_no_headers_no_delay() -> None:
    assert seconds_to_eta(None) == seconds_to_eta({}) == 0


@pytest.mark.parametrize(
    ("properties", "queue_ttl", "ttl"),
    [
        ({}, None, None),
        ({}, 5.0, 5.0),
        ({"expiration": "1500"}, None, 1.5),
        ({"expiration": "1500"}, 1.0, 1.0),
        ({"expiration": "0"}, 1.0, 0.0),
        ({"expiration": "soon"}, 1.0, 1.0),
    ],
)
def test_time_to_live(
    properties: dict[str, Any], queue_ttl: float | None, ttl: float | None
) -> None:
    assert time_to_live(properties, queue_ttl) == ttl


@pytest.mark.parametrize(
    "value",
    [
        None,
        [[1, "ü"], {"k": 1.5}, {"callbacks": None}],
        {"__type__": "x"},
        {"when": datetime(2026, 1, 2, tzinfo=timezone.utc), "id": UUID(int=7), "raw": b"\xff"},
    ],
)
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_payloads_are_decoded_as_by_kombu(
    connection: kombu.Connection, value: object, serializer: str
) -> None:
    channel = connection.default_channel
    kombu.Producer(channel).publish(value, routing_key="q", serializer=serializer)
    message = channel.basic_get("q", no_ack=True)
    message.accept = {message.content_type}
    assert message.decode() == kombu_message.Message._decode(message)
    message.accept = {"application/x-other"}
    for decode in (message._decode, lambda: kombu_message.Message._decode(message)):
        with pytest.raises(ContentDisallowed):
            decode()


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"__type__":"datetime","__value__":"x"}'])
def test_a_body_that_is_no_json_is_kombus_error(connection: kombu.Connection, body: bytes) -> None:
    channel = connection.default_channel
    options = {"content_type": "application/json", "content_encoding": "utf-8"}
    kombu.Producer(channel).publish(body, routing_key="q", **options)
    message = channel.basic_get("q", no_ack=True)
    with pytest.raises(DecodeError):
        message.decode()


@pytest.mark.parametrize("text", ["[1,2]", ' {"a": [null]}', '{"a":1}\n', "\t7 ", '"x"'])
def test_the_kept_decoder_reads_what_json_reads(text: str) -> None:
    assert fastjson.decoder()(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", " ", "[1,2", "[1] 2", "{} x", "nul", "[1]]"])
def test_the_kept_decoder_refuses_what_json_refuses(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as usual:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as ours:
        fastjson.decoder()(text)
    assert str(ours.value) == str(usual.value)


HEADERS: list[dict[str, Any]] = [
    {"text": "ä\U0001f600", "numbers": [0, -1, 2**70, 1.5, True, None], "nested": {"deep": [{}]}},
    {"pair": (1, (2, 3)), "none": ()},
    {"when": NOW, "id": UUID(int=7)},
    {"keys": {1: "one", None: "none", False: "no"}},
    {"text": "\ud800"},
    {"infinite": [float("inf"), float("-inf")]},
]


@pytest.mark.parametrize("headers", HEADERS)
def test_headers_come_back_as_from_kombus_json(headers: dict[str, Any]) -> None:
    """Whichever form they have on the way."""
    expected = kombu.utils.json.loads(kombu.utils.json.dumps(headers))
    (_, _, found, _, _, _), _ = decode_frame(encode_frame(message(headers=headers), "", ""))
    assert repr(found) == repr(expected)


def test_headers_that_json_has_not_are_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        encode_frame(message(headers={"of": object()}), "", "")


def test_plain_headers_are_not_json_and_others_are() -> None:
    plain = encode_frame(message(headers={"id": "1"}), "", "")
    dated = encode_frame(message(headers={"when": NOW}), "", "")
    assert (plain[1], dated[1]) == (2, 1)
    assert b'"when"' in dated
    assert b'"id"' not in plain
