"""What the tests of django-redis ask their backend for beside its calls: what kind of client it is.

`cache.client` tells them that it isn't one of the clients with fewer calls, and which serializer
is set, so that they expect what that serializer can give back.
"""

from __future__ import annotations

import os
from typing import Any

from django_redis.serializers.json import JSONSerializer
from django_redis.serializers.msgpack import MSGPackSerializer
from django_redis.serializers.pickle import PickleSerializer

from celeriac.django.cache import CeleriacCache

_SERIALIZERS = {"json": JSONSerializer, "msgpack": MSGPackSerializer}
_RUN = os.environ["CELERIAC_TEST_RUN"]
_STORES = os.environ["CELERIAC_TEST_STORES"]


class Client:
    """The answers."""

    def __init__(self, serializer: str) -> None:
        self._serializer = _SERIALIZERS.get(serializer, PickleSerializer)({})


class Backend(CeleriacCache):
    """Ours, with a `client`."""

    @property
    def client(self) -> Client:
        return Client(str(self._cache_options.get("serializer")))


def caches(**options: Any) -> dict[str, Any]:
    """CACHES as the settings of django-redis's tests have them."""

    def alias(name: str, **more: Any) -> dict[str, Any]:
        return {
            "BACKEND": "shim.Backend",
            "LOCATION": f"{_STORES}t-redis-{_RUN}-{name}",
            "OPTIONS": {**options, **more.pop("OPTIONS", {"memory": "32M"})},
            **more,
        }

    return {
        "default": alias("default"),
        "doesnotexist": alias("absent", OPTIONS={"create": False}),
        "sample": alias("default"),
        "with_prefix": alias("default", KEY_PREFIX="test-prefix"),
    }
