"""`celeriac demo`: a Django shop on LocMem, on celeriac and on Redis, under the same load."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

from celeriac.demo.errors import Interrupted
from celeriac.demo.options import DemoOptions
from celeriac.demo.stacks import STACKS
from celeriac.errors import ConfigurationError

from .progress import progress
from .tables import print_table

REPORT_JSON = Path("demo-report.json")
REPORT_PAGE = Path("demo-report.html")

DESCRIPTION = """\
Runs a real Django shop (gunicorn, a Celery worker, beat, SQLite) under load, each time over the
same requests: as such a project starts out, with celeriac, and with Redis where redis-server is
found. Prints one table and writes demo-report.json and demo-report.html into the current
directory. Then shows the shop on celeriac as whoever is on call sees it; --serve keeps that one
running."""

EPILOG = """\
Exit code 1 when a task was lost or a request failed. Needs: pip install 'celeriac[demo]'"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    defaults = DemoOptions()
    parser = commands.add_parser(
        "demo",
        help="run a Django shop on celeriac and beside it on LocMem and Redis",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=defaults.seconds,
        metavar="N",
        help="load per phase (default: %(default)g)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=defaults.workers,
        metavar="N",
        help="gunicorn's worker processes, each with two threads (default: %(default)s)",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="replay page accesses as product views: big-endian int32 keys, also .xz "
        "(default: a seeded Zipf draw)",
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, metavar="N", help="of all draws (default: 1)"
    )
    parser.add_argument(
        "--stacks",
        type=_stacks,
        default=defaults.stacks,
        metavar="LIST",
        help=f"which phases to run, in order (default: {','.join(defaults.stacks)})",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="no comparison: keep the shop running on celeriac with a few visitors, print its "
        "addresses and a login, until Ctrl-C",
    )
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="of --serve (default: a free one)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument(
        "--no-report",
        action="store_true",
        help="don't write demo-report.json and demo-report.html",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo, print the tables, write the reports."""
    if options.serve:
        return _serve(options)
    from celeriac.demo.report.files import write_json, write_page
    from celeriac.demo.report.goals import went_wrong
    from celeriac.demo.report.summary import summarize
    from celeriac.demo.report.table import on_call_table, table
    from celeriac.demo.run import run_demo

    json_files = [options.json] if options.json else []
    pages = []
    if not options.no_report:
        json_files.append(REPORT_JSON)
        pages.append(REPORT_PAGE)
    for path in json_files + pages:
        _check_writable(path)

    chosen = DemoOptions(
        options.seconds, options.workers, options.seed, options.trace, options.stacks
    )
    try:
        with progress() as shown:
            summary = summarize(run_demo(chosen, shown))
    except Interrupted as interrupt:
        return _interrupted(interrupt)

    print_table(*table(summary))
    for goal in summary["goals"]:
        mark = {True: "met: ", False: "MISSED: ", None: ""}[goal["met"]]
        print(f"{goal['goal']}: {mark}{goal['detail']}")
    if summary["on_call"]:
        print()
        print_table(*on_call_table(summary["on_call"]))
    for name, reason in summary["skipped"].items():
        print(f"{name} wasn't run: {reason}")
    for path in json_files:
        write_json(path, summary)
    for path in pages:
        write_page(path, summary)
    for path in json_files + pages:
        print(f"wrote {path}")
    problems = went_wrong(summary["phases"], summary["on_call"])
    for problem in problems:
        print(f"celeriac: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _serve(options: argparse.Namespace) -> int:
    from celeriac.demo.serve import serve

    chosen = DemoOptions(workers=options.workers, seed=options.seed)
    _check_free(options.port)
    try:
        with progress() as shown:
            serve(chosen, options.port, shown, _tell)
    except Interrupted as interrupt:
        return _interrupted(interrupt)
    raise AssertionError("it ends by a signal")


def _tell(watched: Any) -> None:
    """Where to look."""
    at = f"http://127.0.0.1:{watched.shop.port}"
    for name, text in (
        ("shop", f"{at}/products"),
        ("admin", f"{at}/admin/cache/stats"),
        ("login", f"superadmin, password {watched.password}"),
        ("metrics", f"{at}/metrics"),
        ("health", f"{at}/readyz"),
        ("beside it", f"celeriac top {watched.url}"),
    ):
        print(f"{name:<10} {text}")
    print("until Ctrl-C", flush=True)


def _check_free(port: int) -> None:
    """Fail before anything is started."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"can't serve on port {port}: {error.strerror}; choose another, or none"
        ) from error


def _interrupted(interrupt: Interrupted) -> int:
    print("celeriac: interrupted; every process of the demo is gone", file=sys.stderr)
    return 128 + interrupt.signal


def _check_writable(path: Path) -> None:
    """Fail before the run and not after it."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"can't write {path}: choose another directory, or --no-report")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 0.5 and 3600")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("between 0 and 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError("between 1 and 64")
    return value


def _stacks(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in STACKS:
            raise argparse.ArgumentTypeError(f"no stack {name!r}; there are {', '.join(STACKS)}")
    return names
