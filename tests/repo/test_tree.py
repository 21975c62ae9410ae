"""The tree is the architecture: includes and imports point down only.

C++, lowest first (a folder may include what stands before it, never what stands beside or after):

    platform · arena · sync · memory · store | queue · engine · bindings

Only platform talks to the operating system, only bindings to Python. Python, lowest first:

    _core · errors url serializers · the other modules · celeriac itself
    · django | celery | prometheus | monitoring | demo · cli

The modules below celeriac itself need nothing but the standard library.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CPP_LAYERS = {
    "platform": 0,
    "arena": 1,
    "sync": 2,
    "memory": 3,
    "store": 4,
    "queue": 4,
    "engine": 5,
    "bindings": 6,
}
# Headers other than C++'s own, and the folders that may include them.
CPP_FOREIGN = {
    "boost/lockfree/": ("arena", "queue", "engine"),
    "cxxabi.h": ("bindings",),  # the C++ runtime's: how CPython ends a thread
    "datetime.h": ("bindings",),  # CPython's: its datetime objects
    "hiredis/": ("engine",),
    "pybind11/": ("bindings",),
}
PY_LAYERS = {"_core": 0, "errors": 1, "url": 1, "serializers": 1}
PY_API, PY_ROOT, PY_INTEGRATION, PY_CLI = 2, 3, 4, 5
INTEGRATIONS = ("django", "celery", "prometheus", "monitoring", "demo")

INCLUDE = re.compile(r"^\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", re.MULTILINE)


def wrong_includes(src: Path) -> list[str]:
    problems = []
    for path in sorted([*src.rglob("*.hpp"), *src.rglob("*.cpp")]):
        relative = path.relative_to(src)
        layer = relative.parts[0]
        if layer not in CPP_LAYERS:
            problems.append(f"{relative}: no layer is called {layer}")
            continue
        for bracket, header in INCLUDE.findall(path.read_text()):
            wrong = (_own if bracket == '"' else _foreign)(src, layer, relative, header)
            if wrong:
                problems.append(f"{relative}: {wrong}")
    return problems


def _own(src: Path, layer: str, relative: Path, header: str) -> str:
    other = header.split("/")[0]
    if other not in CPP_LAYERS or not (src / header).is_file():
        return f'"{header}" isn\'t a path below src/'
    if other != layer and CPP_LAYERS[other] >= CPP_LAYERS[layer]:
        return f'"{header}" is not below {layer}'
    if other == layer == "engine" and len(relative.parts) > 2:
        engines = {relative.parts[1], *header.split("/")[1:-1]}
        if len(engines) > 1:
            return f'"{header}" belongs to the other engine'
    return ""


def _foreign(src: Path, layer: str, relative: Path, header: str) -> str:
    for prefix, layers in CPP_FOREIGN.items():
        if header.startswith(prefix):
            return "" if layer in layers else f"<{header}> is for {', '.join(layers)} only"
    if layer != "platform" and ("/" in header or header.endswith(".h")):
        return f"<{header}> is for platform only"
    return ""


def test_includes_point_down(root: Path) -> None:
    assert wrong_includes(root / "src") == []


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("platform/file.hpp", '#include "arena/arena.hpp"', "not below platform"),
        ("store/cache.cpp", '#include "queue/slots.hpp"', "not below store"),
        ("arena/arena.cpp", "#include <sys/mman.h>", "for platform only"),
        ("sync/parker.cpp", "# include <unistd.h>", "for platform only"),
        ("queue/slots.cpp", "#include <pybind11/pybind11.h>", "for bindings only"),
        ("engine/local/local.cpp", '#include "engine/redis/pool.hpp"', "other engine"),
        ("store/cache.cpp", '#include "index.hpp"', "isn't a path below src/"),
        ("extras/more.cpp", "#include <vector>", "no layer is called extras"),
    ],
)
def test_wrong_include_is_found(tmp_path: Path, path: str, line: str, complaint: str) -> None:
    for header in ("arena/arena.hpp", "queue/slots.hpp", "engine/redis/pool.hpp"):
        (tmp_path / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / header).write_text("#include <cstdint>\n")
    assert wrong_includes(tmp_path) == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(f"#include <atomic>\n{line}\n")
    (problem,) = wrong_includes(tmp_path)
    assert problem.startswith(path)
    assert complaint in problem


def py_layer(module: tuple[str, ...]) -> int:
    """The layer of ("celeriac", "store", ...)."""
    if len(module) == 1:
        return PY_ROOT
    if module[1] in ("cli", "__main__"):
        return PY_CLI
    if module[1] in INTEGRATIONS:
        return PY_INTEGRATION
    return PY_LAYERS.get(module[1], PY_API)


def imports(path: Path, module: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """What a file imports, and whether it does when it is itself imported."""
    tree = ast.parse(path.read_text(), str(path))
    package = module if path.name == "__init__.py" else module[:-1]
    deferred: set[ast.AST] = set()
    for node in ast.walk(tree):
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if later or node in deferred:
            deferred.update(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), node not in deferred
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield (*base, alias.name), node not in deferred


def resolve(package: Path, target: tuple[str, ...]) -> tuple[str, ...]:
    """("celeriac", "store", "Store") -> ("celeriac", "store"): the module that is meant."""
    for length in range(len(target), 0, -1):
        place = package.parent.joinpath(*target[:length])
        if place.is_dir() or place.with_suffix(".py").is_file() or target[length - 1] == "_core":
            return target[:length]
    return target[:1]


def wrong_imports(package: Path) -> list[str]:
    problems: list[str] = []
    edges: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package.parent)
        parts = relative.with_suffix("").parts
        module = parts[:-1] if parts[-1] == "__init__" else parts
        layer = py_layer(module)
        for target, at_once in imports(path, module):
            if target[0] != "celeriac":
                if layer <= PY_ROOT and at_once and target[0] not in sys.stdlib_module_names:
                    problems.append(f"{relative}: {target[0]} isn't of the standard library")
                continue
            other = resolve(package, target)
            beside = layer == PY_INTEGRATION and py_layer(other) == layer and other[1] != module[1]
            if py_layer(other) > layer or beside:
                problems.append(f"{relative}: {'.'.join(other)} is not below it")
            elif at_once and other != module:
                edges.setdefault(module, set()).add(other)
    low = {m: {o for o in to if py_layer(o) < PY_ROOT} for m, to in edges.items()}
    problems += [f"imports in a circle: {' '.join(names)}" for names in circles(low)]
    return problems


def circles(edges: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[list[str]]:
    """What is left when modules that import none, or that none imports, are taken away again and
    again."""
    left = dict(edges)
    while left:
        imported = set().union(*left.values())
        kept = {m: to & left.keys() for m, to in left.items() if to & left.keys() and m in imported}
        if kept == left:
            return [sorted(".".join(module) for module in left)]
        left = kept
    return []


def test_imports_point_down(root: Path) -> None:
    assert wrong_imports(root / "python" / "celeriac") == []


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("errors.py", "from .store import Store", "celeriac.store is not below it"),
        ("store.py", "import celeriac", "celeriac is not below it"),
        ("store.py", "from celeriac.django.cache import X", "celeriac.django.cache is not below"),
        ("store.py", "import msgpack", "isn't of the standard library"),
        ("__init__.py", "from . import cli", "celeriac.cli is not below it"),
        ("celery/broker.py", "from ..django import cache", "celeriac.django.cache is not below"),
        ("demo/run.py", "from celeriac.cli.demo import main", "celeriac.cli is not below it"),
        ("demo/run.py", "def f():\n    from celeriac import cli", "celeriac.cli is not below it"),
        ("cache.py", "from .store import Store", "circle: celeriac.cache celeriac.store"),
    ],
)
def test_wrong_import_is_found(tmp_path: Path, path: str, line: str, complaint: str) -> None:
    good = {
        "__init__.py": "from .store import Store",
        "errors.py": "",
        "store.py": "from . import _core, errors\nfrom .cache import Cache",
        "cache.py": "import threading\ndef f():\n    import msgpack\n    from .store import Store",
        "django/__init__.py": "",
        "django/cache.py": "import django\nimport celeriac",
        "celery/broker.py": "import kombu\nfrom celeriac.store import Store",
        "demo/run.py": "from celeriac import Store",
        "cli/__init__.py": "from celeriac.demo import run\nfrom celeriac import django",
    }
    package = tmp_path / "celeriac"
    for name, text in good.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n")
    assert wrong_imports(package) == []
    with (package / path).open("a") as file:
        file.write(line + "\n")
    assert any(complaint in problem for problem in wrong_imports(package)), wrong_imports(package)
