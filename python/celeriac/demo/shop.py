"""The demo's Django project as processes: its database, web workers, task worker and beat."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from .load.messages import SECRET
from .options import CUSTOMERS, ORDERS, PRODUCTS, TASK_PROCESSES, DemoOptions
from .services import HERE, Service, ServiceGroup

PROJECT = HERE / "project"
DATABASE = "shop.sqlite3"
START_SECONDS = 30.0
PYTHON = sys.executable


def build_database(services: ServiceGroup, directory: Path, options: DemoOptions) -> Path:
    """Make and fill the database, once for all phases; return its path."""
    environment = _environment(directory, "locmem", {})
    fill = [f"--products={PRODUCTS}", f"--orders={ORDERS}", f"--customers={CUSTOMERS}"]
    for name, arguments in (
        ("migrate", ["migrate", "--verbosity=0"]),
        ("fill", ["fill_shop", *fill, f"--seed={options.seed}"]),
    ):
        _manage(services, directory, environment, name, arguments)
    database = directory / DATABASE
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database


class Shop:
    """One phase's shop on a fresh copy of the database.

    `settings` are the environment variables that the stack's settings read.
    """

    def __init__(
        self,
        services: ServiceGroup,
        directory: Path,
        template: Path,
        stack: str,
        settings: dict[str, str],
        options: DemoOptions,
    ) -> None:
        self._services = services
        self._directory = directory
        self._options = options
        self._environment = _environment(directory, stack, settings)
        self.database = directory / DATABASE
        shutil.copyfile(template, self.database)
        self.port = 0
        self.running: list[Service] = []

    def manage(self, *arguments: str) -> None:
        """Run one of Django's commands to its end."""
        _manage(self._services, self._directory, self._environment, arguments[0], list(arguments))

    def start_web(self, port: int = 0) -> Service:
        """Start gunicorn on a free port; the socket is made here, so the port can't be lost."""
        with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
            self.port = listener.getsockname()[1]
            command = [PYTHON, "-m", "gunicorn", "-c", str(PROJECT / "gunicorn_conf.py")]
            environment = {
                "DEMO_WORKERS": str(self._options.workers),
                "DEMO_BIND": f"fd://{listener.fileno()}",
            }
            return self._start("gunicorn", command, environment, (listener.fileno(),))

    def start_worker(self) -> Service:
        """Start the Celery worker."""
        return self._start("worker", _celery("worker", f"--concurrency={TASK_PROCESSES}"))

    def start_beat(self) -> Service:
        """Start Celery beat."""
        return self._start("beat", _celery("beat", "--schedule", str(self._directory / "schedule")))

    def wait_for_web(self, web: Service) -> None:
        """Wait until every web worker has answered."""
        seen: set[int] = set()

        def all_answer() -> bool:
            for _ in range(self._options.workers * 2):
                seen.update(_worker_pid(self.port))
            return len(seen) >= self._options.workers

        web.wait_until(all_answer, START_SECONDS)

    def wait_for_worker(self, worker: Service) -> None:
        """Wait until the Celery worker says that it is ready."""
        worker.wait_until(
            lambda: " ready." in worker.log.read_text(errors="replace"), START_SECONDS
        )

    def drive(self, plan: Path, result: Path, stdout: int) -> Service:
        """Start the load driver."""
        options = self._options
        arguments = [self.port, options.connections, options.seconds, plan, result]
        command = [PYTHON, "-m", "celeriac.demo.load", *map(str, arguments)]
        return self._services.start("load", command, self._directory, {}, stdout=stdout)

    def stop(self, service: Service) -> None:
        """Stop one of the shop's services."""
        self._services.stop(service)
        self.running.remove(service)

    def processes(self) -> list[int]:
        """The ids of all the shop's processes."""
        return [pid for service in self.running for pid in service.processes()]

    def _start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str] | None = None,
        inherit: tuple[int, ...] = (),
    ) -> Service:
        variables = {**self._environment, **(environment or {})}
        service = self._services.start(name, command, self._directory, variables, inherit)
        self.running.append(service)
        return service


def _manage(
    services: ServiceGroup,
    directory: Path,
    environment: dict[str, str],
    name: str,
    arguments: list[str],
) -> None:
    command = [PYTHON, str(PROJECT / "manage.py"), *arguments]
    service = services.start(name, command, directory, environment)
    service.wait_until(lambda: service.process.poll() == 0, 120)
    services.stop(service)


def _celery(command: str, *arguments: str) -> list[str]:
    quiet = ["--without-gossip", "--without-mingle"] if command == "worker" else []
    return [PYTHON, "-m", "celery", "-A", "config", command, "--loglevel=INFO", *quiet, *arguments]


def _environment(directory: Path, stack: str, settings: dict[str, str]) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *([path] if path else [])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(directory),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "GUNICORN_CMD_ARGS": "",
        "DEMO_STACK": stack,
        "DEMO_DATABASE": str(directory / DATABASE),
        "DEMO_WEBHOOK_SECRET": SECRET,
        **settings,
    }


def _worker_pid(port: int) -> set[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        return {json.loads(connection.getresponse().read())["pid"]}
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return set()
    finally:
        connection.close()
