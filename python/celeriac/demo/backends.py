"""What a stack's cache and queue live in: nothing, a celeriac store, or a redis-server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import celeriac

from . import redis_server
from .services import Service, ServiceGroup
from .usage import memory_of, size_of

STORE_MEMORY = "256M"


@dataclass
class Backend:
    """A backend that is up: what the shop's settings need to know, and how to see its size."""

    settings: dict[str, str]
    store_path: str = ""
    server: Service | None = None

    def memory(self) -> int:
        """The bytes that the store, or the server's process, occupies."""
        if self.server:
            return memory_of(self.server.processes()).rss
        return size_of(self.store_path) if self.store_path else 0


@contextmanager
def backend(stack: str, services: ServiceGroup, directory: Path) -> Iterator[Backend]:
    """Bring up the backend of `stack`; remove its store afterwards, `services` has its server."""
    if stack == "celeriac":
        url = f"shm://celeriac-demo-{secrets.token_hex(6)}?memory={STORE_MEMORY}"
        store = celeriac.connect(url)
        try:
            services.guard(store.path)
            yield Backend({"DEMO_STORE_URL": url}, store_path=store.path)
        finally:
            store.destroy(force=True)
    elif stack == "redis":
        server, server_url = redis_server.start(services, directory)
        yield Backend({"DEMO_REDIS_URL": server_url}, server=server)
    else:
        yield Backend({})
