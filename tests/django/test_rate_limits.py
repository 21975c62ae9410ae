"""RateLimitMiddleware and @ratelimit on a site of its own, sync and async."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import ConfigurationError
from celeriac.django import client, ratelimit

SITE = Path(__file__).parent / "support" / "limits_site.py"
LIMITS = {"superadmin": "5/min", "manager": "4/min", "staff": "3/min", "guest": "2/min"}


def run(location: str, settings: Any, scenario: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SITE), location, json.dumps(settings), scenario]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def visit(location: str, scenario: str, **settings: Any) -> Any:
    done = run(location, settings, scenario)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_by_address(location: str) -> None:
    found = visit(location, "by_address", RATE_LIMITS=LIMITS, RATE_LIMIT_EXEMPT=["/health/*"])
    first, second, third, fourth = found["one"]
    assert [a["status"] for a in found["one"]] == [200, 200, 429, 429]
    assert first["RateLimit-Policy"] == third["RateLimit-Policy"] == '"guest";q=2;w=60'
    assert first["RateLimit"].startswith('"guest";r=1;t=')
    assert second["RateLimit"].startswith('"guest";r=0;t=')
    assert "Retry-After" not in second
    assert 25 <= int(third["Retry-After"]) <= 30
    assert third["body"].startswith("Too Many Requests. The limit 2/min is used up.")
    assert third["Cache-Control"] == "no-store"
    assert fourth["RateLimit"].startswith('"guest";r=0;t=')
    assert found["another"] == [200]
    (refused,) = found["json"]
    assert refused["Content-Type"] == "application/problem+json"
    problem = json.loads(refused["body"])
    assert problem["status"] == 429
    assert problem["title"] == "Too Many Requests"
    assert problem["violated-policies"] == ["guest"]
    assert problem["type"].endswith("#quota-exceeded")
    assert found["exempt"] == [200] * 5
    assert found["missing"] == [404]


def test_other_processes_share_what_was_used(location: str) -> None:
    assert [a["status"] for a in visit(location, "three", RATE_LIMITS=LIMITS)] == [200, 200, 429]
    assert [a["status"] for a in visit(location, "three", RATE_LIMITS=LIMITS)] == [429] * 3


def test_a_store_that_cannot_be_opened(location: str) -> None:
    """on_error decides, and the page is no error; wrong settings are one."""
    away = f"{location}-closed"
    allowed = visit(away, "three", RATE_LIMITS=LIMITS)
    assert [a["status"] for a in allowed] == [200] * 3
    denied = visit(away, "three", RATE_LIMITS=LIMITS, RATE_LIMIT_ON_ERROR="deny")
    assert [(a["status"], a["Retry-After"]) for a in denied] == [(429, "1")] * 3
    assert [a["status"] for a in visit(away, "decorated")["decorated"]] == [200] * 3
    wrong = run(location, {"RATE_LIMITS": LIMITS, "STORE": "shm://a/b"}, "three")
    assert "ConfigurationError" in wrong.stderr


def test_behind_proxies(location: str) -> None:
    found = visit(
        location, "behind_proxies", RATE_LIMITS=LIMITS, TRUSTED_PROXIES=["10.0.0.0/8", "unix"]
    )
    assert found == {
        "first": 200,
        "same, other proxies": 200,
        "invented before it": 429,
        "another": 200,
        "not a proxy": 200,
        "nor the second time": 200,
        "third": 429,
        "nonsense": [200, 200, 429],
        "v6": [200, 200, 429],
    }


def test_by_role(location: str) -> None:
    found = visit(location, "by_role", RATE_LIMITS=LIMITS)
    assert found == {
        "root": ['"superadmin";q=5;w=60', [200] * 5 + [429]],
        "root asks for groups": 0,
        "boss": ['"manager";q=4;w=60', [200] * 4 + [429] * 2],
        "boss asks for groups": 0,
        "clerk": ['"staff";q=3;w=60', [200] * 3 + [429] * 3],
        "clerk asks for groups": 0,
        "somebody": ['"guest";q=2;w=60', [200] * 2 + [429] * 4],
        "somebody asks for groups": 0,
    }


def test_without_a_limit(location: str) -> None:
    found = visit(location, "by_role", RATE_LIMITS={"superadmin": None, "staff": "1/min"})
    assert found["root"] == [None, [200] * 6]
    assert found["somebody"] == [None, [200] * 6]
    assert found["clerk"][1] == [200] + [429] * 5
    assert [a["status"] for a in visit(location, "three")] == [200] * 3


def test_async(location: str) -> None:
    found = visit(location, "async", RATE_LIMITS={"guest": "6/min"})
    assert found == {
        "page": [200] * 4,
        "sync view": [200],
        "posted": [200, 429, 429],
        "got": [429],
    }


def test_decorated(location: str) -> None:
    found = visit(location, "decorated")
    assert [a["status"] for a in found["decorated"]] == [200, 200, 429]
    assert found["decorated"][0]["RateLimit-Policy"].endswith('.decorated";q=2;w=60')
    assert found["soft"] == ["page", "limited", "page", "page"]
    assert found["posted"] == [200, 200, 429]
    assert found["got"] == [200] * 3


def test_a_role_of_one_s_own(location: str) -> None:
    settings = {"RATE_LIMITS": LIMITS, "RATE_LIMIT_ROLE": "__main__.tenant"}
    assert visit(location, "tenants", **settings) == {"a": [200, 200, 429], "b": [200, 200, 429]}


def test_a_role_without_a_limit(location: str) -> None:
    settings = {"RATE_LIMITS": LIMITS, "RATE_LIMIT_ROLE": "__main__.wrong_role"}
    done = run(location, settings, "unknown role")
    assert json.loads(done.stdout) == [200] * 6
    assert done.stderr.count("the role 'guset', which RATE_LIMITS in CELERIAC doesn't have") == 1
    for said, wrong in zip(visit(location, "no role", **settings), ("5", "['guest']"), strict=True):
        assert said.startswith("RATE_LIMIT_ROLE in CELERIAC names a callable that returns a role")
        assert said.endswith(f"{wrong} is no role")


@pytest.mark.parametrize(
    ("settings", "statuses"),
    [
        ({}, [200] * 3),
        ({"RATE_LIMIT_ON_ERROR": "deny"}, [429] * 3),
        ({"RATE_LIMIT_ON_ERROR": "deny", "RATE_LIMIT_SHADOW": True}, [200] * 3),
    ],
)
def test_while_the_store_is_away(settings: Any, statuses: list[int]) -> None:
    """The site makes no store whose name has this word."""
    location = f"shm://closed-{secrets.token_hex(6)}"
    done = run(location, {"RATE_LIMITS": LIMITS, **settings}, "three")
    answers = json.loads(done.stdout)
    assert [answer["status"] for answer in answers] == statuses
    assert [answer.get("Retry-After") for answer in answers] == [
        "1" if status == 429 else None for status in statuses
    ]
    assert done.stderr.count("rate limits can't ask their store") == 1
    done = run(location, {}, "decorated")  # on_error="allow"
    found = json.loads(done.stdout)
    assert [answer["status"] for answer in found["decorated"]] == [200] * 3


def test_shadow(location: str) -> None:
    found = visit(location, "three", RATE_LIMITS=LIMITS, RATE_LIMIT_SHADOW=True)
    assert [a["status"] for a in found] == [200] * 3
    assert found[2]["RateLimit"].startswith('"guest";r=0;t=')


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"RATE_LIMITS": {"guest": "often"}},
            "RATE_LIMITS in CELERIAC, role 'guest': rate 'often'",
        ),
        ({"RATE_LIMITS": ["1/s"]}, "RATE_LIMITS in CELERIAC must be a dictionary"),
        ({"RATE_LIMITS": {"guest": 5}}, "RATE_LIMITS in CELERIAC, role 'guest'"),
        ({"RATE_LIMIT_ROLE": "no.such"}, "RATE_LIMIT_ROLE in CELERIAC"),
        ({"RATE_LIMIT_ROLE": "sys.path"}, "RATE_LIMIT_ROLE in CELERIAC must name a callable"),
        ({"RATE_LIMIT_EXEMPT": "/a"}, "RATE_LIMIT_EXEMPT in CELERIAC must be a list"),
        ({"RATE_LIMIT_ON_ERROR": "maybe"}, "RATE_LIMIT_ON_ERROR in CELERIAC must be"),
        ({"RATE_LIMIT_SHADOW": 1}, "RATE_LIMIT_SHADOW in CELERIAC must be True or False"),
        ({"TRUSTED_PROXIES": ["10.0.0.1/8"]}, "TRUSTED_PROXIES in CELERIAC: 10.0.0.1/8 has host"),
        ({"TRUSTED_PROXIES": "10.0.0.1"}, "TRUSTED_PROXIES in CELERIAC must be a list"),
    ],
)
def test_wrong_settings(location: str, settings: Any, said: str) -> None:
    done = run(location, {"RATE_LIMITS": LIMITS, **settings}, "three")
    assert done.returncode != 0
    assert f"ConfigurationError: {said}" in done.stderr


def test_a_key_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="key='cookie'"):
        ratelimit("1/s", key="cookie")


@pytest.mark.parametrize("text", ["10.0.0.1", "::1", "unix"])
def test_trusted_networks(text: str) -> None:
    networks, unix = client.trusted_networks([text])
    assert (len(networks), unix) == ((0, True) if text == "unix" else (1, False))
