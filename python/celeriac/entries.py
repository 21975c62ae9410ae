"""Entries that carry more than a value.

Most values go into the core as they are. One that has tags, a grace period, another serializer
than the core's, or that may be compressed is packed here, into a `Named`, which the core keeps
apart from bytes of the user's::

    version:u8 = 1, bytes of the two names:u8 u8, number of tags:u16
    grace:f64                           seconds, at the end of the ttl, in which the value is stale
    delta:f64                           seconds that it took to compute; 0 = not known
    serializer, compressor: ASCII       "" the core's own packing; "" not compressed
    tags: each u16 length, UTF-8, u64 generation
    payload

An entry whose ttl has `grace` seconds or less to go is stale: only ``get_or_set`` may still use it.
An entry one of whose tags has another generation now is as good as absent (see `tags.py`).

The names in the entry say how to read it, whatever this cache is set to. What can't be read here
(an unknown version, a package that isn't installed, a dotted path that isn't this cache's own, or
a pickle where the cache was told json or msgpack) is a miss. Data names no code to import.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from celeriac import _core, serializers
from celeriac.errors import ConfigurationError, SerializationError

VERSION: Final = 1
NATIVE: Final = ""
DEFAULT_THRESHOLD: Final = 1024
_FIXED: Final = struct.Struct("<BBBHdd")
_LENGTH: Final = struct.Struct("<H")
_GENERATION: Final = struct.Struct("<Q")
_PICKLED: Final = b"\x08"  # the core's packing of what it pickled

TagGenerations = tuple[tuple[str, int], ...]


class Named(bytes):
    """A packed entry, as the core stores it."""

    __slots__ = ()


_core.set_named_type(Named)


class Header(NamedTuple):
    """What stands before the payload."""

    serializer: str
    compressor: str
    grace: float
    delta: float
    tags: TagGenerations
    start: int
    """Where the payload begins."""


class Unreadable(Exception):
    """An entry that this cache can't or mustn't read: a miss."""


def parse(entry: Named) -> Header | None:
    """The header, or None when it isn't one that this version knows."""
    try:
        version, serializer, compressor, count, grace, delta = _FIXED.unpack_from(entry)
        if version != VERSION:
            return None
        place = _FIXED.size + serializer
        names = (
            str(entry[_FIXED.size : place], "ascii"),
            str(entry[place : place + compressor], "ascii"),
        )
        place += compressor
        tags = []
        for _ in range(count):
            (size,) = _LENGTH.unpack_from(entry, place)
            place += _LENGTH.size
            name = str(entry[place : place + size], "utf-8")
            place += size
            tags.append((name, _GENERATION.unpack_from(entry, place)[0]))
            place += _GENERATION.size
    except (ValueError, struct.error):
        return None
    if not (grace >= 0 and delta >= 0):  # nobody writes that, NaN included
        return None
    return Header(*names, grace, delta, tuple(tags), place)


def _pack_header(
    serializer: str, compressor: str, grace: float, delta: float, tags: TagGenerations
) -> bytes:
    fixed = _FIXED.pack(VERSION, len(serializer), len(compressor), len(tags), grace, delta)
    parts = [fixed, serializer.encode(), compressor.encode()]
    for name, generation in tags:
        data = name.encode()
        parts += [_LENGTH.pack(len(data)), data, _GENERATION.pack(generation)]
    return b"".join(parts)


class Format:
    """How a cache writes its entries, and reads them. Immutable; thread-safe."""

    __slots__ = ("_above", "_compressor", "_serializer", "is_plain", "pickle_all", "unpickles")

    def __init__(
        self,
        serializer: str = "native",
        compressor: str | None = None,
        compress_above: int = DEFAULT_THRESHOLD,
    ) -> None:
        self.pickle_all = serializer == "pickle"
        found = serializers.serializer(serializer)
        self._serializer = None if self.pickle_all else found
        self._compressor = serializers.compressor(compressor)
        if not isinstance(compress_above, int) or compress_above < 0:
            raise ConfigurationError(f"compress_above={compress_above!r}: a number of bytes")
        self._above = compress_above
        self.is_plain = self._serializer is None and self._compressor is None
        self.unpickles = self._serializer is None

    def pack(
        self, value: Any, tags: TagGenerations = (), grace: float = 0.0, delta: float = 0.0
    ) -> Any:
        """What the core shall store for a value: the value itself where that is enough.

        Raises SerializationError.
        """
        bare = not (tags or grace or delta)
        if bare and (self.is_plain or value is None or type(value) in (int, bool)):
            return value  # an int stays an int whatever the serializer: incr() works on it
        by = self._serializer
        if by is None or type(value) is int:
            name = NATIVE
            payload = _core.pack(value, self.pickle_all)
        else:
            name = by.name
            payload = serializers.dumps(by, value)
        compressed = ""
        if self._compressor is not None and len(payload) > self._above:
            smaller = self._compressor.compress(payload)
            if len(smaller) < len(payload):
                payload, compressed = smaller, self._compressor.name
        if bare and name == NATIVE and not compressed:
            return value
        return Named(_pack_header(name, compressed, grace, delta, tags) + payload)

    def unpack(self, entry: Named, header: Header) -> Any:
        """The value. Raises Unreadable (a miss), SerializationError (its own serializer fails)."""
        data = entry[header.start :]
        if header.compressor:
            data = self._decompressed(header.compressor, data)
        if header.serializer == NATIVE:
            return self._native(data)
        return serializers.loads(self._reader(header.serializer), data)

    def reads(self, entry: Named, header: Header) -> bool:
        """Whether this cache may and can read what has these names; its payload may be damaged, or
        once it is decompressed be a pickle."""
        if header.serializer == NATIVE and not (self.unpickles or header.compressor):
            return entry[header.start : header.start + 1] != _PICKLED
        try:
            if header.serializer != NATIVE:
                self._reader(header.serializer)
            if header.compressor:
                self._decompressor(header.compressor)
        except Unreadable:
            return False
        return True

    def _native(self, data: bytes) -> Any:
        if not self.unpickles and data[:1] == _PICKLED:
            raise Unreadable
        try:
            return _core.unpack(data)
        except SerializationError:
            raise
        except ValueError:
            raise Unreadable from None

    def _reader(self, name: str) -> serializers.Serializer:
        own = self._serializer
        if own is not None and name == own.name:
            return own
        if name not in serializers.SERIALIZERS or (name == "pickle" and own is not None):
            raise Unreadable
        try:
            found = serializers.serializer(name)
        except ConfigurationError:
            raise Unreadable from None
        if found is None:
            raise Unreadable
        return found

    def _decompressor(self, name: str) -> serializers.Compressor:
        own = self._compressor
        if own is not None and name == own.name:
            return own
        try:
            found = serializers.compressor(name)
        except ConfigurationError:
            raise Unreadable from None
        assert found is not None
        return found

    def _decompressed(self, name: str, data: bytes) -> bytes:
        by = self._decompressor(name)
        try:
            return by.decompress(data)
        except Exception:
            raise Unreadable from None


PLAIN: Final = Format()
