"""Glob patterns over keys: ``product:*``, ``user:?:[a-f]*``, ``literal\\*``.

``*`` stands for any characters or none, ``?`` for one, ``[abc]``, ``[a-z]``, ``[^a]`` or ``[!a]``
for one of a set; a backslash takes the next character as it is. As in Redis, and case counts.

A pattern is cut at its stars into pieces of fixed length. The first and the last piece stand at the
ends of a text; those between are searched for from left to right, each from where the one before
ended. The leftmost place of a piece is always as good as any other, so nothing is ever tried twice:
ten thousand stars cost one pass over the text, not a catastrophe.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SPECIAL = re.compile(r"([*?\[\]\\])")


def escape(text: str) -> str:
    """The pattern that matches just this text."""
    return _SPECIAL.sub(r"\\\1", text)


class _Piece:
    """What stands between two stars: a number of characters, some of them free."""

    __slots__ = ("_regex", "_text", "length")

    def __init__(self, parts: list[tuple[str, bool]]) -> None:
        self.length = len(parts)
        self._text = "".join(part for part, literal in parts)
        self._regex: re.Pattern[str] | None = None
        if not all(literal for _, literal in parts):
            source = "".join(re.escape(part) if literal else part for part, literal in parts)
            self._regex = re.compile(source, re.DOTALL)

    def at(self, text: str, place: int) -> bool:
        if self._regex is None:
            return text.startswith(self._text, place)
        return self._regex.match(text, place) is not None

    def find(self, text: str, start: int, end: int) -> int:
        """The first place in ``text[start:end]``, or -1."""
        if self._regex is None:
            return text.find(self._text, start, end)
        found = self._regex.search(text, start, end)
        return found.start() if found else -1


class Pattern:
    """A compiled glob. Thread-safe; time linear in the text."""

    __slots__ = ("_first", "_last", "_middle", "_shortest")

    def __init__(self, glob: str) -> None:
        if not isinstance(glob, str):
            raise TypeError(f"a pattern is a str, not {type(glob).__name__}")
        pieces = [_Piece(parts) for parts in _cut(glob)]
        self._first = pieces[0]
        self._last = pieces[-1] if len(pieces) > 1 else None
        self._middle = [piece for piece in pieces[1:-1] if piece.length]
        self._shortest = sum(piece.length for piece in pieces)

    def matches(self, text: str | bytes) -> bool:
        """Whether the whole text fits. Bytes are looked at as UTF-8."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        if len(text) < self._shortest or not self._first.at(text, 0):
            return False
        if self._last is None:
            return len(text) == self._first.length
        place, end = self._first.length, len(text) - self._last.length
        for piece in self._middle:
            found = piece.find(text, place, end)
            if found < 0:
                return False
            place = found + piece.length
        return place <= end and self._last.at(text, end)


def _cut(glob: str) -> list[list[tuple[str, bool]]]:
    """The pieces between stars: lists of (a character, True) or (a regex for one, False)."""
    pieces: list[list[tuple[str, bool]]] = [[]]
    place = 0
    last_end = glob.rfind("]")  # behind it no set ends; one that never does isn't looked for twice
    while place < len(glob):
        sign = glob[place]
        place += 1
        if sign == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append([])
        elif sign == "?":
            pieces[-1].append((".", False))
        elif sign == "[":
            regex, place = _set(glob, place) if place <= last_end else ("", place)
            pieces[-1].append((regex, False) if regex else ("[", True))
            if not regex:
                last_end = -1
        else:
            if sign == "\\" and place < len(glob):
                sign = glob[place]
                place += 1
            pieces[-1].append((sign, True))
    return pieces


def _set(glob: str, start: int) -> tuple[str, int]:
    """The regex of a set that begins before ``start``, and where it ends; "" if it never does."""
    place = start
    negated = glob[place : place + 1] in ("^", "!")
    place += negated
    members: list[str] = []
    first = True
    while place < len(glob) and (glob[place] != "]" or first):
        first = False
        low, place = _member(glob, place)
        if glob[place : place + 1] == "-" and glob[place + 1 : place + 2] not in ("", "]"):
            high, place = _member(glob, place + 1)
            low, high = min(low, high), max(low, high)
            members.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            members.append(re.escape(low))
    if place >= len(glob):
        return "", start
    return f"[{'^' if negated else ''}{''.join(members)}]", place + 1


def _member(glob: str, place: int) -> tuple[str, int]:
    if glob[place] == "\\" and place + 1 < len(glob):
        place += 1
    return glob[place], place + 1


_kept = lru_cache(maxsize=64)(Pattern)


def compiled(glob: str) -> Pattern:
    """The pattern, kept for the next time."""
    return _kept(glob) if isinstance(glob, str) else Pattern(glob)
