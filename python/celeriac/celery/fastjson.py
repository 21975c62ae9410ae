"""JSON as kombu writes and reads it, by one encoder and one decoder for all messages instead of new
ones for each.

``json.dumps`` makes an encoder in C for every call, with a dictionary of marks by which it finds
circular references. One that is kept must have no such dictionary, because threads would share it;
a circular reference ends in a RecursionError then, and the value goes through the usual encoder,
which raises what it always does.

A decoder looks for blanks around a text before and after it reads it. What kombu writes has none,
so the text is read at once, and again in the usual way when that was wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kombu.utils.json import JSONEncoder

__all__ = ["decoder", "encoder"]


def encoder(item_separator: str = ", ", key_separator: str = ": ") -> Callable[[Any], str]:
    """A function that gives the text of a value, byte for byte that of kombu's ``dumps`` with
    these separators. Thread-safe.
    """
    usual: Callable[[Any], str] = JSONEncoder(separators=(item_separator, key_separator)).encode
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return usual
    escape = json.encoder.encode_basestring_ascii
    default = JSONEncoder().default
    kept = make(None, default, escape, None, key_separator, item_separator, False, False, True)

    def encode(value: Any) -> str:
        try:
            return "".join(kept(value, 0))
        except RecursionError:
            return usual(value)

    return encode


def decoder(object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Callable[[str], Any]:
    """A function that gives the value of a text, as ``json.loads`` does. Thread-safe."""
    usual = json.JSONDecoder(object_hook=object_hook)
    scan: Callable[[str, int], tuple[Any, int]] = usual.scan_once  # type: ignore[attr-defined]

    def decode(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except StopIteration:  # blanks in front of it, or no JSON
            return usual.decode(text)
        return value if end == len(text) else usual.decode(text)

    return decode
