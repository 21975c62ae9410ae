"""Arguments that can't be: an error that says which and what it was, and nothing changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Queue, Store, Table, cached, evict


def loop() -> dict[str, Any]:
    """Headers that JSON can't take."""
    headers: dict[str, Any] = {}
    headers["self"] = headers
    return headers


CACHE: list[tuple[Callable[[Cache], object], type[Exception], str]] = [
    *[
        (call, TypeError, "ttl is a number of seconds or None, not str")
        for call in (
            lambda c: c.set("k", 1, "10"),
            lambda c: c.add("new", 1, "10"),
            lambda c: c.replace("k", 1, "10"),
            lambda c: c.touch("k", "10"),
            lambda c: c.expire("k", "10"),
            lambda c: c.set_many({"k": 1}, "10"),
            lambda c: c.get_or_set("new", list, "10"),
        )
    ],
    (lambda c: c.set("k", 1, math.nan), ValueError, "ttl is a number of seconds, not NaN"),
    (lambda c: c.set("k", 1, [5]), TypeError, "ttl is a number of seconds or None, not list"),
    (lambda c: c.expire_at("k", None), TypeError, "when is a Unix time .* or a datetime, not None"),
    (lambda c: c.expire_at("k", "now"), TypeError, "when is a Unix time .* not str"),
    (lambda c: c.expire_at("k", math.nan), ValueError, "when=nan: a Unix time"),
    (lambda c: c.set_many([("k", 1)]), TypeError, "mapping is a mapping such as a dict, not list"),
    (lambda c: c.set_many("k"), TypeError, "mapping is a mapping .* not str"),
    (lambda c: c.set_many(None), TypeError, "mapping is a mapping .* not NoneType"),
    (lambda c: c.set_many({"k": 1, 5: 2}), TypeError, "a key is str or bytes, not int"),
    (lambda c: c.get_many(None), TypeError, "keys is an iterable of keys, not NoneType"),
    (lambda c: c.get_many(["k", 5]), TypeError, "a key is str or bytes, not int"),
    (lambda c: c.delete_many(7), TypeError, "keys is an iterable of keys, not int"),
    (lambda c: c.delete_many(["k", 5]), TypeError, "a key is str or bytes, not int"),
    (lambda c: c.invalidate(["t"]), TypeError, "a tag is a str, not list"),
    (lambda c: c.invalidate("t", {"t"}), TypeError, "a tag is a str, not set"),
    (lambda c: c.invalidate("t", None), TypeError, "a tag is a str, not NoneType"),
    (lambda c: c.set("k", 1, tags=[["t"]]), TypeError, "a tag is a str, not list"),
    (lambda c: c.set("k", 1, tags=7), TypeError, "tags are a list of str, not int"),
    (lambda c: c.incr("n", 1.5), TypeError, "delta is an int, not float"),
    (lambda c: c.decr("n", "1"), TypeError, "delta is an int, not str"),
    (lambda c: list(c.iter_keys("*", "9")), TypeError, "itersize is an int, not str"),
    (lambda c: list(c.iter_keys("*", 0)), ValueError, "itersize=0: at least 1"),
    (lambda c: c.delete_pattern("*", 2.5), TypeError, "itersize is an int, not float"),
    (lambda c: c.delete_pattern(None), TypeError, "a pattern is a str, not NoneType"),
    (lambda c: c.cull("all"), TypeError, "n is an int, not str"),
    (lambda c: c.cull(2**70), ValueError, "n=1180591620717411303424: at most"),
    (lambda c: c.stats_by_prefix(5), ValueError, "sep=5: one character or more"),
    (lambda c: c.stats_by_prefix(""), ValueError, "sep='': one character or more"),
    (lambda c: c.stats_by_prefix(most="x"), TypeError, "most is an int, not str"),
    (lambda c: c.stats_by_prefix(most=-1), ValueError, "most=-1: at least 0"),
]


