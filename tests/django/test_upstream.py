"""Django's own tests of caches and sessions, run on celeriac from its released source.

`upstream/cases.py` puts Django's classes on our backend; here each of them runs in a process of
its own, under Django's test runner. Nothing is rerun, and a skip that isn't listed is a failure.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "upstream" / "run.py"

# The class in upstream/cases.py, and how many tests of Django it has at least (in Django 5.2).
CASES = {
    "CeleriacCacheTests": 54,
    "CeleriacAsyncCallsTests": 54,
    "CacheUtils": 8,
    "PrefixedCacheUtils": 8,
    "CacheHEADTest": 2,
    "CacheI18nTest": 6,
    "PrefixedCacheI18nTest": 6,
    "CacheMiddlewareTest": 16,
    "TestWithTemplateResponse": 3,
    "CacheHandlerTest": 5,
    "CacheTagTests": 15,
    "CacheClosingTests": 2,
    "CustomCacheKeyValidationTests": 1,
    "CacheSessionTests": 60,
    "CacheDBSessionTests": 60,
    "CacheDBSessionWithTimeZoneTests": 60,
    "SessionMiddlewareOnCache": 11,
    "SessionMiddlewareOnCachedDB": 12,
}

# Tests that are skipped, each with the reason. Django itself skips none on ours.
SKIPPED = {
    "cases.SessionMiddlewareOnCache.test_empty_session_saved": (
        "it reads the session's row in the database, and this engine writes none"
    ),
}

# Classes of Django's tests/cache that don't run on ours, and why.
NOT_OURS = {
    "BaseCacheTests": "inherited by CeleriacCacheTests and CeleriacAsyncCallsTests",
    "DummyCacheTests": "the dummy cache keeps nothing; ours does",
    "AsyncDummyCacheTests": "the dummy cache keeps nothing; ours does",
    "DBCacheTests": "the database backend's tables and queries",
    "DBCacheWithTimeZoneTests": "the database backend's tables and queries",
    "CreateCacheTableForDBCacheTests": "the database backend's command",
    "LocMemCacheTests": "reads the local-memory cache's dictionaries; see test_backend.py",
    "BaseMemcachedTests": "a memcached server's key rules and options; see test_backend.py",
    "PyLibMCCacheTests": "options of a memcached client",
    "PyMemcacheCacheTests": "options of a memcached client",
    "FileBasedCacheTests": "the file backend's directory",
    "FileBasedCachePathLibTests": "the file backend's directory",
    "RedisCacheTests": "options of a Redis client",
    "DefaultNonExpiringCacheKeyTests": "reads LocMemCache._expire_info; see test_backend.py",
    "TestMakeTemplateFragmentKey": "a function that touches no cache",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_djangos_own(case: str, django_tests: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, str(RUN), str(django_tests), case, str(result)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=180, cwd=tmp_path
    )
    assert result.exists(), f"the runner itself failed:\n{done.stdout}\n{done.stderr}"
    outcomes = json.loads(result.read_text(encoding="utf-8"))
    failed = [f"{o['test']}\n{o['detail']}" for o in outcomes if o["outcome"] == "failed"]
    assert not failed, "\n\n".join(failed)
    skipped = {o["test"]: o["detail"] for o in outcomes if o["outcome"] == "skipped"}
    assert skipped == {test: why for test, why in SKIPPED.items() if f".{case}." in test}
    passed = sum(o["outcome"] == "passed" for o in outcomes)
    assert passed >= CASES[case], f"only {passed} tests were run"


def test_every_class_of_djangos_cache_tests_is_accounted_for(django_tests: Path) -> None:
    classes = set()
    for file in (django_tests / "cache").glob("tests*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and _has_tests(node):
                classes.add(node.name)
    assert classes - set(CASES) - set(NOT_OURS) == set()


def _has_tests(node: ast.ClassDef) -> bool:
    """Whether a class of a test module is a test case, by its name or its methods."""
    methods = (ast.FunctionDef, ast.AsyncFunctionDef)
    named = any(isinstance(n, methods) and n.name.startswith("test") for n in node.body)
    return named or node.name.endswith(("Tests", "Test"))
