"""Real Celery workers, started and stopped by the benchmark, and what their tasks noted down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import celery_app
from .common import ROOT

WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class System:
    """A broker with a result backend, and the application on this side of it."""

    name: str
    broker: str
    backend: str
    app: Any

    def task(self, name: str) -> Any:
        """A task of the application."""
        return self.app.tasks[f"bench.{name}"]

    def empty(self) -> None:
        """Throw away what waits in the queue."""
        with self.app.connection_for_write() as connection:
            channel = connection.default_channel
            self.app.amqp.queues["celery"](channel).declare()
            channel.queue_purge("celery")

    def waiting(self) -> int:
        """Messages in the queue."""
        with self.app.connection_for_write() as connection:
            queue = self.app.amqp.queues["celery"](connection.default_channel)
            return int(queue.queue_declare().message_count)


class Stamps:
    """A file that `stamp` tasks write into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def read(self) -> list[tuple[float, float]]:
        """Sent and begun, in seconds, in the order in which the tasks wrote."""
        raw = self.path.read_bytes()
        size = celery_app.STAMP.size
        usable = raw[: len(raw) // size * size]
        return [(sent, begun) for sent, begun in celery_app.STAMP.iter_unpack(usable)]

    def wait(self, count: int, worker: subprocess.Popen[bytes] | None = None) -> None:
        """Until that many are written."""
        end = time.monotonic() + WAIT_SECONDS
        while self.path.stat().st_size < count * celery_app.STAMP.size:
            if worker is not None and worker.poll() is not None:
                raise RuntimeError(f"the worker ended with status {worker.returncode}")
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.read())} of {count} tasks ran in {WAIT_SECONDS} s")
            time.sleep(0.01)


@contextmanager
def worker(
    system: System, folder: Path, *, pool: str = "solo", concurrency: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker without the extras that send messages of their own; killed if it won't stop."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_app:app", "worker"]
    command += ["--pool", pool, "--concurrency", str(concurrency), "--loglevel", "WARNING"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command += ["--hostname", f"{system.name}-{pool}@bench"]
    log = folder / f"{system.name}-{pool}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(system.broker, system.backend),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except Exception:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        _stop(process)


def environment(broker: str, backend: str | None) -> dict[str, str]:
    """What a process of ours needs to find the application and its broker."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    given = {**os.environ, "PYTHONPATH": path, celery_app.BROKER: broker}
    if backend:
        given[celery_app.BACKEND] = backend
    return given


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its pool's children, if it left any
    process.wait(15)
