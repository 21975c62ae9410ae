"""`celeriac check-production SETTINGS`: is a Django project ready for production?"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from celeriac.errors import ConfigurationError

from .tables import print_table

if TYPE_CHECKING:
    from celeriac.django.readiness import Point


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check-production",
        help="say whether a Django project's settings are fit for production",
        description="Reads the settings, runs Django's deployment checks, and looks at limits, "
        "persistence, backups, alerts and debug flags. Opens no store and changes nothing. Exit "
        "code 1 when there is a finding, 2 when the settings can't be loaded.",
    )
    parser.add_argument(
        "settings",
        metavar="SETTINGS",
        nargs="?",
        help="the settings' module, for example config.settings (DJANGO_SETTINGS_MODULE)",
    )
    parser.add_argument(
        "--pythonpath", metavar="DIR", default=".", help="where it is imported from (%(default)s)"
    )
    parser.add_argument("--backups", metavar="DIR", help="where backups of file:// stores are")
    parser.add_argument(
        "--monitoring", metavar="DIR", help="where celeriac monitoring write has written"
    )
    parser.add_argument(
        "--ignore",
        metavar="CODE",
        action="append",
        default=[],
        help="a finding that is meant so, once or more",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Report; 1 when something was found."""
    found = _points(options)
    unknown = set(options.ignore) - {point.code for point in found}
    if unknown:
        raise ConfigurationError(
            f"--ignore {', '.join(sorted(unknown))}: the codes are "
            f"{', '.join(dict.fromkeys(point.code for point in found))}"
        )
    states = [_state(point, options.ignore) for point in found]
    ready = "finding" not in states
    if options.json:
        told = [
            {**point._asdict(), "state": state} for point, state in zip(found, states, strict=True)
        ]
        print(json.dumps({"ready": ready, "points": told}, indent=2))
        return 0 if ready else 1
    print_table(
        ["check", "area", "state"],
        [[point.code, point.area, state] for point, state in zip(found, states, strict=True)],
    )
    print()
    for point, state in zip(found, states, strict=True):
        if state == "finding":
            print(f"{point.code}: {point.found}" + (f" ({point.advice})" if point.advice else ""))
    if ready:
        print("ready")
    return 0 if ready else 1


def _state(point: Point, ignored: list[str]) -> str:
    if not point.found:
        return "ok"
    return "ignored" if point.code in ignored else "finding"


def _points(options: argparse.Namespace) -> list[Point]:
    name = options.settings or os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name:
        raise ConfigurationError("check-production takes the settings' module: config.settings")
    for option, path in (("--backups", options.backups), ("--monitoring", options.monitoring)):
        if path is not None and not os.path.isdir(path):
            raise ConfigurationError(f"{option} {path!r} isn't a directory")
    if importlib.util.find_spec("django") is None:
        raise ConfigurationError("check-production needs Django: pip install 'celeriac[django]'")
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    sys.path.insert(0, os.path.abspath(options.pythonpath))
    import django

    try:
        django.setup()
    except Exception as error:  # whatever the project's code raises
        raise ConfigurationError(
            f"settings {name!r} can't be loaded: {type(error).__name__}: {error}"
        ) from None
    from celeriac.django.readiness import points

    return points(
        backups=Path(options.backups) if options.backups else None,
        monitoring=Path(options.monitoring) if options.monitoring else None,
    )
