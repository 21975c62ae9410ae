"""Tags by generation: invalidating one is a single delete, whatever the number of its entries.

A tag that is in use has a record in the cache of tags: a random number, its generation. An entry
with tags carries the generations that they had when its value was asked for. It is valid while
each of its tags still has that generation.

- invalidate: delete the tag's record. The next entry that wants the tag makes a new one.
- T1  A record that is missing, for whatever reason (invalidated, evicted, lost), makes the entries
  invalid: loss can never bring an old entry back, since a generation never comes again (it has 62
  random bits).
- T2  The generations are taken before a value is computed: a tag that is invalidated meanwhile
  makes the result invalid, as it should, because it may stem from the old data.
- Killed at any instruction: each step is one operation on one record.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from celeriac._core import Cache as CoreCache
from celeriac.entries import TagGenerations

NAMESPACE = "celeriac.tags"
MOST_TAGS = 1000
LONGEST_TAG = 1024


def names(tags: object) -> tuple[str, ...]:
    """The tags, each once. A str is one tag. Raises TypeError, ValueError."""
    if isinstance(tags, str):
        tags = (tags,)
    if not isinstance(tags, Iterable):
        raise TypeError(f"tags are a list of str, not {type(tags).__name__}")
    given = list(tags)
    for tag in given:
        if not isinstance(tag, str):
            raise TypeError(f"a tag is a str, not {type(tag).__name__}")
        if not tag or len(tag.encode()) > LONGEST_TAG:
            raise ValueError(f"a tag has 1 to {LONGEST_TAG} bytes, not {len(tag.encode())}")
    found = tuple(dict.fromkeys(given))
    if len(found) > MOST_TAGS:
        raise ValueError(f"{len(found)} tags: an entry has at most {MOST_TAGS}")
    return found


class Tags:
    """The tags of one cache. Thread-safe, fork-safe."""

    __slots__ = ("_core", "_space")

    def __init__(self, core: CoreCache, space: str) -> None:
        self._core = core
        self._space = space

    def _key(self, tag: str) -> str:
        return f"{self._space}\0{tag}"

    def generations(self, tags: Iterable[str]) -> TagGenerations:
        """The tags with their generations, made where they have none."""
        return tuple((tag, self._generation(self._key(tag))) for tag in tags)

    def _generation(self, key: str) -> int:
        own = secrets.randbits(62)
        for _ in range(8):  # evicted or invalidated between the two calls
            found = self._core.get(key)
            if type(found) is int and found >= 0:
                return found
            if self._core.add(key, own, None):
                break
        return own  # if it was not stored, the entry is invalid: T1

    def valid(self, tags: TagGenerations) -> bool:
        """Whether each tag still has that generation."""
        return all(self._core.get(self._key(tag)) == generation for tag, generation in tags)

    def invalidate(self, tags: Iterable[str]) -> None:
        """Let all entries with one of these tags be as good as absent."""
        for tag in tags:
            self._core.delete(self._key(tag))