@pytest.mark.parametrize(("call", "error", "said"), CACHE)
def test_cache(store: Store, call: Callable[[Any], object], error: Any, said: str) -> None:
    cache = store.cache()
    cache.set("k", "before", 1000, tags=["t"])
    cache.set("n", 5, None)
    with pytest.raises(error, match=said):
        call(cache)
    assert cache.get_many(cache.keys()) == {"k": "before", "n": 5}
    assert 990 < (cache.ttl("k") or 0) <= 1000
    assert cache.ttl("n") is None


TABLE: list[tuple[Callable[[Table], object], type[Exception], str]] = [
    (lambda t: t.compare_and_set("k", "1", 2), TypeError, "version is an int, not str"),
    (lambda t: t.compare_and_set("k", -1, 2), ValueError, "version=-1: an int from 0"),
    (lambda t: t.compare_and_set("k", 0, 2, "9"), TypeError, "ttl is a number .* not str"),
    (lambda t: t.wait_for_change("k", None, 0), TypeError, "seen is an int, not NoneType"),
    (lambda t: t.wait_for_change("k", 2**70, 0), ValueError, "seen=1180591620717411303424: an int"),
    (lambda t: t.wait_for_change("k", 0, "1"), TypeError, "timeout is a number .* not str"),
    (lambda t: t.set("k", 1, "9"), TypeError, "ttl is a number .* not str"),
]


@pytest.mark.parametrize(("call", "error", "said"), TABLE)
def test_table(store: Store, call: Callable[[Any], object], error: Any, said: str) -> None:
    table = store.table("t")
    table.set("k", "before")
    with pytest.raises(error, match=said):
        call(table)
    assert table.items() == [("k", "before")]


QUEUE: list[tuple[Callable[[Queue], object], type[Exception], str]] = [
    *[
        (call, error, said)
        for state in ("ready", "delayed", "dead", "done")
        for call, error, said in (
            (lambda q, s=state: getattr(q, s)(-1), ValueError, "limit=-1: at least 0"),
            (lambda q, s=state: getattr(q, s)("5"), TypeError, "limit is an int, not str"),
            (lambda q, s=state: getattr(q, s)(2**70), ValueError, "limit=1180591620717411303424"),
        )
    ],
    (lambda q: q.put(5), TypeError, "a message body is bytes or str, not int"),
    (lambda q: q.put("b", priority=None), TypeError, "priority is an int, not NoneType"),
    (lambda q: q.put("b", priority=256), ValueError, "priority=256: an int from 0 to 255"),
    (lambda q: q.put("b", priority=2**70), ValueError, "priority=.*: an int from 0 to 255"),
    (lambda q: q.put("b", delay="1"), TypeError, "delay is a number of seconds, not str"),
    (lambda q: q.put("b", delay=None), TypeError, "delay is a number of seconds, not NoneType"),
    (lambda q: q.put("b", delay=-1), ValueError, "delay=-1: .* zero or more"),
    (lambda q: q.put("b", ttl="1"), TypeError, "ttl is a number of seconds or None, not str"),
    (lambda q: q.put("b", headers=[]), TypeError, "headers is a mapping such as a dict, not list"),
    (lambda q: q.put("b", headers="x"), TypeError, "headers is a mapping .* not str"),
    (lambda q: q.put("b", headers=[("a", 1)]), TypeError, "headers is a mapping .* not list"),
    (lambda q: q.put("b", headers={"a": {1}}), TypeError, "headers are .* JSON can take: .* set"),
    (lambda q: q.put("b", headers={(1,): 2}), TypeError, "headers are .* JSON can take"),
    (lambda q: q.put("b", headers=loop()), ValueError, "headers are .* JSON can take"),
    (lambda q: q.put_many(None), TypeError, "bodies is an iterable of bodies, not NoneType"),
    (lambda q: q.put_many("abc"), TypeError, "bodies is an iterable of bodies, not str"),
    (lambda q: q.put_many(["a", 5]), TypeError, "a message body is bytes or str, not int"),
    (lambda q: q.put_many(["a"], headers=5), TypeError, "headers is a mapping .* not int"),
    (lambda q: q.get("1"), TypeError, "timeout is a number of seconds or None, not str"),
    (lambda q: q.get_many("1"), TypeError, "n is an int, not str"),
    (lambda q: q.get_many(1.5), TypeError, "n is an int, not float"),
    (lambda q: q.get_many(1, "1"), TypeError, "timeout is a number of seconds or None, not str"),
]


