"""`manage.py celeriac …`: the command `celeriac`, with the project's store where it wants a URL.

    manage.py celeriac stats
    manage.py celeriac dead mail --limit 5
    manage.py celeriac stats --cache sessions

The store is that of `CELERIAC["STORE"]` or of the first cache that has one; `--cache` names another
cache. All else goes on to the command as it is: `manage.py celeriac stats shm://other --json`. Exit
codes are the command's own: 0 all is well, 1 there is a finding, 2 it was called wrongly.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand

from celeriac import cli
from celeriac.django import conf
from celeriac.errors import ConfigurationError


def with_store(arguments: list[str]) -> list[str]:
    """The arguments, with the URL behind the command where it wants one and none is given.

    Raises:
        ConfigurationError: there is no such store.
    """
    arguments, alias = _without_cache(arguments)
    wants = {
        name: first for name, first in cli.first_arguments().items() if first.startswith("URL")
    }
    place = next((n for n, each in enumerate(arguments) if not each.startswith("-")), None)
    if place is None or arguments[place] not in wants or {"-h", "--help"} & set(arguments):
        return arguments
    behind = arguments[place + 1 :]
    named = [each for each in behind if not each.startswith("-")]
    if any("://" in each for each in named) or (wants[arguments[place]] != "URL" and named):
        return arguments
    return [*arguments[: place + 1], conf.url_of(alias), *behind]


def _without_cache(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `--cache ALIAS`, and the alias."""
    for place, each in enumerate(arguments):
        if each.startswith("--cache="):
            return arguments[:place] + arguments[place + 1 :], each.partition("=")[2]
        if each == "--cache":
            if place + 1 == len(arguments):
                raise ConfigurationError("--cache takes the name of a cache in CACHES")
            return arguments[:place] + arguments[place + 2 :], arguments[place + 1]
    return arguments, None


class Command(BaseCommand):
    """See above."""

    help = "The command celeriac, with this project's store where it wants a URL."
    requires_system_checks: list[Any] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """All that follows is the command's, `--help` too."""
        sys.exit(self.run(argv[2:]))

    def add_arguments(self, parser: Any) -> None:
        """For `call_command`."""
        parser.add_argument("args", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """`call_command("celeriac", "stats")`. Raises SystemExit unless all is well."""
        code = self.run([str(each) for each in args])
        if code:
            sys.exit(code)

    def run(self, arguments: list[str]) -> int:
        """The exit code."""
        try:
            arguments = with_store(arguments)
        except ConfigurationError as error:
            self.stderr.write(f"celeriac: {error}")
            return cli.BAD_USAGE
        return cli.main(arguments)
