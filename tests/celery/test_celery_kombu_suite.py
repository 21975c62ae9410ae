"""kombu's own integration tests for transports, unchanged and without reruns."""

from __future__ import annotations

import kombu
import pytest
from kombu_sdist import integration_tests
from sdist import Unavailable

try:
    common = integration_tests()
except Unavailable as exc:
    pytest.skip(str(exc), allow_module_level=True)


@pytest.fixture
def invalid_connection() -> kombu.Connection:
    return kombu.Connection("celeriac+shm://no/such/name?create=false")


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


if hasattr(common, "BaseEventLoop"):  # since kombu 5.7

    class TestEventLoop(common.BaseEventLoop):
        pass
