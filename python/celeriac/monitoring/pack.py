"""The files of the pack, with the options in their places, written into a directory."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from celeriac.errors import ConfigurationError
from celeriac.url import parse_url

__all__ = ["Options", "Written", "files", "write"]

DEFAULT_PORT = 9108

_PACK = Path(__file__).parent / "pack"
_PLACE = re.compile(r"@([A-Z_]+)@")
# What needs no quotes in YAML, shell, units, crontabs and nginx alike.
_PLAIN = re.compile(r"[A-Za-z0-9_./:=?&+,-]+\Z")
_TARGET = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})\Z")
_USER = re.compile(r"[a-z_][a-z0-9_-]*\Z")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)


@dataclass(frozen=True)
class Options:
    """What is different from host to host. Raises ConfigurationError for what can't be."""

    port: int = DEFAULT_PORT
    """Where `celeriac monitoring serve` listens."""
    targets: tuple[str, ...] = ()
    """What Prometheus scrapes, HOST:PORT; none: this host's port."""
    store: str = "shm://app"
    """The store that is shown."""
    queues: str = "file:///var/lib/app"
    """The store that is backed up."""
    backups: str = "/var/backups/app"
    """Where copies go."""
    keep_days: int = 14
    """For how long."""
    user: str = "app"
    """Who the application runs as."""
    project: str = "/srv/app"
    """Its directory."""
    app: str = "config"
    """Its package, with `wsgi.py` and the Celery application."""
    job: str = "celeriac"
    """Prometheus' name for all of it."""
    webhook: str = "http://127.0.0.1:9095/alerts"
    """Where alerts go."""
    mixins: bool = False
    """Also django-prometheus' names, for django-mixin."""

    def __post_init__(self) -> None:
        for name, text in (
            ("store", self.store),
            ("queues", self.queues),
            ("backups", self.backups),
            ("project", self.project),
            ("webhook", self.webhook),
            ("job", self.job),
        ):
            if not _PLAIN.match(text):
                raise ConfigurationError(
                    f"--{name} {text!r}: letters, digits and _./:=?&+,- only, as it stands in "
                    "files of several languages"
                )
        for target in self.targets:
            found = _TARGET.match(target)
            if not found or not 1 <= int(found[1]) <= 65535:
                raise ConfigurationError(f"--target {target!r} isn't HOST:PORT")
        if not 1 <= self.port <= 65535:
            raise ConfigurationError(f"--port {self.port}: 1 to 65535")
        if self.keep_days < 1:
            raise ConfigurationError(f"--keep-days {self.keep_days}: 1 or more")
        parse_url(self.store)
        if not parse_url(self.queues).is_file:
            raise ConfigurationError(
                f"--queues {self.queues!r}: only file:///DIRECTORY is backed up"
            )
        for name, path in (("backups", self.backups), ("project", self.project)):
            if not path.startswith("/"):
                raise ConfigurationError(f"--{name} {path!r} isn't an absolute path")
        if not self.webhook.startswith(("http://", "https://")):
            raise ConfigurationError(f"--webhook {self.webhook!r} isn't an http URL")
        if not _USER.match(self.user):
            raise ConfigurationError(f"--user {self.user!r} isn't a name of a user")
        if not _MODULE.match(self.app):
            raise ConfigurationError(f"--app {self.app!r} isn't a name of a package")

    def places(self, directory: str) -> dict[str, str]:
        """By the name of a place what stands there, when the pack lies in `directory`."""
        if not _PLAIN.match(directory) or not _PLAIN.match(sys.executable):
            raise ConfigurationError(
                f"{directory!r} and {sys.executable!r}: letters, digits and _./:=?&+,- only, as "
                "they stand in files of several languages"
            )
        targets = self.targets or (f"127.0.0.1:{self.port}",)
        return {
            "PORT": str(self.port),
            "TARGETS": ", ".join(f'"{target}"' for target in targets),
            "STORE": shlex.quote(self.store),
            "QUEUES": shlex.quote(self.queues),
            "BACKUPS": self.backups,
            "KEEP_DAYS": str(self.keep_days),
            "USER": self.user,
            "PROJECT": self.project,
            "APP": self.app,
            "JOB": self.job,
            "WEBHOOK": self.webhook,
            "MIXINS": "  - rules/mixins.yml\n" if self.mixins else "",
            "PYTHON": sys.executable,
            "PACK": directory,
        }


@dataclass(frozen=True)
class Written:
    """What `write` did, as paths below the directory."""

    new: tuple[str, ...]
    replaced: tuple[str, ...]
    same: tuple[str, ...]
    left: tuple[str, ...]
    """What is there, is different, and wasn't touched."""


def files(options: Options, directory: str) -> dict[str, str]:
    """The pack's text by path, in order."""
    places = options.places(directory)
    return {
        path: _PLACE.sub(lambda found: places[found[1]], file.read_text(encoding="utf-8"))
        for path, file in _templates()
    }


def _templates() -> Iterator[tuple[str, Path]]:
    for path in sorted(_PACK.rglob("*")):
        if path.is_file():
            yield path.relative_to(_PACK).as_posix(), path


def write(directory: str | os.PathLike[str], options: Options, *, force: bool = False) -> Written:
    """Write the pack.

    :param directory: made if it isn't there.
    :param force: replace what is there and different. Without it, such files stay as they are.

    Raises ConfigurationError for a directory whose name can't stand in the files; OSError.
    """
    top = Path(directory).absolute()
    if top.exists() and not top.is_dir():
        raise ConfigurationError(f"{os.fspath(directory)!r} isn't a directory")
    done: dict[str, list[str]] = {"new": [], "replaced": [], "same": [], "left": []}
    for path, text in files(options, str(top)).items():
        place = top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(text)
            done["new"].append(path)
            continue
        except FileExistsError:
            pass
        if place.read_bytes() == text.encode():
            done["same"].append(path)
        elif force:
            beside = place.with_name(f".{place.name}.new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(place)
            done["replaced"].append(path)
        else:
            done["left"].append(path)
    return Written(**{name: tuple(paths) for name, paths in done.items()})
