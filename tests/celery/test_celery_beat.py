"""``celeriac.celery.beat:Scheduler``: one of many beats leads, and each occurrence is run once."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.schedules import crontab
from processes import wait_until

import celeriac
from celeriac.celery.beat import TABLE, Scheduler
from celeriac.celery.broker import ONCE

SCHEDULER = "celeriac.celery.beat:Scheduler"
HOURLY = {"task": "t", "schedule": 3600.0, "args": (1,)}


@pytest.fixture
def make(store_url: str) -> Iterator[Callable[..., Scheduler]]:
    """Makes schedulers of one application, each with an application object of its own."""
    made: list[Any] = []

    def build(schedule: dict[str, Any] | None = None, **settings: Any) -> Scheduler:
        app = Celery("beaten", broker=f"celeriac+{store_url}", set_as_current=False)
        app.conf.beat_schedule = {"hourly": HOURLY} if schedule is None else schedule
        app.conf.update(settings)
        made.append(app)
        scheduler = Scheduler(app, max_interval=0.05)
        scheduler.made = made  # type: ignore[attr-defined]
        return scheduler

    yield build
    for app in made:
        app.close()


def state(store_url: str, entry: str = "hourly", name: str = "beaten") -> dict[str, Any] | None:
    """What is written of an entry."""
    value = celeriac.connect(store_url).table(TABLE).get(f"{name} entry {entry}")
    return None if value is None else json.loads(value)


def make_due(store_url: str, entry: str = "hourly") -> None:
    """Let an entry have run two hours ago."""
    table = celeriac.connect(store_url).table(TABLE)
    written = state(store_url, entry)
    assert written is not None
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 7200))
    table.set(f"beaten entry {entry}", json.dumps({**written, "last_run_at": moment}))


def delivered(store_url: str) -> list[str]:
    """Takes all that a consumer is given, and acknowledges it: the occurrences."""
    app = Celery("consumer", broker=f"celeriac+{store_url}", set_as_current=False)
    found = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        while (message := channel.basic_get("celery")) is not None:
            found.append(message.properties[ONCE])
            message.ack()
    app.close()
    return found


def in_a_child(body: Callable[[], None]) -> None:
    """Run something in a process that then dies as by SIGKILL."""
    child = os.fork()
    if not child:
        try:
            body()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_due_entry_is_sent_once_and_noted(make: Callable[..., Scheduler], store_url: str) -> None:
    scheduler = make()
    scheduler.tick()
    assert delivered(store_url) == [], "an entry that is new is not due at once"
    assert state(store_url)["total_run_count"] == 0  # type: ignore[index]
    scheduler.close()
    make_due(store_url)
    following = make()
    for _ in range(3):
        following.tick()
    written = state(store_url)
    assert written is not None
    assert written["total_run_count"] == 1
    assert "sending" not in written
    assert len(delivered(store_url)) == 1


def test_only_the_leader_sends(make: Callable[..., Scheduler], store_url: str) -> None:
    leader, other = make(), make()
    leader.tick()
    make_due(store_url)
    for _ in range(3):
        assert other.tick() == 0
    assert delivered(store_url) == []
    leader.close()
    other.tick()
    assert len(delivered(store_url)) == 1


@pytest.mark.parametrize("consumed", [False, True], ids=["waiting", "consumed"])
@pytest.mark.parametrize("step", ["before the note", "before sending", "after sending", "after"])
def test_a_leader_that_dies_at_any_step_leaves_one_task(
    make: Callable[..., Scheduler], store_url: str, step: str, consumed: bool
) -> None:
    make().tick()
    make_due(store_url)

    def die(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def lead_and_die() -> None:
        scheduler = make()
        scheduler._leads = True  # the parent's process, whose lead this is, goes on living
        scheduler.table.delete("beaten leader")
        scheduler._leads = scheduler._take_the_lead("beaten leader")
        scheduler._load()
        if step == "before the note":
            scheduler.reserve = die  # type: ignore[method-assign]
        elif step == "before sending":
            scheduler.app.send_task = die
        elif step == "after sending":
            original = scheduler._note
            scheduler._note = (  # type: ignore[method-assign]
                lambda entry, sending=None: original(entry, sending) if sending else die()
            )
        scheduler.tick()

    in_a_child(lead_and_die)
    before = delivered(store_url) if consumed else []
    written = state(store_url)
    assert written is not None
    assert ("sending" in written) == (step in ("before sending", "after sending"))
    assert written["total_run_count"] == (0 if step == "before the note" else 1)
    following = make()
    for _ in range(3):
        following.tick()
    occurrences = before + delivered(store_url)
    assert len(occurrences) == 1, f"died {step}"
    written = state(store_url)
    assert written is not None
    assert written["total_run_count"] == 1
    assert "sending" not in written


def test_a_task_that_was_sent_twice_all_the_same_is_delivered_once(
    make: Callable[..., Scheduler], store_url: str
) -> None:
    """A worker had just taken it, and hadn't claimed it yet, when the next leader looked."""
    scheduler = make()
    scheduler.tick()
    entry = scheduler.schedule["hourly"]
    for _ in range(2):
        scheduler._sending["hourly"] = "the-occurrence"
        scheduler.apply_async(entry, producer=scheduler.producer, advance=False)
    assert celeriac.connect(store_url).queue("celery").counts().ready == 2
    with scheduler.app.connection_for_read() as connection:
        channel = connection.default_channel
        message = channel.basic_get("celery")
        assert message.headers["id"] == "the-occurrence"
        message.requeue()
        again = channel.basic_get("celery")
        assert again is not None, "the same message is delivered as often as it takes"
        assert again.delivery_info["redelivered"]
        assert channel.basic_get("celery") is None
        again.ack()
        assert channel.basic_get("celery") is None
    assert celeriac.connect(store_url).queue("celery").counts()[:3] == (0, 0, 0)


