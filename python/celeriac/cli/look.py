"""Opening a store to look at it: nothing of it changes, whatever the URL says."""

from __future__ import annotations

from dataclasses import replace

from celeriac.store import Store
from celeriac.url import parse_url


def look(url: str) -> Store:
    """The store of a URL, when there is one; its ceiling stays as it is, whatever `memory=` says.

    Raises as :func:`celeriac.connect` does with `create=False`.
    """
    parsed = parse_url(url)
    return Store(replace(parsed, options=replace(parsed.options, create=False)), looking=True)
