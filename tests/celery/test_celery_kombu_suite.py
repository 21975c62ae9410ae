"""kombu's own integration tests for transports: all of their classes, unchanged, without reruns,
on both kinds of store.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import kombu
import pytest
from kombu_sdist import integration_tests
from sdist import Unavailable

try:
    common = integration_tests()
except Unavailable as exc:
    pytest.skip(str(exc), allow_module_level=True)


@pytest.fixture
def store_url(both_stores: str) -> str:
    return both_stores


@pytest.fixture
def invalid_connection() -> kombu.Connection:
    return kombu.Connection("celeriac+shm://no/such/name?create=false")


@pytest.fixture
def failover_connection(store_url: str) -> Iterator[kombu.Connection]:
    """A store that isn't there, and one that is, by a URL that kombu takes apart itself.

    The tests tell the two by their ports. A store has none, so that it doesn't matter.
    """
    dead = f"celeriac+shm://absent-{uuid.uuid4().hex}?create=false"
    live = "celeriac+" + store_url.partition("?")[0]
    live = live.replace("//", "//:1", 1) if "file://" in live else live + ":1"
    connection = kombu.Connection(f"{dead};{live}")
    yield connection
    connection.release()


class TestBasicFunctionality(common.BasicFunctionality):
    pass


class TestExchangeTypes(common.BaseExchangeTypes):
    pass


class TestMessage(common.BaseMessage):
    pass


class TestPriority(common.BasePriority):
    pass


class TestTimeToLive(common.BaseTimeToLive):
    pass


class TestFailover(common.BaseFailover):
    pass


if hasattr(common, "BaseEventLoop"):  # since kombu 5.7

    class TestEventLoop(common.BaseEventLoop):
        pass
