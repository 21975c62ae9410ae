"""Servers of the benchmark's own (Redis, memcached), a store of its own, and places for files."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import celeriac

START_SECONDS = 10.0
ATTEMPTS = 3


@dataclass(frozen=True)
class RedisServer:
    """Where the server listens: loopback for Celery, a unix socket for caches and queues."""

    port: int
    socket: str
    version: str

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket}?db=0"


def redis_missing() -> str:
    """Why there can be no comparison with Redis; empty when there can."""
    if shutil.which("redis-server") is None:
        return "no redis-server on the PATH; install it (for example: apt install redis-server)"
    for package in ("redis", "hiredis"):
        if importlib.util.find_spec(package) is None:
            return f"the Python package {package} isn't installed; pip install 'redis[hiredis]'"
    return ""


@contextmanager
def directory(prefix: str = "celeriac-bench-") -> Iterator[Path]:
    """A directory in memory where there is one, so that no peer pays for a disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=memory if memory.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def redis_server(data: Path | None = None, appendfsync: str = "") -> Iterator[RedisServer]:
    """A server without persistence (the fastest that Redis can be), stopped at the end; or with an
    append-only file in the directory `data`, which it makes.
    """
    with directory() as folder:
        persistence = ["--save", "", "--appendonly", "yes" if data else "no"]
        if data:
            data.mkdir()
            persistence += ["--appendfsync", appendfsync]
        process, port = _start(folder, data or folder, persistence)
        try:
            text = subprocess.run(["redis-server", "--version"], capture_output=True, text=True)
            found = [word for word in text.stdout.split() if word.startswith("v=")]
            yield RedisServer(port, str(folder / "s"), found[0][2:] if found else "unknown")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _start(folder: Path, data: Path, persistence: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(ATTEMPTS):
        with socket.socket() as probe:  # another process may take the port: hence the attempts
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(folder / "s"), *persistence]
        process = subprocess.Popen(
            [*command, "--dir", str(data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C comes to us first, and we stop it
        )
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if _answers(port) and (folder / "s").exists():
                return process, port
            time.sleep(0.02)
        process.kill()
        process.wait(10)
    raise RuntimeError(f"redis-server didn't come up in {ATTEMPTS} attempts")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def memcached_server() -> Iterator[str]:
    """The unix socket of a memcached, stopped at the end; "" without it or pylibmc."""
    if shutil.which("memcached") is None or importlib.util.find_spec("pylibmc") is None:
        yield ""
        return
    with directory() as folder:
        path = folder / "s"
        command = ["memcached", "-s", str(path), "-m", "256", "-t", "2"]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                end = time.monotonic() + START_SECONDS
                while not path.is_socket():
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"memcached didn't come up: {' '.join(command)}")
                    time.sleep(0.02)
                yield str(path)
            finally:
                process.kill()


@contextmanager
def store_url(memory: str) -> Iterator[str]:
    """The URL of a store that is removed at the end."""
    url = f"shm://bench-{uuid.uuid4().hex[:12]}?memory={memory}"
    try:
        yield url
    finally:
        with contextlib.suppress(celeriac.StoreNotFound):
            celeriac.connect(url, create=False).destroy(force=True)
