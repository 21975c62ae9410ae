"""Tasks with an ETA: held by the store, listed, revoked, there after restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import kombu
import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.worker.request import Request
from processes import wait_until

import celeriac
from celeriac.celery import revocations, worker
from celeriac.celery.messages import decode_frame, seconds_to_eta

Connect = Callable[..., kombu.Connection]

PATIENCE = 60
NODE = "w1@test"


def test_an_eta_without_time_zone_is_in_the_one_that_is_given(connect: Connect) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    there = datetime.now(berlin).replace(tzinfo=None) + timedelta(seconds=90)
    headers = {"eta": there.isoformat()}
    assert seconds_to_eta(headers) == 0
    assert 80 < seconds_to_eta(headers, zone=berlin) < 91
    aware = {"eta": (datetime.now(timezone.utc) + timedelta(seconds=30)).isoformat()}
    assert 20 < seconds_to_eta(aware, zone=berlin) < 31
    for options, delayed in (({}, 0), ({"eta_timezone": "Europe/Berlin"}, 1)):
        channel = connect(**options).default_channel
        kombu.Producer(channel).publish("x", routing_key="q", headers=headers)
        queue = channel.broker.store.queue("q")
        assert queue.counts().delayed == delayed
        queue.purge()


def test_what_inspect_lists_is_what_a_request_says_of_itself(store_url: str) -> None:
    """The keys, and for a task that the store holds the values, are those of Celery's own."""
    app = Celery("x", broker=f"celeriac+{store_url}", set_as_current=False)

    @app.task(name="t", shared=False)
    def t(*args: Any, **kwargs: Any) -> None: ...

    t.apply_async((1, "a"), {"k": None}, countdown=3600, priority=7, task_id="i")
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        (peeked,) = channel.broker.store.queue("celery").delayed()
        native = _Taken(peeked)
        message = channel.Message(native, channel, 1)
        request = Request(message, app=app, task=t, hostname=NODE)
        listed = worker._describe(*decode_frame(peeked.body), app, NODE)
    theirs = json.loads(json.dumps(request.info()))
    assert json.loads(json.dumps(listed["request"])) == theirs
    assert listed["eta"] == request.eta.isoformat()
    assert listed["priority"] == 7
    assert listed.keys() == {"eta", "priority", "request"}
    app.close()


class _Taken:
    """A message that was looked at, as if it had been taken."""

    redelivered = False

    def __init__(self, peeked: Any) -> None:
        self.body = peeked.body


def overheard(store_url: str, **message: Any) -> set[str]:
    """What is revoked after a control message was published."""
    connection = kombu.Connection(f"celeriac+{store_url}")
    kombu.Exchange("celery.pidbox", type="fanout")(connection.default_channel).declare()
    body = message.pop("body")
    producer = kombu.Producer(connection.default_channel)
    producer.publish(body, exchange=message.pop("exchange", "celery.pidbox"), **message)
    connection.release()
    return {key for key, _ in celeriac.connect(store_url).table("celeriac.celery.revoked").items()}


def test_only_commands_to_revoke_are_noted(store_url: str) -> None:
    one = {"method": "revoke", "arguments": {"task_id": "a", "terminate": False}}
    many = {"method": "revoke", "arguments": {"task_id": ["b", "c", 5, ""], "terminate": True}}
    other = {"method": "rate_limit", "arguments": {"task_id": "d"}}
    assert overheard(store_url, body=other) == set()
    assert overheard(store_url, body="no dict") == set()
    assert overheard(store_url, body={"method": "revoke", "arguments": None}) == set()
    assert overheard(store_url, body=b"\xff", content_type="x", content_encoding="binary") == set()
    assert overheard(store_url, body=one) == {"a"}
    assert overheard(store_url, body=many, serializer="pickle") == {"a", "b", "c"}


def test_the_oldest_give_way(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST", 20)
    noted = revocations.Revocations(celeriac.connect(store_url).table("celeriac.celery.revoked"))
    for number in range(25):
        noted.note([str(number)])
    kept = [number for number in range(25) if str(number) in noted]
    assert kept[-1] == 24
    assert 15 <= len(kept) <= 20
    assert kept == list(range(kept[0], 25))
    assert 5 not in noted


@pytest.mark.worker
def test_a_task_that_was_revoked_while_no_worker_ran_is_dropped(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    slow = app.tasks["worker_app.slow"]
    revoked = [slow.apply_async((str(n), 0), countdown=1) for n in range(3)]
    kept = slow.apply_async(("kept", 0), countdown=1)
    app.control.revoke([result.id for result in revoked[:2]])
    app.control.terminate(revoked[2].id)
    process = worker("w1", pool="solo")
    assert kept.get(timeout=PATIENCE) == "kept"
    for result in revoked:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)
        assert result.state == "REVOKED"
    assert process.noted() == ["start kept", "end kept"]
    wait_until(
        lambda: celeriac.connect(store_url).queue("celery").counts()[:3] == (0, 0, 0),
        what="an empty queue",
    )


@pytest.mark.worker
def test_etas_and_revocations_survive_a_killed_worker(app: Any, worker: Callable[..., Any]) -> None:
    first = worker("w1", pool="solo")
    slow = app.tasks["worker_app.slow"]
    kept = slow.apply_async(("kept", 0), countdown=8, priority=9)
    revoked = slow.apply_async(("revoked", 0), countdown=8)
    app.control.revoke(revoked.id)
    listed = app.control.inspect([NODE], timeout=10).scheduled()[NODE]
    assert {entry["request"]["id"] for entry in listed} == {kept.id, revoked.id}
    assert {entry["priority"] for entry in listed} == {9, 6}  # as Celery's own timer shows it
    first.kill()
    worker("w2", pool="solo")
    assert kept.get(timeout=PATIENCE) == "kept"
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=PATIENCE)
    assert first.noted() == ["start kept", "end kept"]
