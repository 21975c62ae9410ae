"""The Celery application that the worker tests run. CELERIAC_TEST_URL names its store."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import billiard.pool
from celery import Celery, signals
from celery.exceptions import Reject
from kombu import Queue
from kombu.common import Broadcast

URL = f"celeriac+{os.environ['CELERIAC_TEST_URL']}"

app = Celery(
    "worker_app", broker=URL, backend=URL, amqp=os.environ.get("CELERIAC_TEST_AMQP") or None
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_queues=[Queue("celery"), Queue("other"), Broadcast("everyone")],
    task_default_queue="celery",
    task_routes={"worker_app.note_everywhere": {"exchange": "everyone", "queue": "everyone"}},
    result_expires=3600,
    worker_send_task_events=True,
    task_send_sent_event=True,
    worker_disable_prefetch=bool(os.environ.get("CELERIAC_TEST_DISABLE_PREFETCH")),
    beat_schedule=(
        {
            "tick": {
                "task": "worker_app.note",
                "schedule": float(os.environ["CELERIAC_TEST_BEAT"]),
                "args": ("beat",),
            }
        }
        if os.environ.get("CELERIAC_TEST_BEAT")
        else {}
    ),
)

app.conf.update(json.loads(os.environ.get("CELERIAC_TEST_CONF", "{}")))

if os.environ.get("CELERIAC_TEST_SLOW_ACCEPT"):

    @signals.worker_process_init.connect  # type: ignore[untyped-decorator]
    def accept_slowly(**_: Any) -> None:
        """A process of the pool that lets a second pass between a task's arrival and its word."""
        workloop = billiard.pool.Worker.workloop
        debug, now, pid = workloop.__defaults__

        def slow_now() -> float:
            note_line("given")
            time.sleep(1)
            return float(now())

        workloop.__defaults__ = (debug, slow_now, pid)


# Not shared: tests make this application anew, and shared tasks of an earlier one would come along.
task = partial(app.task, shared=False)


def note_line(text: str) -> None:
    """Append a line to the test's file; a short append is one write."""
    path = os.environ.get("CELERIAC_TEST_NOTES")
    if path:
        with Path(path).open("a") as file:
            file.write(text + "\n")


@task
def add(x: int, y: int) -> int:
    return x + y


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def boom(text: str) -> None:
    raise ValueError(text)


@task(bind=True, max_retries=3)
def third_time_lucky(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.3)
    return int(self.request.retries)


@task(bind=True)
def describe(self: Any) -> dict[str, Any]:
    info = self.request.delivery_info
    return {"redelivered": info["redelivered"], "queue": info["routing_key"], "pid": os.getpid()}


@task
def note(text: str) -> None:
    note_line(text)


@task
def note_everywhere(text: str) -> None:
    note_line(f"{text} {os.getppid()}")


@task(bind=True, acks_late=True)
def slow(self: Any, name: str, seconds: float, seconds_again: float | None = None) -> str:
    again = self.request.delivery_info["redelivered"]
    note_line(f"start {name}{' again' if again else ''}")
    time.sleep(seconds_again if again and seconds_again is not None else seconds)
    note_line(f"end {name}")
    return name


@task(bind=True, acks_late=True)
def end_child(self: Any, name: str, how: str) -> str:
    """Ends its own process, in one of several ways; not the second time."""
    again = self.request.delivery_info["redelivered"]
    note_line(f"start {name}{' again' if again else ''}")
    if not again:
        if how == "exit":
            raise SystemExit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    note_line(f"end {name}")
    return name


@task(bind=True)
def in_order(self: Any, numbers: list[Any]) -> list[Any]:
    """The callback of a chord; each of its runs leaves a line."""
    note_line(f"callback {self.request.id}")
    return numbers


@task(bind=True, acks_late=True)
def reject_once(self: Any) -> bool:
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not yet", requeue=True)
    return True


@task(acks_late=True, reject_on_worker_lost=True, bind=True)
def kill_own_process_once(self: Any) -> bool:
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def die_once(at: str, path: str) -> None:
    """The first process of all that comes to this step of the chords' protocol is killed there."""
    from celeriac.celery import chords

    def step(name: str) -> None:
        if name == at:
            try:
                Path(path).touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    chords.step = step


if os.environ.get("CELERIAC_TEST_DIE_AT"):
    die_once(*os.environ["CELERIAC_TEST_DIE_AT"].split("@"))


@signals.worker_ready.connect
def count_turns(sender: Any, **kwargs: Any) -> None:
    """On SIGUSR2, write what the event loop and the transport have done since the last one."""
    path = os.environ.get("CELERIAC_TEST_COUNTS")
    if not path:
        return
    from celeriac.celery.poller import Poller
    from celeriac.celery.transport import Transport

    counts = {"turns": 0, "deliveries": 0, "drains": 0, "nudges": 0, "arms": 0}

    def counted(owner: type, name: str, key: str) -> None:
        original = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            counts[key] += 1
            return original(*args, **kwargs)

        setattr(owner, name, wrapper)

    counted(Transport, "_deliver", "deliveries")
    counted(Poller, "drain", "drains")
    counted(Poller, "take_nudge", "nudges")

    class CountingWaiter:
        def __init__(self, waiter: Any) -> None:
            self.waiter = waiter

        def __getattr__(self, name: str) -> Any:
            counts["arms"] += 1
            return getattr(self.waiter, name)

    poller = sender.connection.transport._poller
    if poller is not None:
        poller._waiter = CountingWaiter(poller._waiter)

    def turn() -> None:
        counts["turns"] += 1

    sender.hub.on_tick.add(turn)

    def dump(*args: Any) -> None:
        text = " ".join(f"{key}={value}" for key, value in counts.items())
        with Path(path).open("a") as file:
            file.write(text + "\n")
        for key in counts:
            counts[key] = 0

    signal.signal(signal.SIGUSR2, dump)
