"""Semaphores and leaders: as many as may, and the others wait."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting import LONG, until

import celeriac

Python = Callable[[str], "subprocess.Popen[str]"]


def test_a_semaphore_has_its_permits(store: celeriac.Store) -> None:
    semaphore, other = store.semaphore("s", 2), store.semaphore("s", 2)
    assert (semaphore.name, semaphore.permits) == ("s", 2)
    assert semaphore.acquire()
    assert not semaphore.locked()
    assert other.acquire()
    assert semaphore.locked()
    assert semaphore.acquire(blocking=False) is False
    assert other.acquire(timeout=0.01) is False
    assert len(semaphore.holders()) == 2
    assert semaphore.owner is not None
    assert semaphore.owner.token == semaphore.token
    semaphore.release()
    assert other.acquire(blocking=False)
    with pytest.raises(celeriac.NotOwner, match="no permit of the semaphore 's' is held by this"):
        semaphore.release()
    other.release()
    other.release()
    assert semaphore.holders() == []


def test_permits_are_no_threads(store: celeriac.Store) -> None:
    semaphore = store.semaphore("s", 2)
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    thread.join()
    semaphore.release()
    assert semaphore.holders() == []


def test_another_number_of_permits(store: celeriac.Store) -> None:
    unused = store.semaphore("s", 3)
    with store.semaphore("s", 2):
        text = r"the semaphore \"s\" has permits=2 for those who hold it or wait for it now, not 3"
        with pytest.raises(celeriac.ConfigurationError, match=text):
            store.semaphore("s", 3)
        with pytest.raises(celeriac.ConfigurationError, match=text):
            unused.acquire()
    assert unused.acquire()


def test_permits_of_the_dead_come_back(store: celeriac.Store, python: Python) -> None:
    process = python(
        "s = store.semaphore('s', 3)\nfor _ in range(3): s.acquire()\n"
        "print('held', flush=True); time.sleep(100)"
    )
    assert process.stdout is not None
    process.stdout.readline()
    semaphore = store.semaphore("s", 3)
    assert semaphore.acquire(blocking=False) is False
    process.kill()
    for _ in range(3):
        assert semaphore.acquire(timeout=LONG)
    assert semaphore.acquire(blocking=False) is False


def test_leases_of_permits(store: celeriac.Store) -> None:
    told: list[Any] = []
    semaphore = store.semaphore("s", 1, ttl=0.02, on_lost=told.append)
    semaphore.acquire()
    assert store.semaphore("s", 1).acquire(timeout=LONG)
    until(lambda: told == [semaphore])
    with pytest.raises(celeriac.LockLost, match="semaphore 's'"):
        semaphore.renew()
    with pytest.raises(celeriac.NotOwner):
        semaphore.renew()


def test_renewing_permits(store: celeriac.Store) -> None:
    semaphore = store.semaphore("s", 2, ttl=LONG)
    semaphore.acquire()
    semaphore.acquire()
    semaphore.renew(1000)
    assert all((info.ttl or 0) > 900 for info in store.locks())


def test_one_leads(store: celeriac.Store) -> None:
    leader, other = store.leader("l"), store.leader("l")
    assert not leader.is_leader
    assert leader.acquire()
    assert leader.acquire(), "it leads already"
    assert leader.is_leader
    assert other.acquire(timeout=0.01) is False
    assert other.owner is not None
    assert (other.owner.pid, other.owner.token) == (os.getpid(), leader.token)
    thread = threading.Thread(target=leader.release)
    thread.start()
    thread.join()
    assert not leader.is_leader
    with other:
        assert other.is_leader
        with pytest.raises(celeriac.NotOwner, match="leader 'l' is not this handle"):
            leader.release()


def test_another_leads_when_the_leader_dies(store: celeriac.Store, python: Python) -> None:
    code = """
with store.leader('l') as leader:
    print(leader.token, flush=True)
    time.sleep(100)
"""
    processes = [python(code) for _ in range(3)]
    tokens = []
    leader = store.leader("l")
    while processes:
        until(lambda: leader.waiting() == len(processes) - 1 and leader.owner is not None)
        assert leader.owner is not None
        pid = leader.owner.pid
        (leading,) = [p for p in processes if p.pid == pid]
        assert leading.stdout is not None
        tokens.append(int(leading.stdout.readline()))
        processes.remove(leading)
        leading.kill()
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 3
    assert leader.acquire(timeout=LONG)


def test_a_loop_of_the_leader(store: celeriac.Store) -> None:
    leader, other = store.leader("l"), store.leader("l")
    other.acquire()
    rounds: list[int] = []

    def lead() -> None:
        for token in leader:
            rounds.append(token)
            if len(rounds) == 3:
                break

    thread = threading.Thread(target=lead)
    thread.start()
    until(other.waiting)
    assert rounds == []
    other.release()
    thread.join(LONG)
    assert len(rounds) == 3
    assert len(set(rounds)) == 1
    until(lambda: not leader.locked())


def test_a_leader_whose_lease_is_over_waits_again(store: celeriac.Store) -> None:
    leader, other = store.leader("l", ttl=0.05), store.leader("l", ttl=1000)
    tokens = []
    for token in leader:
        tokens.append(token)
        if len(tokens) == 1:
            assert other.acquire(timeout=LONG)
            assert not leader.is_leader
            other.release()
        else:
            break
    assert tokens[0] < tokens[1]


def test_campaigns(store: celeriac.Store) -> None:
    other = store.leader("l")
    other.acquire()
    elected: list[int] = []
    leader = store.leader("l")
    leader.campaign(elected.append)
    with pytest.raises(RuntimeError, match="campaign for the leader 'l' is under way"):
        leader.campaign(elected.append)
    until(other.waiting)
    leader.release()  # ends it
    until(lambda: not other.waiting())
    until(lambda: leader._campaign is not None and not leader._campaign.is_alive())
    leader.campaign(elected.append)
    until(other.waiting)
    assert elected == []
    other.release()
    until(lambda: elected)
    assert leader.is_leader
    assert elected == [leader.token]
    leader.release()
    assert not leader.is_leader


def test_a_campaign_that_fails(store: celeriac.Store, caplog: pytest.LogCaptureFixture) -> None:
    def fail(token: int) -> None:
        raise ZeroDivisionError

    leader = store.leader("l")
    leader.campaign(fail)
    until(lambda: "on_elected of the leader 'l' failed" in caplog.text)
    until(lambda: not leader.locked())


def test_a_leader_that_does_not_renew_is_told(store: celeriac.Store) -> None:
    lost: list[Any] = []
    leader = store.leader("l", ttl=0.05)
    leader.campaign(lambda token: None, lost.append)
    until(lambda: lost == [leader])
    assert not leader.is_leader
    renewed = store.leader("m", ttl=0.2)
    renewed.campaign(lambda token: None, lost.append)
    until(lambda: renewed.is_leader)
    ends = time.monotonic() + 0.4
    while time.monotonic() < ends:
        renewed.renew(1000)
        time.sleep(0.01)
    assert renewed.is_leader
    assert renewed not in lost


def test_a_lease_begins_as_it_is_granted(store: celeriac.Store) -> None:
    other = store.leader("l")
    other.acquire()
    leader = store.leader("l", ttl=0.5)
    thread = threading.Thread(target=leader.acquire)
    thread.start()
    until(other.waiting)
    time.sleep(0.6)  # longer than the lease
    other.release()
    thread.join(LONG)
    assert leader.is_leader
    until(lambda: not leader.is_leader)
