"""The error of a flight that failed, in a form that those who waited for it can read.

They get an error of the same class, with the same arguments and attributes. It travels as plain
data in the core's own form, never as a pickle: a module that is loaded already, a class of it, and
what to make it of. Reading runs no code but that of an exception class, and no ``__init__`` that is
written in Python: by then its work is in the arguments and attributes.

An error that can't be said so (a class inside of a function, an attribute that is a connection, an
argument of a megabyte) is written as nothing, and read as None.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from functools import reduce
from typing import Any, Final

from celeriac import _core

LONGEST: Final = 8192
_PICKLED: Final = b"\x08"  # the core's packing of what it pickled


def written(error: Exception) -> bytes:
    """The error as bytes; none of them when it can't be said."""
    try:
        parts: Any = error.__reduce__()
        kind, args, state = (*parts, None)[:3]
        if kind is not type(error) or not isinstance(state, (dict, type(None))):
            return b""
        parts = (_core.pack(part, False) for part in (args, state or {}))  # they may share things
        data = _core.pack((kind.__module__, kind.__qualname__, *parts), False)
        again = read(data)
    except Exception:
        return b""
    same = type(again) is kind and str(again) == str(error)
    return data if same and len(data) <= LONGEST else b""


def read(data: bytes) -> Exception | None:
    """The error; None for what is none, or of a class that isn't here."""
    try:
        module, name, args, state = _plain(data)
        kind = reduce(getattr, name.split("."), sys.modules[module])
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            return None
        return _made(kind, _plain(args), _plain(state))
    except Exception:
        return None


def _plain(data: bytes) -> Any:
    if data[:1] == _PICKLED:
        raise ValueError("a pickle")
    return _core.unpack(data)


def _made(kind: type[Exception], args: tuple[Any, ...], state: Mapping[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    if not isinstance(kind.__init__, types.FunctionType):
        kind.__init__(error, *args)
    for name, value in state.items():
        setattr(error, name, value)
    return error
