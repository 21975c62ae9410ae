"""The tree is the architecture: includes and imports point down only.

C++, lowest first (a folder may include what stands before it, never what stands beside or after):

    platform · arena · sync · memory · store | queue · engine · bindings

Only platform talks to the operating system, only bindings to Python. Python, lowest first:

    _core · errors url serializers · the other modules · celeriac itself
    · django | celery | prometheus | monitoring | limits_storage | demo · cli · django.management

The modules below celeriac itself need nothing but the standard library. Nor do Python's modules
import one another in a circle, wherever the import stands: at the top, in a function, or for the
type checker only. The package celery says in which order it reads, and keeps to it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
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
PY_API, PY_ROOT, PY_INTEGRATION, PY_CLI, PY_MANAGEMENT = 2, 3, 4, 5, 6
INTEGRATIONS = ("django", "celery", "prometheus", "monitoring", "limits_storage", "demo")
# Circles that stay, and why. When the modules are imported none closes, whatever stands here.
CIRCLES = {
    "celeriac.message celeriac.queue": "a queue makes messages, and the type checker is told that "
    "a message names its queue",
}

Module = tuple[str, ...]
Edges = dict[Module, set[Module]]

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
    if module[1:3] == ("django", "management"):  # the command line of a Django project
        return PY_MANAGEMENT
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


def modules(package: Path) -> Iterator[tuple[Path, Module]]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        yield path, parts[:-1] if parts[-1] == "__init__" else parts


def wrong_imports(package: Path, excused: Mapping[str, str] | None = None) -> list[str]:
    problems: list[str] = []
    edges: Edges = {}
    loading: Edges = {}  # the part of them that importing the modules goes along
    for path, module in modules(package):
        relative = path.relative_to(package.parent)
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
            elif other != module:
                edges.setdefault(module, set()).add(other)
                if at_once:
                    loading.setdefault(module, set()).add(other)
    found, excuses = circles(edges), excused or {}
    problems += [f"imports in a circle: {names}" for names in found if names not in excuses]
    problems += [f"modules load in a circle: {names}" for names in circles(loading)]
    problems += [f"no circle any more: {names}" for names in excuses if names not in found]
    return problems


def circles(edges: Edges) -> list[str]:
    """The modules that reach themselves, each group that reaches one another as one text."""
    reached: Edges = {}
    for module in edges:
        found: set[Module] = set()
        ahead = [module]
        while ahead:
            new = edges.get(ahead.pop(), set()) - found
            found |= new
            ahead += new
        reached[module] = found
    groups = {
        " ".join(sorted(".".join(other) for other in found if module in reached.get(other, ())))
        for module, found in reached.items()
        if module in found
    }
    return sorted(groups)


def test_imports_point_down(root: Path) -> None:
    assert wrong_imports(root / "python" / "celeriac", CIRCLES) == []


CHECKED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
CELERY = ["celeriac.celery.broker", "celeriac.celery.channel", "celeriac.celery.worker"]


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
        ("django/cache.py", "from celeriac import cli", "celeriac.cli is not below it"),
        ("cli/__init__.py", "from celeriac.django.management import x", "management is not below"),
        ("cache.py", "from .store import Store", "in a circle: celeriac.cache celeriac.store"),
        ("cache.py", "from .store import Store", "load in a circle: celeriac.cache celeriac.store"),
        ("cache.py", "def g():\n    from .store import S", "circle: celeriac.cache celeriac.store"),
        ("celery/broker.py", f"{CHECKED}from . import channel", "circle: " + " ".join(CELERY[:2])),
        ("celery/broker.py", "def f():\n    from . import worker", "circle: " + " ".join(CELERY)),
    ],
)
def test_wrong_import_is_found(tmp_path: Path, path: str, line: str, complaint: str) -> None:
    good = {
        "__init__.py": "from .store import Store",
        "errors.py": "",
        "store.py": "from . import _core, errors\nfrom .cache import Cache",
        "cache.py": "import threading\ndef f():\n    import msgpack",
        "django/__init__.py": "",
        "django/cache.py": "import django\nimport celeriac",
        "django/management/celeriac.py": "from celeriac import cli",
        "celery/broker.py": "import kombu\nfrom celeriac.store import Store",
        "celery/channel.py": "from celeriac.celery.broker import Broker",
        "celery/worker.py": f"{CHECKED}from celeriac.celery.channel import Channel",
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


def test_excuse_covers_one_circle_for_the_type_checker(tmp_path: Path) -> None:
    package = tmp_path / "celeriac"
    package.mkdir()
    (package / "queue.py").write_text("from .message import Message\n")
    message = package / "message.py"
    message.write_text("")
    excused = {"celeriac.message celeriac.queue": "why"}
    names = next(iter(excused))
    assert wrong_imports(package, excused) == [f"no circle any more: {names}"]
    message.write_text(f"{CHECKED}from .queue import Queue\n")
    assert wrong_imports(package) == [f"imports in a circle: {names}"]
    assert wrong_imports(package, excused) == []
    message.write_text("from .queue import Queue\n")
    assert wrong_imports(package, excused) == [f"modules load in a circle: {names}"]


def out_of_order(package: Path, name: str) -> list[str]:
    """Where a package's modules aren't as its description says they read from the bottom up."""
    text = ast.get_docstring(ast.parse((package / name / "__init__.py").read_text())) or ""
    said = re.findall(r"``(\w+)``", text.partition("reads from the bottom up")[2])
    here = [each for each in modules(package) if each[1][1:2] == (name,) and len(each[1]) > 2]
    counts = {module[2]: said.count(module[2]) for _, module in here}
    problems = [f"{each} is named {count} times" for each, count in counts.items() if count != 1]
    for path, module in here if not problems else ():
        for target, _ in imports(path, module):
            other = resolve(package, target)
            if other[1:2] == (name,) and other[2:] and other != module:
                later = said.index(other[2]) > said.index(module[2])
                problems += [f"{module[2]} imports {other[2]}, which comes later"] * later
    return problems


def test_celery_reads_from_the_bottom_up(root: Path) -> None:
    assert out_of_order(root / "python" / "celeriac", "celery") == []


@pytest.mark.parametrize(
    ("order", "complaints"),
    [
        ("``broker`` (a store), ``channel``", []),
        ("``channel``, ``broker``", ["channel imports broker, which comes later"]),
        ("``channel``", ["broker is named 0 times"]),
        ("``broker``, ``channel``, ``broker``", ["broker is named 2 times"]),
    ],
)
def test_wrong_order_is_found(tmp_path: Path, order: str, complaints: list[str]) -> None:
    celery = tmp_path / "celeriac" / "celery"
    celery.mkdir(parents=True)
    (celery / "__init__.py").write_text(f'"""It reads from the bottom up: {order}."""\n')
    (celery / "broker.py").write_text("import kombu\n")
    (celery / "channel.py").write_text(f"{CHECKED}from .broker import Broker\n")
    assert out_of_order(celery.parent, "celery") == complaints