def test_a_retry_of_a_task_is_no_second_occurrence(
    make: Callable[..., Scheduler], store_url: str
) -> None:
    """Retries take headers and id of the first message; the mark isn't among them."""
    scheduler = make()
    scheduler.tick()

    @scheduler.app.task(name="t", shared=False, bind=True)
    def t(self: Any, number: int) -> None: ...

    scheduler.app.finalize()
    scheduler.apply_async(scheduler.schedule["hourly"], producer=scheduler.producer)
    with scheduler.app.connection_for_read() as connection:
        channel = connection.default_channel
        first = channel.basic_get("celery", no_ack=True)
        t.push_request(
            **{**first.headers, "args": [1], "kwargs": {}, "called_directly": False},
            delivery_info=first.delivery_info,
        )
        t.signature_from_request(countdown=0, retries=1).apply_async()
        second = channel.basic_get("celery", no_ack=True)
        t.pop_request()
    assert second is not None
    assert second.headers["retries"] == 1
    assert second.headers["id"] == first.headers["id"]


def test_entries_come_go_and_change(make: Callable[..., Scheduler], store_url: str) -> None:
    first = make({"stays": HOURLY, "goes": HOURLY, "changes": HOURLY})
    first.tick()
    first.close()
    for entry in ("stays", "goes", "changes"):
        make_due(store_url, entry)
    changed = {**HOURLY, "schedule": crontab(minute="*/5"), "args": (2,)}
    second = make({"stays": HOURLY, "comes": HOURLY, "changes": changed})
    for _ in range(4):
        second.tick()
    assert state(store_url, "goes") is None
    counts = {}
    for name in ("stays", "comes", "changes"):
        written = state(store_url, name)
        assert written is not None
        counts[name] = written["total_run_count"]
    assert counts == {"stays": 1, "comes": 0, "changes": 1}
    assert len(delivered(store_url)) == 2


def test_crontabs_in_a_time_zone_keep_their_time(
    make: Callable[..., Scheduler], store_url: str
) -> None:
    schedule = {"daily": {"task": "t", "schedule": crontab(hour="0", minute="0")}}
    first = make(schedule, timezone="Pacific/Auckland")
    first.tick()
    first.close()
    table = celeriac.connect(store_url).table(TABLE)
    noted = first.app.now() - timedelta(days=2)
    value = {"last_run_at": noted.astimezone().isoformat(), "total_run_count": 7}
    table.set("beaten entry daily", json.dumps(value))
    second = make(schedule, timezone="Pacific/Auckland")
    for _ in range(3):
        second.tick()
    written = state(store_url, "daily")
    assert written is not None
    assert written["total_run_count"] == 8
    assert second.schedule["daily"].is_due()[0] is False
    assert len(delivered(store_url)) == 1


