"""What writes to shared memory says what a crash in it leaves behind, and can be made to crash.

- A public method, of a class in arena, sync, memory, store or queue, that writes to shared memory
  has a line `Crash-safe:` in its comment. The few that only keep statistics or hints stand in
  `READERS` below, each with its reason.
- What says `Crash-safe:` passes a crash point, or is one step of operations that all pass one.
- Crash points have names of their own, `area.operation.place`.

"Writes" means: it calls store(), exchange(), compare_exchange_*() or fetch_*() on an atomic that
isn't a member of the process's own object (those end in `_`), or calls something of its own class
or a free function that does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from cpp_source import Function, functions

LAYERS = ("arena", "sync", "memory", "store", "queue")

READERS = {
    "Cache::get": "counts hits and misses, and sets an entry's frequency bits",
    "Cache::wait_for_change": "counts the sleepers of a futex word",
    "Metrics::drop": "counts a series that was refused",
    "Metrics::lose": "counts a value that was lost",
}

WRITE = re.compile(
    r"(?:(\w+)|[\])])\s*(?:\.|->)\s*(?:store|exchange|compare_exchange_\w+|fetch_\w+)\("
)
CALL = re.compile(r"\b(\w+)\s*\(")
POINT_NAME = re.compile(r"[a-z][a-z_]*(\.[a-z][a-z_]*){2}")


def sources(src: Path) -> list[Function]:
    paths = [path for layer in LAYERS for path in sorted((src / layer).rglob("*.?pp"))]
    return [function for path in paths for function in functions(path)]


def calls(function: Function) -> set[str]:
    return set(CALL.findall(function.body))


def closure(
    all_of_them: list[Function],
    start: Iterable[Function],
    passes_on: Callable[[Function, Function], bool],
) -> set[tuple[str, str]]:
    """(class, name) of `start` and, again and again, of what calls one of them."""
    reached = {(f.owner, f.name): f for f in start}
    grew = True
    while grew:
        grew = False
        for function in all_of_them:
            if (function.owner, function.name) in reached:
                continue
            called = calls(function)
            if any(to.name in called and passes_on(function, to) for to in reached.values()):
                reached[function.owner, function.name] = function
                grew = True
    return set(reached)


def writes(function: Function) -> bool:
    receivers = (match.group(1) or "" for match in WRITE.finditer(function.body))
    return bool(function.points) or any(not name.endswith("_") for name in receivers)


def undocumented(found: list[Function], readers: Iterable[str]) -> list[str]:
    writers = closure(
        found, filter(writes, found), lambda caller, to: to.owner in ("", caller.owner)
    )
    return [
        f"{function} writes to shared memory and has no line Crash-safe:"
        for function in found
        if function.path.suffix == ".hpp"
        and function.public
        and function.owner
        and function.changes_its_object
        and (function.owner, function.name) in writers
        and f"{function.owner}::{function.name}" not in readers
        and "Crash-safe:" not in function.doc + function.shared_doc
    ]


def without_point(found: list[Function]) -> list[str]:
    pass_one = closure(found, (f for f in found if f.points), lambda caller, to: True)
    names = {name for _, name in pass_one}

    def tested(function: Function) -> bool:
        if function.name in names:
            return True
        callers = [f for f in found if function.name in calls(f)]
        return bool(callers) and all(caller.points for caller in callers)

    return [
        f"{function} says Crash-safe: and passes no crash point"
        for function in found
        if function.path.suffix == ".hpp" and "Crash-safe:" in function.doc
        if not tested(function)
    ]


def wrong_names(src: Path) -> list[str]:
    names: Counter[str] = Counter()
    for path in sorted(src.rglob("*.?pp")):
        names.update(re.findall(r'CRASH_POINT\("([^"]*)"\)', path.read_text()))
    return [
        *(f"{name} isn't area.operation.place" for name in names if not POINT_NAME.fullmatch(name)),
        *(f"{name} stands in {count} places" for name, count in names.items() if count > 1),
    ]


def test_writers_document_what_a_crash_leaves(root: Path) -> None:
    assert undocumented(sources(root / "src"), READERS) == []


def test_readers_are_still_there(root: Path) -> None:
    found = sources(root / "src")
    # Without the list they are complained of, so each of its lines is needed.
    complaints = "\n".join(undocumented(found, ()))
    assert [name for name in READERS if f": {name} writes" not in complaints] == []


def test_operations_pass_a_crash_point(root: Path) -> None:
    found = sources(root / "src")
    assert sum("Crash-safe:" in function.doc for function in found) > 30
    assert without_point(found) == []


def test_names_of_crash_points(root: Path) -> None:
    assert wrong_names(root / "src") == []


HEADER = """
class Thing {
 public:
  explicit Thing(Base& base) : base_(base) {}
  // Crash-safe: one store.
  void set(int value);
  // Crash-safe: as set.
  void reset() { set(0); }
  int get() const { return base_.word.load(); }

  void remember() { seen_.store(1); }
 private:
  void low(int value);
  std::atomic<int> seen_{0};
};
"""
SOURCE = """
void Thing::set(int value) { low(value); }
void Thing::low(int value) {
  // store( in a comment is none, nor is "word.store("
  base_.word.store(value);
  CELERIAC_CRASH_POINT("thing.set.stored");
}
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("", "", ""),
        ("  // Crash-safe: one store.\n", "", "Thing::set writes to shared memory"),
        ("  // Crash-safe: as set.\n", "  // As set.\n", "Thing::reset writes to shared memory"),
        ("seen_.store(1)", "base_.seen.store(1)", "Thing::remember writes"),
        ('  CELERIAC_CRASH_POINT("thing.set.stored");\n', "", "Thing::set says Crash-safe:"),
        ("thing.set.stored", "thing.stored", "isn't area.operation.place"),
        ("{ low(value); }", '{ CELERIAC_CRASH_POINT("thing.set.stored"); }', "stands in 2 places"),
    ],
)
def test_what_is_missing_is_found(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    (tmp_path / "store").mkdir()
    for name, text in (("thing.hpp", HEADER), ("thing.cpp", SOURCE)):
        (tmp_path / "store" / name).write_text(text.replace(old, new) if old else text)
    found = sources(tmp_path)
    problems = [*undocumented(found, ()), *without_point(found), *wrong_names(tmp_path)]
    assert bool(problems) == bool(complaint)
    assert complaint in "\n".join(problems)
