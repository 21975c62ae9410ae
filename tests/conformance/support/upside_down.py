"""Serializers by dotted path: a module with dumps() and loads(), and things that are none."""

from __future__ import annotations

from typing import Any


def dumps(value: str) -> bytes:
    return value[::-1].encode()


def loads(data: bytes) -> str:
    return data.decode()[::-1]


class Upside:
    def dumps(self, value: str) -> bytes:
        return b"class " + dumps(value)

    def loads(self, data: bytes) -> str:
        return loads(data[6:])


class Needs:
    def __init__(self, option: object) -> None: ...


class WritesText:
    def dumps(self, value: Any) -> Any:
        return str(value)

    def loads(self, data: bytes) -> Any:
        raise RuntimeError("not on reading")


class ReadsNothing(WritesText):
    def dumps(self, value: Any) -> bytes:
        return b"x"


nothing = 5
