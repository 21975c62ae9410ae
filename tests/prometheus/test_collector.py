"""celeriac.prometheus.collector(): a store's own statistics."""

from __future__ import annotations

import pytest

prometheus_client = pytest.importorskip(
    "prometheus_client", reason="the extra celeriac[prometheus] isn't installed"
)

import celeriac  # noqa: E402
from celeriac import own_metrics  # noqa: E402
from celeriac.errors import StoreNotFound  # noqa: E402
from celeriac.prometheus import collector  # noqa: E402


def registry_of(store: celeriac.Store) -> prometheus_client.CollectorRegistry:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector(store))
    return registry


def test_caches_queues_limits_and_locks(store: celeriac.Store) -> None:
    cache = store.cache("c")
    cache.set("k", "v")
    cache.get("k")
    cache.get("absent")
    queue = store.queue("mail")
    queue.put_many([b"1", b"2", b"3"])
    queue.put(b"later", delay=100)
    message = queue.get(0)
    assert message is not None
    store.limiter("5/day").hit("k")
    value = registry_of(store).get_sample_value
    with store.lock("l"):
        assert value("celeriac_locks", {"kind": "lock", "state": "held"}) == 1
        assert (value("celeriac_lock_oldest_seconds", {"kind": "lock"}) or 0) > 0
    assert value("celeriac_locks", {"kind": "lock", "state": "held"}) == 0
    assert value("celeriac_up") == 1
    assert value("celeriac_cache_hits_total", {"cache": "c"}) == 1
    assert value("celeriac_cache_misses_total", {"cache": "c"}) == 1
    assert value("celeriac_cache_entries", {"cache": "c"}) == 1
    states = {s: value("celeriac_queue_messages", {"queue": "mail", "state": s}) for s in STATES}
    assert states == {"ready": 2, "delayed": 1, "reserved": 1, "dead": 0, "done": 0}
    assert (value("celeriac_queue_oldest_seconds", {"queue": "mail"}) or 0) > 0
    assert value("celery_queue_length", {"queue_name": "mail"}) == 2
    assert value("celeriac_limit_keys") == 1
    assert value("celeriac_memory_limit_bytes") == store.stats()["memory_limit"]
    message.ack()


STATES = ("ready", "delayed", "reserved", "dead", "done")


def test_every_family_is_described_and_its_text_is_the_same(store: celeriac.Store) -> None:
    store.cache("c").set("k", 1)
    store.queue("q").put(b"x")
    families = {f.name: f for f in collector(store).collect()}
    assert set(families) == set(own_metrics.FAMILIES)
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    text = store.metrics.exposition(openmetrics=True, own=True).decode()
    parsed = {f.name: f for f in text_string_to_metric_families(text)}
    for name, family in families.items():
        assert (parsed[name].type, parsed[name].documentation) == (
            family.type,
            family.documentation,
        )
        labels = [(s.name, s.labels) for s in family.samples]
        assert [(s.name, s.labels) for s in parsed[name].samples] == labels


def test_nothing_is_read_to_register_it(store: celeriac.Store) -> None:
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    watched = collector(store)
    watched.collect = None  # type: ignore[method-assign,assignment]
    registry.register(watched)
    with pytest.raises(ValueError, match="celery_queue_length"):
        registry.register(collector(store))


def test_a_destroyed_store_is_down(store: celeriac.Store) -> None:
    registry = registry_of(store)
    store.destroy(force=True)
    assert registry.get_sample_value("celeriac_up") == 0
    assert registry.get_sample_value("celeriac_processes") is None


def test_a_url_must_name_a_store_that_is_there(store: celeriac.Store) -> None:
    assert list(collector(store.url).collect())
    with pytest.raises(StoreNotFound):
        collector("shm://t-there-is-none")


def test_queues_of_replies_and_events_are_left_out(store: celeriac.Store) -> None:
    for name in ("a.reply.celery.pidbox", "celery@host.celery.pidbox", "celeryev.1234", "mail"):
        store.queue(name).put(b"x")
    (length,) = [f for f in own_metrics.families(store) if f.name == "celery_queue_length"]
    assert list(length.samples) == [("mail",)]
