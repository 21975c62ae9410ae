"""Names, URLs and the serializer."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import entry_points

import kombu
import pytest
from kombu.serialization import dumps, loads
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls

import celeriac
from celeriac.celery.register import ALIASES, decode, encode
from celeriac.celery.transport import Transport, hide_password, store_url


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_celery_knows_broker_and_backend_without_an_import() -> None:
    assert (
        run_python(
            "from celery import Celery\n"
            "app = Celery(broker='celeriac+shm://app?memory=64M', backend='celeriac+shm://app')\n"
            "c = app.connection()\n"
            "print(c.transport.driver_type, c.as_uri(), type(app.backend).__module__)\n"
        )
        == "celeriac celeriac+shm://app?memory=64M celeriac.celery.results"
    )


def test_kombu_knows_the_transport_once_queues_are_used() -> None:
    code = "from kombu import Connection, Queue\nprint(Connection('celeriac+shm://a').transport)"
    assert "celeriac.celery.transport" in run_python(code)


def test_bare_kombu_needs_one_import() -> None:
    code = "import celeriac.celery, kombu\nprint(kombu.Connection('celeriac+shm://a').transport)"
    assert "celeriac.celery.transport" in run_python(code)


def test_registering_imports_neither_celery_nor_the_transport() -> None:
    code = (
        "import sys, celeriac.celery.register\n"
        "print([m for m in ('celery', 'celeriac.celery.transport') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_the_package_names_its_entry_points() -> None:
    backends = {e.name: e.value for e in entry_points(group="celery.result_backends")}
    for name in ("celeriac", "celeriac+shm", "celeriac+file", "celeriac+redis", "celeriac+rediss"):
        assert backends[name] == "celeriac.celery.results:ResultBackend"
    serializers = {e.name: e.value for e in entry_points(group="kombu.serializers")}
    assert serializers["celeriac"] == "celeriac.celery.register:register_args"


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_resolves(alias: str) -> None:
    assert alias in TRANSPORT_ALIASES
    assert get_transport_cls(alias) is Transport


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("celeriac+shm://app", "shm://app"),
        ("celeriac+shm://app?memory=512M", "shm://app?memory=512M"),
        ("celeriac+file:///var/lib/app?durability=always", "file:///var/lib/app?durability=always"),
        ("celeriac+redis+socket:///run/r.sock", "redis+socket:///run/r.sock"),
    ],
)
def test_the_rest_of_the_url_arrives_unparsed(given: str, url: str) -> None:
    assert store_url(kombu.Connection(given)) == url
    assert store_url(kombu.Connection(f"{given};celeriac+shm://other")) == url


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("celeriac+shm://other", "shm://other"),
        ("celeriac+file:///var/lib/app", "file:///var/lib/app"),
        ("celeriac+redis://user:pa%2Fss@host:6380/3", "redis://user:pa%2Fss@host:6380/3"),
    ],
)
def test_a_switched_connection_gets_its_url_back(given: str, url: str) -> None:
    connection = kombu.Connection("celeriac+shm://first")
    connection.switch(given)
    assert store_url(connection).replace("pa/ss", "pa%2Fss") == url


def test_a_store_s_url_has_nothing_of_the_one_before() -> None:
    connection = kombu.Connection("redis://user:secret@host:6380/3")
    connection.switch("celeriac+shm://other")
    assert connection.port == 6380, "kombu keeps it"
    assert store_url(connection) == "shm://other"


def test_failover_reaches_the_next_url(store_url: str) -> None:
    missing = f"{store_url.partition('?')[0]}-missing?create=false"
    there = store_url.partition("?")[0]
    with kombu.Connection(f"celeriac+{missing};celeriac+{there}") as connection:
        errors: list[Exception] = []
        connection.ensure_connection(lambda exc, _: errors.append(exc), max_retries=2)
        assert connection.connected
        assert len(errors) == 1
        assert connection.as_uri() == f"celeriac+{there}"


def test_an_engine_that_does_not_exist_is_named_on_connecting() -> None:
    with pytest.raises(celeriac.ConfigurationError, match="shm"):
        kombu.Connection("celeriac+smh://app").connect()
    with pytest.raises(celeriac.ConfigurationError, match=r"celeriac\+shm://"):
        kombu.Connection("celeriac://app").connect()


def test_passwords_stay_out_of_logs() -> None:
    connection = kombu.Connection("celeriac+redis://me:secret@host:1/0?x=1")
    assert connection.as_uri() == "celeriac+redis://me:**@host:1/0?x=1"
    assert connection.as_uri(include_password=True) == "celeriac+redis://me:secret@host:1/0?x=1"
    assert hide_password("shm://app") == "shm://app"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00\xff",
        "",
        "täxt",
        None,
        [1, {"a": [True, 1.5]}],
        datetime(2026, 1, 2, tzinfo=timezone.utc),
    ],
)
def test_the_serializer_gives_back_what_it_got(value: object) -> None:
    assert decode(encode(value)) == value
    content_type, encoding, payload = dumps(value, serializer="celeriac")
    assert content_type == "application/x-celeriac"
    assert loads(payload, content_type, encoding, accept={content_type}) == value


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"?", "not a celeriac payload"),
        (b"", "not a celeriac payload"),
        (b"p\x80\x04N.", "not a celeriac payload"),
        (b"j{", "property name"),
        (b"t\xff", "invalid start byte"),
    ],
)
def test_the_serializer_refuses_what_it_did_not_write(payload: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(payload)