def test_a_task_that_cannot_be_sent_is_logged_and_not_repeated(
    make: Callable[..., Scheduler], store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    celeriac.connect(store_url).queue("celery", max_length=1).put(b"full")
    scheduler = make()
    scheduler.tick()
    scheduler.close()
    make_due(store_url)
    following = make()
    for _ in range(3):
        following.tick()
    assert "Couldn't apply scheduled task hourly" in caplog.text
    written = state(store_url)
    assert written is not None
    assert written["total_run_count"] == 1
    assert "sending" not in written


def test_applications_of_one_store_have_their_own_leaders(
    make: Callable[..., Scheduler], store_url: str
) -> None:
    ours = make()
    ours.tick()
    app = Celery("another", broker=f"celeriac+{store_url}", set_as_current=False)
    app.conf.beat_schedule = {"hourly": HOURLY}
    theirs = Scheduler(app, max_interval=0.05)
    assert theirs.tick() > 0
    assert state(store_url, name="another") is not None
    app.close()


def test_a_destroyed_store_is_begun_anew(make: Callable[..., Scheduler], store_url: str) -> None:
    scheduler = make()
    scheduler.tick()
    celeriac.connect(store_url).destroy(force=True)
    scheduler.tick()
    assert state(store_url) is not None


def test_another_broker_is_refused_with_the_reason() -> None:
    app = Celery("elsewhere", broker="memory://", set_as_current=False)
    with pytest.raises(celeriac.ConfigurationError, match="broker_url is memory://"):
        Scheduler(app)
    app.close()


@pytest.mark.worker
def test_of_three_beats_one_leads_until_it_is_killed_and_nothing_is_lost_or_repeated(
    worker: Callable[..., Any], celery: Callable[..., Any], store_url: str
) -> None:
    process = worker("w1", pool="solo")
    options = ["--scheduler", SCHEDULER, "--pidfile=", "--loglevel", "INFO"]
    beats = [celery(f"beat{n}", "beat", *options, CELERIAC_TEST_BEAT="0.2") for n in range(3)]
    for beat in beats:
        beat.wait_for("beat: Starting...")
    alive = list(beats)

    def leading() -> Any:
        leaders = [beat for beat in alive if "Leading from now on" in beat.text()]
        assert len(leaders) <= 1, "two lead"
        return leaders[0] if leaders else None

    def run_count() -> int:
        written = state(store_url, "tick", "worker_app")
        return written["total_run_count"] if written else 0

    for how in ("kill", "terminate"):
        leader = wait_until(leading, what="a leader")
        begun = run_count()
        wait_until(lambda begun=begun: run_count() >= begun + 4, what="four ticks")
        alive.remove(leader)
        getattr(leader, how)()
    last = wait_until(leading, what="the last leader")
    begun = run_count()
    wait_until(lambda: run_count() >= begun + 4, what="four ticks of the last one")
    assert last.terminate() == 0
    # The signal may have come while a task was on its way. Whoever leads next sees to that one; an
    # hour is too long for it to send another.
    finishing = celery("beat3", "beat", *options, CELERIAC_TEST_BEAT="3600")
    finishing.wait_for("Leading from now on")
    wait_until(lambda: "sending" not in (state(store_url, "tick", "worker_app") or "sending"))
    assert finishing.terminate() == 0
    wait_until(lambda: process.noted().count("beat") >= run_count(), what="all runs")
    assert process.noted().count("beat") == run_count()
    lead = celeriac.connect(store_url).table(TABLE).get("worker_app leader")
    assert lead is None, "a beat that ends in good order gives the lead back"


@pytest.mark.worker
def test_a_beat_that_only_waits_stops_at_once(
    celery: Callable[..., Any], make: Callable[..., Scheduler]
) -> None:
    leader = make()
    leader._name = "worker_app"
    leader.tick()
    waiting = celery("beat", "beat", "--scheduler", SCHEDULER, "--pidfile=", "--loglevel", "INFO")
    waiting.wait_for("beat: Starting...")
    time.sleep(0.5)
    assert waiting.terminate() == 0
    assert "Leading" not in waiting.text()


@pytest.mark.worker
def test_beat_on_a_file_store(celery: Callable[..., Any], tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store-{uuid.uuid4().hex[:6]}?memory=32M"
    celery("beat", "beat", "--scheduler", SCHEDULER, "--pidfile=", CELERIAC_TEST_URL=url)
    wait_until(lambda: celeriac.connect(url).table(TABLE).items(), what="beat's entries")
