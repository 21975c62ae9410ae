"""Serializers and compressors by name.

A serializer is anything with ``dumps(value) -> bytes`` and ``loads(bytes) -> value``: ``json`` and
``msgpack`` here, or a dotted path to a module, a class (made without arguments) or an object. The
two others, ``native`` and ``pickle``, are the core's own. A compressor is a pair of functions.

``json`` writes what JSON has no form for as Django's ``DjangoJSONEncoder`` does, so that a project
may come from django-redis's JSON serializer: dates, times and datetimes in ISO 8601 (milliseconds,
``Z`` for UTC), a ``timedelta`` as an ISO 8601 duration, ``Decimal``, ``UUID`` and lazy texts as
texts. They come back as texts; tuples come back as lists, and keys of a dict as texts. Anything
else is a SerializationError.

What a name stands for is looked up when a cache is made: a missing package is an error there, not
at the first value.
"""

from __future__ import annotations

import datetime
import decimal
import importlib
import json
import pickle
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from celeriac.errors import ConfigurationError, SerializationError

CORE = ("native", "pickle")
SERIALIZERS = (*CORE, "json", "msgpack")
COMPRESSORS = ("zlib", "lzma", "lz4", "zstd")


class Serializer(NamedTuple):
    """A serializer and its name. Both calls raise what the package raises."""

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


class Compressor(NamedTuple):
    """A compressor and its name. ``decompress`` raises what the package raises."""

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


def _package(what: str, module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{what} needs the package {package}, which is not installed: pip install {package}"
        ) from None


def _duration(value: datetime.timedelta) -> str:
    sign, value = ("-", -value) if value < datetime.timedelta(0) else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    rest = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"{sign}P{value.days}DT{hours:02d}H{minutes:02d}M{seconds:02d}{rest}S"


def _json_form(value: Any) -> str:
    """What JSON has no form for, as Django's encoder writes it."""
    if isinstance(value, datetime.datetime):
        text = value.isoformat()
        if value.microsecond:
            text = text[:23] + text[26:]
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.time):
        if value.utcoffset() is not None:
            raise ValueError("JSON has no form for a time with a time zone")
        return value.isoformat()[:12]
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    lazy = getattr(sys.modules.get("django.utils.functional"), "Promise", ())
    if isinstance(value, (decimal.Decimal, uuid.UUID, lazy)):
        return str(value)
    raise TypeError(f"JSON has no form for a {type(value).__name__}")


def _json() -> Serializer:
    def dumps(value: Any) -> bytes:
        return json.dumps(
            value, separators=(",", ":"), ensure_ascii=False, default=_json_form
        ).encode()

    return Serializer("json", dumps, json.loads)


def _msgpack() -> Serializer:
    msgpack = _package("serializer 'msgpack'", "msgpack", "msgpack")

    def loads(data: bytes) -> Any:
        return msgpack.unpackb(data, strict_map_key=False)

    return Serializer("msgpack", msgpack.packb, loads)


def _pickle() -> Serializer:
    return Serializer("pickle", lambda value: pickle.dumps(value, 5), pickle.loads)


def _dotted(path: str) -> Serializer:
    found: Any = None
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
        if found is None:
            found = importlib.import_module(path)
    except ImportError as error:
        raise ConfigurationError(f"serializer {path!r} can't be imported: {error}") from None
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            raise ConfigurationError(
                f"serializer {path!r} is a class that can't be made without arguments: {error}"
            ) from None
    for call in ("dumps", "loads"):
        if not callable(getattr(found, call, None)):
            raise ConfigurationError(
                f"serializer {path!r} has no {call}(): it needs dumps(value) and loads(bytes)"
            )
    return Serializer(path, found.dumps, found.loads)


_MADE_BY: dict[str, Callable[[], Serializer]] = {
    "json": _json,
    "msgpack": _msgpack,
    "pickle": _pickle,
}


def serializer(name: object) -> Serializer | None:
    """The serializer of that name; None for ``native``.

    Raises ConfigurationError: no such name, a package that isn't installed, a path that leads
    nowhere or to something that is no serializer.
    """
    if name == "native":
        return None
    if isinstance(name, str) and name in _MADE_BY:
        return _MADE_BY[name]()
    if not isinstance(name, str) or "." not in name.strip("."):
        raise ConfigurationError(
            f"unknown serializer {name!r}: the serializers are {', '.join(SERIALIZERS)}, or a "
            "dotted path to something with dumps() and loads()"
        )
    if len(name) > 255 or not name.isascii():
        raise ConfigurationError(f"serializer {name!r}: a dotted path of at most 255 ASCII letters")
    return _dotted(name)


def _zstd() -> Compressor:
    try:
        module = importlib.import_module("compression.zstd")  # CPython 3.14
    except ImportError:
        module = _package("compressor 'zstd'", "zstandard", "zstandard")
    return Compressor("zstd", module.compress, module.decompress)


def compressor(name: object) -> Compressor | None:
    """The compressor of that name; None for None. Raises ConfigurationError as `serializer`."""
    if name is None:
        return None
    if name in ("zlib", "lzma"):
        module = importlib.import_module(str(name))
        return Compressor(str(name), module.compress, module.decompress)
    if name == "lz4":
        module = _package("compressor 'lz4'", "lz4.frame", "lz4")
        return Compressor("lz4", module.compress, module.decompress)
    if name == "zstd":
        return _zstd()
    raise ConfigurationError(
        f"unknown compressor {name!r}: the compressors are {', '.join(COMPRESSORS)}, or None"
    )


def dumps(by: Serializer, value: Any) -> bytes:
    """The value's bytes. Raises SerializationError, with what the serializer raised as cause."""
    try:
        data = by.dumps(value)
    except Exception as error:
        raise SerializationError(
            f"serializer {by.name!r} can't take a {type(value).__name__}: {error}"
        ) from error
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    if not isinstance(data, bytes):
        raise SerializationError(
            f"serializer {by.name!r} made a {type(data).__name__} of a {type(value).__name__}: "
            "dumps() returns bytes"
        )
    return data


def loads(by: Serializer, data: bytes) -> Any:
    """The value. Raises SerializationError, with what the serializer raised as cause."""
    try:
        return by.loads(data)
    except Exception as error:
        raise SerializationError(f"serializer {by.name!r} can't read back: {error}") from error
