"""The stores of one run: a URL for each LOCATION that Django's tests tell apart."""

from __future__ import annotations

import secrets

_RUN = secrets.token_hex(6)
_urls: dict[str, str] = {}


def store_url(location: str) -> str:
    """The store that stands for a LOCATION in this run."""
    return _urls.setdefault(location, f"shm://t-django-{_RUN}-{len(_urls)}?memory=32M")


def destroy_all() -> None:
    """Remove the stores that were opened in this run."""
    import celeriac

    for url in _urls.values():
        try:
            store = celeriac.connect(url, create=False)
        except celeriac.StoreNotFound:
            continue
        store.destroy(force=True)
