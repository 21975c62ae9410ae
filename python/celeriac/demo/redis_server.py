"""A redis-server of the demo's own: on a free port of this host, without persistence."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

from .errors import DemoError
from .services import Service, ServiceGroup

START_SECONDS = 10.0
ATTEMPTS = 3


def unavailable() -> str:
    """Why Redis can't take part, or an empty string when it can."""
    if shutil.which("redis-server") is None:
        return "no redis-server on the PATH; install it (for example: apt install redis-server)"
    if importlib.util.find_spec("redis") is None:
        return "the Python package redis isn't installed; pip install 'redis[hiredis]'"
    return ""


def start(services: ServiceGroup, directory: Path) -> tuple[Service, str]:
    """Start a server; return it and its URL. Raises `DemoError` when it doesn't come up."""
    for attempt in range(1, ATTEMPTS + 1):
        port = _free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
        service = services.start("redis-server", command, directory, {})
        try:
            service.wait_until(lambda port=port: _answers(port), START_SECONDS)  # type: ignore[misc]
        except DemoError:
            services.stop(service)
            if attempt == ATTEMPTS:
                raise
        else:
            return service, f"redis://127.0.0.1:{port}"
    raise AssertionError("unreachable")


def _free_port() -> int:
    """A port that was free just now; another process may take it first, hence the attempts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