@pytest.mark.parametrize(("call", "error", "said"), QUEUE)
def test_queue(store: Store, call: Callable[[Any], object], error: Any, said: str) -> None:
    queue = store.queue("q")
    queue.put("before")
    with pytest.raises(error, match=said):
        call(queue)
    assert queue.counts() == (1, 0, 0, 0, 0)
    assert [message.body for message in queue.ready()] == [b"before"]


def test_message(store: Store) -> None:
    queue = store.queue("q")
    queue.put("body")
    message = queue.get(0)
    assert message is not None
    with pytest.raises(TypeError, match="delay is a number of seconds, not str"):
        message.nack("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason is a str, not int"):
        message.nack(reason=5)  # type: ignore[arg-type]
    assert queue.counts().reserved == 1
    message.ack()
    waiter = store.waiter()
    for call in (waiter.watch, waiter.unwatch):
        with pytest.raises(TypeError, match=r"queue is a celeriac\.Queue, not str"):
            call("q")
    waiter.close()


STORE: list[tuple[Callable[[Store], object], type[Exception], str]] = [
    (lambda s: s.queue("q", max_length=2**70), ValueError, "max_length=1180.*: at most 9223"),
    (lambda s: s.queue("q", max_length=2.0), TypeError, "max_length is an int or None, not float"),
    (lambda s: s.queue("q", max_length=True), TypeError, "max_length is an int or None, not bool"),
    (lambda s: s.queue("q", max_deliveries=2**70), ValueError, "max_deliveries=1180.*: at most"),
    (lambda s: s.queue("q", max_deliveries=0), ValueError, "max_deliveries=0: at least 1"),
    (lambda s: s.queue("q", drop_oldest="no"), TypeError, "drop_oldest is True or False, not str"),
    (lambda s: s.queue("q", owner_bound=1), TypeError, "owner_bound is True or False, not int"),
    (lambda s: s.queue("q", create=None), TypeError, "create is True or False, not NoneType"),
    (lambda s: s.queue(5), TypeError, "the name of a queue is a str, not int"),
    (lambda s: s.has_queue(5), TypeError, "the name of a queue is a str, not int"),
    (lambda s: s.cache(5), TypeError, "the name of a namespace is a str, not int"),
    (lambda s: s.cache("c", ttl="5"), TypeError, "ttl is a number of seconds or None, not str"),
    (lambda s: s.cache("c", max_entries=2**70), ValueError, "max_entries=1180.*: at most 9223"),
    (lambda s: s.cache("c", max_entries="5"), TypeError, "max_entries is an int or None, not str"),
    (lambda s: s.cache("c", version=1.5), TypeError, "version is an int, a str or None, not float"),
    (lambda s: s.table(None), TypeError, "the name of a table is a str, not NoneType"),
    (lambda s: s.table("t", ttl="5"), TypeError, "ttl is a number of seconds or None, not str"),
    (lambda s: s.destroy("yes"), TypeError, "force is True or False, not str"),
    (lambda s: celeriac.set_default(s.url), TypeError, "store is a celeriac.Store or None, not"),
]


@pytest.mark.parametrize(("call", "error", "said"), STORE)
def test_store(store: Store, call: Callable[[Any], object], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        call(store)
    assert (store.caches(), store.queues(), store.closed) == ([], [], False)


@pytest.mark.parametrize(
    ("decorate", "said"),
    [
        (lambda f: cached(60, "k", prefix=5)(f), "prefix is a str, not int"),
        (lambda f: cached(60, "k", tags=5)(f), "tags are templates or a callable, not int"),
        (lambda f: cached("60", "k")(f), "ttl is a number of seconds or None, not str"),
        (lambda f: evict("k", prefix=None)(f), "prefix is a str, not NoneType"),
        (lambda f: evict("k", tags=5)(f), "tags are templates or a callable, not int"),
        (lambda f: evict(5)(f), "a key is a template or a callable, not int"),
    ],
)
def test_decorators(decorate: Callable[[Any], object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        decorate(lambda: 1)
