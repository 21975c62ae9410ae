"""Remote control, events, mingle and gossip, beat, Flower: what people look at a worker with."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_until

import celeriac

pytestmark = pytest.mark.worker

PATIENCE = 60
NODE = "w1@test"


def test_inspect_and_control(app: Any, worker: Callable[..., Any], store_url: str) -> None:
    process = worker("w1")
    slow = app.tasks["worker_app.slow"].delay("x", 3)
    wait_until(lambda: process.noted() == ["start x"], what="the task to start")
    inspect = app.control.inspect([NODE], timeout=10)
    assert inspect.ping() == {NODE: {"ok": "pong"}}
    assert [task["id"] for task in inspect.active()[NODE]] == [slow.id]
    assert "worker_app.add" in inspect.registered()[NODE]
    stats = inspect.stats()[NODE]
    assert stats["pid"] == process.pid
    assert stats["broker"]["transport"] == "celeriac"
    assert inspect.scheduled() == {NODE: []}
    assert inspect.reserved()[NODE] == []

    def consumed() -> set[str]:
        return {queue["name"] for queue in inspect.active_queues()[NODE]}

    assert consumed() >= {"celery", "other"}
    control = app.control
    assert control.rate_limit("worker_app.add", "10/m", destination=[NODE], reply=True, timeout=10)
    assert control.cancel_consumer("other", destination=[NODE], reply=True, timeout=10)
    wait_until(lambda: "other" not in consumed(), what="the queue to be left")
    assert control.add_consumer("third", destination=[NODE], reply=True, timeout=10)
    third = app.tasks["worker_app.describe"].apply_async(queue="third")
    assert third.get(timeout=PATIENCE)["queue"] == "third"
    assert control.pool_grow(1, destination=[NODE], reply=True, timeout=10)
    wait_until(lambda: len(inspect.stats()[NODE]["pool"]["processes"]) == 3, what="a third child")

    later = app.tasks["worker_app.add"].apply_async((3,), {"y": 4}, countdown=3600, priority=5)
    app.tasks["worker_app.add"].apply_async((1, 2), countdown=7200, queue="third")
    waiting = inspect.scheduled()[NODE]
    assert len(waiting) == 2, waiting
    first, second = waiting
    assert first["request"]["id"] == later.id
    assert first["request"]["name"] == "worker_app.add"
    assert first["request"]["args"] == [3]
    assert first["request"]["kwargs"] == {"y": 4}
    assert first["priority"] == 5
    assert first["eta"] < second["eta"]
    assert second["request"]["delivery_info"]["routing_key"] == "third"

    revoked = app.tasks["worker_app.slow"].apply_async(("never", 1), countdown=2)
    control.revoke(revoked.id, destination=[NODE], reply=True, timeout=10)
    with pytest.raises(Exception, match="revoked"):
        revoked.get(timeout=PATIENCE)
    assert "start never" not in process.noted()

    replies = [q for q in celeriac.connect(store_url).queues() if "reply" in q]
    assert replies == [], "reply queues stay behind"

    control.shutdown(destination=[NODE])
    assert process.process.wait(PATIENCE) == 0


def test_the_command_line_finds_the_worker(
    worker: Callable[..., Any], celery: Callable[..., Any]
) -> None:
    worker("w1")
    ping = celery("ping", "inspect", "ping", "--timeout", "10", "--destination", NODE)
    assert ping.process.wait(PATIENCE) == 0, ping.text()
    assert "pong" in ping.text()


def test_events_are_captured(app: Any, worker: Callable[..., Any]) -> None:
    worker("w1")
    seen: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        ready = threading.Event()

        def capture() -> None:
            def on_ready(*args: Any, **kwargs: Any) -> None:
                ready.set()

            receiver.on_consume_ready = on_ready
            receiver.capture(limit=None, timeout=None, wakeup=False)

        thread = threading.Thread(target=capture, daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        result = app.tasks["worker_app.add"].delay(1, 1)
        assert result.get(timeout=PATIENCE) == 2

        def types() -> set[str]:
            return {event["type"] for event in seen if event.get("uuid") == result.id}

        expected = {"task-sent", "task-received", "task-started", "task-succeeded"}
        wait_until(lambda: types() == expected, what=f"events, not {types()}")
        wait_until(
            lambda: any(event["type"] == "worker-heartbeat" for event in seen),
            what="a heartbeat",
        )
        receiver.should_stop = True
        app.tasks["worker_app.add"].delay(1, 1)  # one event more, so that it looks
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_workers_mingle_and_gossip(app: Any, worker: Callable[..., Any]) -> None:
    first = worker("w1", "--loglevel", "DEBUG")
    assert "mingle: searching for neighbors" in first.text()
    assert "mingle: all alone" in first.text()
    second = worker("w2", "--loglevel", "DEBUG")
    assert "mingle: sync with 1 nodes" in second.text()
    first.wait_for("w2@test joined the party")
    second.terminate()
    first.wait_for("w2@test left")


def test_beat_sends_tasks(worker: Callable[..., Any], celery: Callable[..., Any]) -> None:
    process = worker("w1")
    celery("beat", "beat", "--schedule", "beat-schedule", CELERIAC_TEST_BEAT="1")
    wait_until(lambda: process.noted().count("beat") >= 2, what="two ticks of beat")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_flower_shows_the_worker(
    app: Any, worker: Callable[..., Any], celery: Callable[..., Any]
) -> None:
    pytest.importorskip("flower", reason="pip install flower")
    worker("w1")
    port = free_port()
    flower = celery(
        "flower", "flower", "--address=127.0.0.1", f"--port={port}", FLOWER_UNAUTHENTICATED_API="1"
    )

    def fetch(path: str) -> Any:
        assert flower.process.poll() is None, flower.text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def shown() -> Any:
        return (fetch("/api/workers?refresh=1") or {}).get(NODE)

    details = wait_until(shown, what="the worker in Flower's API")
    assert "worker_app.add" in details["registered"]
    assert {queue["name"] for queue in details["active_queues"]} >= {"celery", "other"}
    result = app.tasks["worker_app.add"].delay(20, 22)
    assert result.get(timeout=PATIENCE) == 42

    def finished() -> Any:
        task = (fetch("/api/tasks") or {}).get(result.id)
        return task and task["state"] == "SUCCESS"

    wait_until(finished, what="the task in Flower's API")
