"""The package `celeriac`: its names are there, also where they are imported late."""

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


@pytest.mark.parametrize("probing", [False, True])
def test_a_probe_imports_what_it_uses(probing: bool) -> None:
    code = "import sys, celeriac; print('celeriac.limits' in sys.modules); celeriac.Limiter; "
    arguments = ["probe", "worker"] if probing else []
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('celeriac.limits' in sys.modules)", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == ([str(not probing), "True"], "")
