"""The package `celeriac`: its names are there, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import celeriac


def test_names_are_there() -> None:
    for name in celeriac.__all__:
        assert getattr(celeriac, name) is not None
    assert set(celeriac.__all__) <= set(dir(celeriac))
    assert celeriac.errors.StoreNotFound is celeriac.StoreNotFound
    assert celeriac.aio.__name__ == "celeriac.aio"
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        celeriac.conect  # noqa: B018


def test_a_star_gives_all_of_them() -> None:
    names: dict[str, object] = {}
    exec("from celeriac import *", names)
    assert set(celeriac.__all__) <= names.keys()


def test_a_name_is_imported_when_it_is_used() -> None:
    code = "import sys, celeriac; print('celeriac.limits' in sys.modules); celeriac.Limiter; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('celeriac.limits' in sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
