"""The `celeriac` command.

Exit codes: 0 all is well, 1 there is a finding (a lost task, a dead owner, no such store), 2 it was
called wrongly. A user's mistake gets a message on stderr and no traceback.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from celeriac import __version__
from celeriac.errors import CeleriacError, ConfigurationError

from . import probe

FINE, FINDING, BAD_USAGE = 0, 1, 2

__all__ = ["BAD_USAGE", "FINDING", "FINE", "first_arguments", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    `arguments` without the program's name; None means the process's own. Raises `SystemExit` for
    `--help` and for arguments that can't be parsed, as argparse does.
    """
    _prepare_output()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parse(given)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _complain(error, BAD_USAGE)
    except CeleriacError as error:
        return _complain(error, FINDING)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDING
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a full disk behind stdout; a file that can't be written
        with suppress(OSError):
            sys.stdout.close()  # what it still holds can't be written either
        return _complain(error, FINDING)
    return code


def _prepare_output() -> None:
    """Output that is closed is like /dev/null; what its encoding lacks is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parse(given: Sequence[str]) -> argparse.Namespace:
    if list(given[:2]) == ["probe", "worker"]:  # who probes pays for no other command
        return probe.worker_parser().parse_args(given[2:])
    return _parser().parse_args(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="celeriac", description="A cache and a task queue for all processes of a host."
    )
    parser.add_argument("--version", action="version", version=f"celeriac {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_others(commands)
    probe.add_command(commands)
    return parser


def _add_others(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from . import (
        check_production,
        demo,
        doctor,
        entries,
        journal,
        locks,
        monitoring,
        queues,
        resize,
        stats,
        top,
    )

    for command in (
        demo,
        stats,
        top,
        doctor,
        resize,
        journal,
        monitoring,
        check_production,
    ):
        command.add_command(commands)
    for several in (entries, queues, locks):
        several.add_commands(commands)


def first_arguments() -> dict[str, str]:
    """What each command takes first, as its help calls it: "URL"; "" where that is nothing."""
    found = {}
    for group in _parser()._actions:
        for name, command in dict(group.choices or {}).items() if group.nargs == "A..." else ():
            places = [each for each in command._actions if not each.option_strings]
            found[name] = str(places[0].metavar or places[0].dest) if places else ""
    return found


def _complain(error: Exception, code: int) -> int:
    print(f"celeriac: {error}", file=sys.stderr)
    return code
