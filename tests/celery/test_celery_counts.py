"""Counts of tasks under celery-exporter's names, without a consumer of events."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject

import celeriac

PATIENCE = 60
HOST = socket.gethostname()


def samples(store: celeriac.Store) -> dict[str, float]:
    """By name and labels, without the host's."""
    lines = store.metrics.exposition().decode().replace(f'hostname="{HOST}",', "").splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def wait_for(store: celeriac.Store, name: str, value: float) -> dict[str, float]:
    """The samples, as soon as that one is there."""
    deadline = time.monotonic() + PATIENCE
    while samples(store).get(name) != value:
        assert time.monotonic() < deadline, (name, samples(store))
        time.sleep(0.02)
    return samples(store)


@pytest.fixture
def app(store_url: str) -> Celery:
    url = f"celeriac+{store_url}"
    app = Celery("counted", broker=url, backend=url, set_as_current=True)
    app.conf.worker_hijack_root_logger = False
    return app


def test_what_becomes_of_tasks(app: Celery, store_url: str) -> None:
    @app.task(name="works", shared=False)
    def works() -> int:
        return 1

    @app.task(name="fails", shared=False)
    def fails() -> None:
        raise LookupError("as it must")

    @app.task(name="again", shared=False, bind=True)
    def again(self: Any) -> None:
        if not self.request.retries:
            raise self.retry(countdown=0)

    @app.task(name="rejects", shared=False, acks_late=True)
    def rejects() -> None:
        raise Reject("not for me", requeue=False)

    @app.task(name="ignores", shared=False)
    def ignores() -> None:
        raise Ignore

    def of(what: str, task: str, queue: str = "celery", more: str = "") -> str:
        return f'celery_task_{what}_total{{name="{task}",queue_name="{queue}"{more}}}'

    store = celeriac.connect(store_url)
    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=2):
        for _ in range(3):
            works.delay().get(timeout=PATIENCE)
        with pytest.raises(LookupError):
            fails.delay().get(timeout=PATIENCE)
        again.delay().get(timeout=PATIENCE)
        rejects.delay()
        ignores.delay()
        gone = works.apply_async(countdown=3600)
        gone.revoke()
        wait_for(store, of("rejected", "rejects"), 1)
        found = wait_for(store, of("received", "ignores"), 1)
        for what in ("received", "started", "succeeded"):
            found = wait_for(store, of(what, "works"), 3)
    assert found[of("sent", "works")] == 4
    assert found['celery_task_runtime_count{name="works",queue_name="celery"}'] == 3
    assert found[of("failed", "fails", more=',exception="LookupError"')] == 1
    assert found[of("started", "again")] == 2
    assert found[of("retried", "again")] == 1
    assert found[of("succeeded", "again")] == 1
    assert of("succeeded", "rejects") not in found
    assert of("succeeded", "ignores") not in found


def test_tasks_that_run_in_their_caller_are_not_counted(app: Celery, store_url: str) -> None:
    @app.task(name="eager", shared=False)
    def eager() -> int:
        return 1

    store = celeriac.connect(store_url)
    eager.delay()  # opens the broker
    eager.apply()
    found = samples(store)
    assert found['celery_task_sent_total{name="eager",queue_name="celery"}'] == 1
    assert not any("started" in name or "succeeded" in name for name in found)


@pytest.mark.worker
def test_processes_of_a_pool_and_a_queue_of_its_own(store_url: str, tmp_path: Path) -> None:
    url = f"celeriac+{store_url}"
    (tmp_path / "counted.py").write_text(
        textwrap.dedent(f"""
        import os
        from celery import Celery
        app = Celery("counted", broker={url!r}, backend={url!r})

        @app.task(name="add")
        def add(a, b):
            return a + b

        @app.task(name="dies", acks_late=False)
        def dies():
            os.kill(os.getpid(), 9)
        """)
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import counted  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "counted"]
    command += ["worker", "-c", "2", "-Q", "own"]
    worker = subprocess.Popen([*command, "-l", "ERROR"], cwd=tmp_path)
    store = celeriac.connect(store_url)
    try:
        results = [counted.add.apply_async((1, n), queue="own") for n in range(20)]
        assert [r.get(timeout=PATIENCE) for r in results] == list(range(1, 21))
        counted.dies.apply_async(queue="own")
        labels = 'name="dies",queue_name="own",exception="WorkerLostError"'
        wait_for(store, f"celery_task_failed_total{{{labels}}}", 1)
        for what in ("sent", "received", "started", "succeeded"):
            wait_for(store, f'celery_task_{what}_total{{name="add",queue_name="own"}}', 20)
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    what = 'celery_task_succeeded_total{name="add",queue_name="own"}'
    assert samples(store)[what] == 20  # after all of the pool is dead
