"""One LOCATION as this process sees it, shared by every backend object that names it.

Django makes a backend object per alias and thread, and a new one whenever settings change, so
what is worth keeping is kept here: the store, and the count of errors that were ignored. Nothing
is connected before the first call; a store that cannot be had then is tried again at the next.

There is no lock on purpose. Two threads that meet here first may both connect, which yields the
same arena twice, and one of the two handles is dropped. A lock could be held by another thread at
the moment of a fork, and then for ever in the child.
"""

from __future__ import annotations

import itertools
import logging
import re

import celeriac
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.url import StoreURL

from . import redis_compat

logger = logging.getLogger("celeriac.django")

_OUTAGE = re.compile(
    r"can't make directory .*: |.* (is not a directory$|is not a regular file: |"
    r"is a symbolic link, |has a second name |belongs to user |has mode \d+, so |"
    r"can't be opened by user )"
)
"""What the core says of a place that isn't as a store left it, or isn't there: not mounted, say."""

_locations: dict[StoreURL, Location] = {}


class Location:
    """The store behind a LOCATION. Thread-safe and fork-safe, as the store itself is."""

    def __init__(self, url: StoreURL) -> None:
        self.url = url
        self.ignored = 0
        """How many errors IGNORE_EXCEPTIONS has turned into misses, in this process."""
        self._store: celeriac.Store | None = None
        self._count = itertools.count(1)
        self._logged: set[type[CeleriacError]] = set()

    def store(self) -> celeriac.Store:
        """The open store; connects where that has not happened or the store was closed since."""
        store = self._store
        if store is None or store.closed:
            store = celeriac.connect(str(self.url))
            self._store = store
        return store

    def ignore(self, error: CeleriacError, always: bool = False) -> None:
        """Count an error that becomes a miss; the first of its kind is logged, or every one as
        django-redis does it."""
        self.ignored = next(self._count)
        kind = type(error)
        if always:
            redis_compat.logger().error("Exception ignored", exc_info=error)
        elif kind not in self._logged:
            self._logged.add(kind)
            logger.warning(
                "Cache at %s: %s: %s. Ignored, as IGNORE_EXCEPTIONS asks; further errors of "
                "this kind in this process are counted, not logged.",
                self.url,
                kind.__name__,
                error,
            )


def is_outage(error: ConfigurationError) -> bool:
    """Whether the host is at fault: with the same settings it may be right again."""
    return _OUTAGE.match(str(error)) is not None


def at(url: StoreURL) -> Location:
    """The `Location` of this process for a store."""
    location = _locations.get(url)
    if location is None:
        location = _locations.setdefault(url, Location(url))
    return location
