"""Transport options: ours are checked, those of other brokers are no error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

import celeriac
from celeriac.celery.options import BROKER_OPTIONS, checked

#: What people bring along from Redis, with values of the wrong kind for anything of ours.
FROM_REDIS = dict.fromkeys(
    [
        "ack_emulation",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "health_check_interval",
        "interval_max",
        "interval_start",
        "interval_step",
        "max_connections",
        "max_retries",
        "master_name",
        "polling_interval",
        "priority_steps",
        "queue_order_strategy",
        "retry_on_timeout",
        "retry_policy",
        "sep",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "unacked_key",
        "visibility_timeout",
    ],
    1,
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": "x"}, "'memory' is one of the store.*connect_options"),
        ({"memroy": "1G"}, "unknown transport option 'memroy': did you mean 'memory'"),
        ({"priority_ordre": "redis"}, "did you mean 'priority_order'"),
        ({"deadletter_que": "dead"}, "did you mean 'deadletter_queue'"),
        ({"connect_option": {}}, "did you mean 'connect_options'"),
        ({"priority_order": "Redis"}, "priority_order='Redis': 'rabbitmq' or 'redis'"),
        ({"deadletter_queue": 5}, "deadletter_queue=5: the name of a queue"),
        ({"eta_timezone": "Europe/Berln"}, "eta_timezone='Europe/Berln': the name of a time zone"),
        ({"eta_timezone": 1}, "eta_timezone=1: the name of a time zone"),
        ({"connect_options": "memory=1G"}, "connect_options='memory=1G': a dict"),
        ({"connect_options": {"memroy": "1G"}}, "Did you mean 'memory'"),
        ({"connect_options": {"memory": "x"}}, "is not a size"),
    ],
)
def test_wrong_options(
    connect: Callable[..., kombu.Connection], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=said):
        connect(**options).connect()


def test_options_of_others_are_no_error(connect: Callable[..., kombu.Connection]) -> None:
    right = {
        "priority_order": "redis",
        "deadletter_queue": "dead",
        "connect_options": {"memory": "64M"},
    }
    for options in (FROM_REDIS, right, {"deadletter_queue": None, "connect_options": None}):
        assert connect(**options).connect()


def test_no_name_in_kombu_looks_like_a_misspelling_of_ours() -> None:
    texts = [path.read_text() for path in Path(kombu.__file__).parent.rglob("*.py")]
    names = {
        name
        for text in texts
        for name in re.findall(r"""["']([a-z][a-z_-]{2,40})["']""", text)
        if name not in ("connections", "create", "memory", "mode")  # no options there
    }
    assert FROM_REDIS.keys() - {"retry_policy"} < names
    refused = []
    for name in sorted(names - set(BROKER_OPTIONS)):
        try:
            checked({name: 1}, BROKER_OPTIONS)
        except celeriac.ConfigurationError:
            refused.append(name)
    assert refused == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": "1G"}, "'memory' is one of the store"),
        ({"conect_options": {}}, "did you mean 'connect_options'"),
        ({"connect_options": 5}, "connect_options=5: a dict"),
    ],
)
def test_wrong_options_of_the_results(store_url: str, options: dict[str, Any], said: str) -> None:
    app = Celery(backend=f"celeriac+{store_url}", set_as_current=False)
    app.conf.result_backend_transport_options = options
    with pytest.raises(celeriac.ConfigurationError, match=said):
        app.backend.get("k")
    app.conf.result_backend_transport_options = {"global_keyprefix": "x", "priority_order": 1}
    assert app.backend.get("k") is None
