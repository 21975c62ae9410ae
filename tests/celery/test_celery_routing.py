"""Exchanges and bindings that every process sees."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from kombu.exceptions import ChannelError

import celeriac
from celeriac.celery.routing import Routes, topic_matches


@pytest.fixture
def routes(store_url: str) -> Routes:
    return Routes(celeriac.connect(store_url).table("exchanges"))


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("a", "a.b", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("*", "", False),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "b", False),
        ("#.z", "z", True),
        ("#.z", "x.y.z", True),
        ("#.z", "z.y", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.z.c.z", True),
        ("a.#.z", "a.b", False),
        ("a.*.z", "a.z", False),
        ("a.*.z", "a.b.z", True),
        ("#.#", "", True),
        ("*.#", "a", True),
        ("*.#", "", False),
        ("#.b.#.d", "a.b.c.b.x.d", True),
        ("worker.#", "worker.heartbeat", True),
        ("a.+", "a.b", False),
        ("a.b", "a.xb", False),
    ],
)
def test_topic_matches(pattern: str, key: str, matches: bool) -> None:
    assert topic_matches(pattern, key) is matches


def test_direct_routes_by_equal_key(routes: Routes) -> None:
    routes.declare("d", "direct")
    for key, queue in [("k1", "a"), ("k1", "b"), ("k2", "b"), ("k1", "a")]:
        routes.bind("d", key, queue)
    exchange = routes.get("d")
    assert exchange is not None
    assert exchange.route("k1") == ("a", "b")
    assert exchange.route("k2") == ("b",)
    assert exchange.route("k3") == ()


def test_a_queue_bound_twice_gets_a_message_once(routes: Routes) -> None:
    routes.declare("t", "topic")
    routes.bind("t", "a.*", "q")
    routes.bind("t", "#", "q")
    exchange = routes.get("t")
    assert exchange is not None
    assert exchange.route("a.b") == ("q",)


def test_fanout_ignores_the_key(routes: Routes) -> None:
    routes.declare("f", "fanout")
    routes.bind("f", "", "a")
    routes.bind("f", "x", "b")
    exchange = routes.get("f")
    assert exchange is not None
    assert exchange.route("anything") == ("a", "b")


def test_unbinding_takes_one_binding_and_forgetting_takes_all(routes: Routes) -> None:
    routes.declare("d", "direct")
    routes.declare("e", "fanout")
    for key in ("k1", "k2"):
        routes.bind("d", key, "a")
    routes.bind("e", "", "a")
    routes.unbind("d", "k1", "a")
    assert sorted(routes.bindings()) == [("a", "d", "k2"), ("a", "e", "")]
    routes.forget_queue("a")
    assert list(routes.bindings()) == []
    assert sorted(routes.names()) == ["d", "e"]


def test_another_type_is_refused(routes: Routes) -> None:
    routes.declare("x", "direct", durable=True)
    routes.declare("x", "direct", durable=False)
    with pytest.raises(ChannelError, match="PRECONDITION_FAILED"):
        routes.declare("x", "topic")
    with pytest.raises(ChannelError, match="headers"):
        routes.declare("y", "headers")


def test_binding_to_nothing_is_refused(routes: Routes) -> None:
    with pytest.raises(ChannelError, match="NOT_FOUND") as caught:
        routes.bind("nothing", "", "q")
    assert caught.value.reply_code == "404"
    routes.bind("amq.topic", "#", "q")
    assert list(routes.bindings()) == [("q", "amq.topic", "#")]


def test_another_view_sees_a_change_at_once(store_url: str) -> None:
    one = Routes(celeriac.connect(store_url).table("exchanges"))
    two = Routes(celeriac.connect(store_url).table("exchanges"))
    assert two.get("d") is None
    one.declare("d", "direct")
    seen = two.get("d")
    assert seen is not None
    assert seen.route("k") == ()
    one.bind("d", "k", "q")
    seen = two.get("d")
    assert seen is not None
    assert seen.route("k") == ("q",)
    assert two.get("d") is seen, "parsed again without a change"
    one.delete("d")
    assert two.get("d") is None
    one.declare("d", "fanout")
    seen = two.get("d")
    assert seen is not None
    assert seen.type == "fanout"
    assert seen.bindings == []


def test_another_process_sees_it(store_url: str, routes: Routes) -> None:
    routes.declare("d", "direct")
    routes.bind("d", "k", "here")
    code = (
        "import sys, celeriac\n"
        "from celeriac.celery.routing import Routes\n"
        "routes = Routes(celeriac.connect(sys.argv[1]).table('exchanges'))\n"
        "print(routes.get('d').route('k'))\n"
        "routes.bind('d', 'k', 'there')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store_url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "('here',)", done.stderr
    exchange = routes.get("d")
    assert exchange is not None
    assert exchange.route("k") == ("here", "there")


def test_no_binding_is_lost_between_writers(store_url: str, routes: Routes) -> None:
    routes.declare("d", "fanout")

    def bind(writer: int) -> None:
        own = Routes(celeriac.connect(store_url).table("exchanges"))
        for number in range(25):
            own.bind("d", "", f"q{writer}.{number}")

    threads = [threading.Thread(target=bind, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    exchange = routes.get("d")
    assert exchange is not None
    assert len(exchange.route("")) == 100


def test_a_queue_that_is_back_keeps_its_binding(routes: Routes) -> None:
    """A publisher found a queue gone; its next incarnation binds before he has cleaned up."""
    routes.declare("d", "fanout")
    routes.bind("d", "", "q")
    asked = 0

    def back_in_time() -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:  # between the publisher's look and his write
            routes.bind("d", "", "q", always=True)
            return False
        return True

    assert routes.forget_queue("q", "d", unless=back_in_time) is False
    assert asked == 2, "the write went through over the new binding"
    assert list(routes.bindings()) == [("q", "d", "")]
