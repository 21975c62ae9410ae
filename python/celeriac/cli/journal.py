"""`celeriac verify|backup|restore`: the journal of a `file://` store, and copies of it."""

from __future__ import annotations

import argparse
import os

import celeriac
from celeriac import _core
from celeriac.errors import ConfigurationError, StoreNotFound
from celeriac.url import parse_url


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands to the parser."""
    parser = commands.add_parser(
        "verify",
        help="check the journal of a file:// store, or a backup",
        description="Reads all of it, whether the store is in use or not, changes nothing, and "
        "says what is damaged, where, and how much is missing. 0: nothing that was promised.",
    )
    parser.add_argument("what", metavar="URL|FILE", help="file:///DIRECTORY, or a backup's path")
    parser.set_defaults(run=verify)
    parser = commands.add_parser(
        "backup",
        help="write all queues and messages of a file:// store into one file",
        description="As they are at one moment, while the store is in use. Never over a file.",
    )
    parser.add_argument("url", metavar="URL", help="file:///DIRECTORY")
    parser.add_argument("file", metavar="FILE", help="a name that nothing has yet")
    parser.set_defaults(run=backup)
    parser = commands.add_parser(
        "restore",
        help="make a new file:// store of a backup",
        description="Checks the backup first. The directory is empty, or is made.",
    )
    parser.add_argument("url", metavar="URL", help="file:///DIRECTORY")
    parser.add_argument("file", metavar="FILE", help="what celeriac backup wrote")
    parser.set_defaults(run=restore)


def verify(options: argparse.Namespace) -> int:
    """Print what there is and what is wrong; 1 when something that was promised is missing."""
    path = options.what
    if not path:
        raise ConfigurationError("verify takes file:///DIRECTORY, or the path of a backup")
    if "://" in path:
        url = parse_url(path)
        if not url.is_file:
            raise ConfigurationError(f"{path!r} has no journal: only file:///DIRECTORY has one")
        path = url.name
    found = _core.verify_journal(os.fsencode(os.path.realpath(path)))
    if not found["segments"] and not os.path.exists(os.path.join(path, "arena")):
        raise StoreNotFound(f"no store in {path}: it has neither a journal nor an arena")
    print(
        f"{found['segments']} segments, {found['records']} records, "
        f"{len(found['queues'])} queues, {found['messages']} messages"
    )
    for line in found["damages"]:
        print(line)
    print("damaged" if found["damaged"] else "nothing that was promised is missing")
    return 1 if found["damaged"] else 0


def backup(options: argparse.Namespace) -> int:
    """Write the backup."""
    with celeriac.connect(options.url, create=False) as store:
        store.backup(options.file)
    print(f"{options.file}: {os.path.getsize(options.file)} bytes")
    return 0


def restore(options: argparse.Namespace) -> int:
    """Make the store."""
    celeriac.restore(options.url, options.file)
    print(f"restored {options.url}")
    return 0
