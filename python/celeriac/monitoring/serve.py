"""`celeriac monitoring serve URL`: a store's metrics over HTTP, for Prometheus.

All that the processes of the store counted, and the store's own statistics, at ``/metrics``. A
store that isn't there, or can't be used, is ``celeriac_up 0``, not an error: Prometheus has to hear
it. One that was removed and made anew is found at the next scrape.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from celeriac.errors import CeleriacError
from celeriac.store import Store

__all__ = ["server"]

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DOWN = b"""\
# HELP celeriac_up Whether the store can be used.
# TYPE celeriac_up gauge
celeriac_up 0.0
"""


class Source:
    """The store as it is now, opened when it is asked for. Thread-safe."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._inode = 0

    def exposition(self, openmetrics: bool) -> bytes:
        """All of it; only `celeriac_up 0` when the store can't be used."""
        with self._lock:
            try:
                return self._opened().metrics.exposition(openmetrics, own=True)
            except (CeleriacError, OSError):
                self._forget()
                return DOWN + b"# EOF\n" if openmetrics else DOWN

    def _opened(self) -> Store:
        if self._store is not None and self._inode != _inode(self._store):
            self._forget()
        if self._store is None:
            self._store = self._open()
            self._inode = _inode(self._store)
        return self._store

    def _forget(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


def _inode(store: Store) -> int:
    return os.stat(os.path.join(store.path, "arena")).st_ino


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    source: Source


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # of a client that says nothing

    def do_GET(self) -> None:
        """Answer `/metrics`; 404 for all else."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        openmetrics = "application/openmetrics-text" in self.headers.get("Accept", "")
        body = self.server.source.exposition(openmetrics)
        self.send_response(200)
        self.send_header("Content-Type", OPENMETRICS if openmetrics else PLAIN)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: a line for each scrape helps nobody."""


def server(open_store: Callable[[], Store], host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens, for its `serve_forever()`.

    :param open_store: opens the store; called anew after each failure.
    :param port: 0 for any that is free, which `server_port` names.

    Raises OSError when it can't listen.
    """
    made = _Server((host, port), _Handler)
    made.source = Source(open_store)
    return made
