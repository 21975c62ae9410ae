"""Store URLs: ``shm://NAME?option=value`` or ``file:///DIRECTORY?option=value``, and the options of
:func:`celeriac.connect`.

An option may ride in the query or be given as a keyword; given in both, the keyword wins. Sizes are
bytes or a number with K, M, G or T (1024-based): ``512M``, ``2G``, ``1.5G``.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from celeriac.errors import ConfigurationError

SCHEMES = ("shm", "file", "redis", "rediss", "redis+socket", "redis+sentinel", "redis+cluster")
DEFAULT_MEMORY = 256 << 20
MOST_MEMORY = 1 << 62  # more than any file system can give; more is the same

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DURABILITIES = ("process", "everysec", "always")
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off"}


@dataclass(frozen=True)
class Options:
    """The options of a local store, parsed."""

    memory: int | None = None
    create: bool = True
    mode: int = 0o600
    durability: str = "everysec"
    """Of the queues of ``file://`` stores."""


@dataclass(frozen=True)
class StoreURL:
    """A parsed store URL."""

    scheme: str
    name: str
    """Of ``file://``, the absolute path of the directory."""
    options: Options

    @property
    def is_file(self) -> bool:
        """Whether the store has a directory of its own, which the URL names."""
        return self.scheme == "file"

    def __str__(self) -> str:
        """The URL with every option that isn't the default: what a handle pickles as."""
        query: dict[str, str] = {}
        if self.options.memory is not None:
            query["memory"] = str(self.options.memory)
        if not self.options.create:
            query["create"] = "false"
        if self.options.mode != 0o600:
            query["mode"] = f"{self.options.mode:04o}"
        if self.options.durability != "everysec":
            query["durability"] = self.options.durability
        return f"{self.scheme}://{quote(self.name)}" + (f"?{urlencode(query)}" if query else "")


def parse_size(value: Any, option: str = "memory") -> int:
    """Bytes from ``512M``, ``"2G"`` or a plain int. Raises ConfigurationError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return min(value, MOST_MEMORY)
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(
            f"{option}={value!r} is not a size: give bytes or a number with K, M, G or T, "
            f'such as {option}="512M"'
        )
    number, unit = match.group(1), _UNITS[match.group(2).lower()]
    size = int(number) * unit if number.isdecimal() else int(float(number) * unit)
    return min(size, MOST_MEMORY)


def parse_bool(value: Any, option: str) -> bool:
    """A bool from ``true/false``, ``1/0``, ``yes/no``, ``on/off``. Raises ConfigurationError."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ConfigurationError(f"{option}={value!r} is neither true nor false")


def parse_mode(value: Any) -> int:
    """File permissions: ``0o600`` or ``"0660"``. Raises ConfigurationError.

    A store is its user's alone in any case: ``shm://app`` is another one for another user. 0660
    opens the files and directories to the group, for a backup or a monitor that reads them.
    """
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if mode not in (0o600, 0o660):
        raise ConfigurationError(
            f"mode={value!r} is not supported: use 0600, or 0660 to let this user's group read "
            "and write the files; other users' processes can't use the store with either"
        )
    return mode


def parse_durability(value: Any) -> str:
    """``process``, ``everysec`` or ``always``. Raises ConfigurationError."""
    if value in DURABILITIES:
        return str(value)
    guess = difflib.get_close_matches(str(value), DURABILITIES, n=1)
    hint = f" Did you mean {guess[0]!r}?" if guess else ""
    raise ConfigurationError(
        f"durability={value!r} is not one of {', '.join(DURABILITIES)}: what a queue promises when "
        f"a call returns.{hint}"
    )


def _directory(parts: SplitResult) -> str:
    """Of a ``file://`` URL: one store, one path."""
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc or not path.startswith("/"):
        raise ConfigurationError(
            f"file://{parts.netloc}{parts.path} is no directory of this host: "
            "file:///DIRECTORY takes an absolute path"
        )
    if "\0" in path or ".." in path.split("/"):
        raise ConfigurationError(f"{path!r} is not the path of a directory, without '..'")
    path = posixpath.normpath("/" + path.lstrip("/"))
    if path == "/":
        raise ConfigurationError("file:/// is the root directory: a store has one of its own")
    return path


def parse_url(url: str, **options: Any) -> StoreURL:
    """Parse a store URL and options. Raises ConfigurationError that says what is allowed."""
    if not isinstance(url, str):
        raise ConfigurationError(f"a store URL is a str such as 'shm://app', not {url!r}")
    url = url.removeprefix("celeriac+")  # as Celery's settings have it
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        guess = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f" Did you mean {guess[0]}://?" if guess else ""
        shown = f"{scheme}://" if separator else repr(url)
        raise ConfigurationError(f"unknown store URL {shown}: the schemes are {known}.{hint}")
    if scheme not in ("shm", "file"):
        raise ConfigurationError(
            f"{scheme}:// is reserved for Redis stores (redis://), which this version does not "
            "have yet: use shm://NAME"
        )
    if re.search(r"[\x00-\x20\x7f]", url):  # urlsplit() would drop some of them
        raise ConfigurationError(f"{url!r} has spaces or line breaks: a store URL has none")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a store URL: {error}") from None
    if parts.fragment:
        raise ConfigurationError(f"a store URL has no #fragment: {url!r}")
    name = _directory(parts) if scheme == "file" else parts.netloc + parts.path.rstrip("/")
    if scheme == "shm" and not _NAME.match(name):
        raise ConfigurationError(
            f"{name!r} is not a store name: shm://NAME takes 1 to 64 letters, digits, '_', '-' "
            "and '.', and does not begin with '-' or '.'"
        )
    given: dict[str, Any] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in given:
            raise ConfigurationError(f"option {key!r} is given twice in the URL")
        given[key] = value
    given.update(options)
    known_options = [f.name for f in fields(Options)]
    if scheme == "shm":  # which no crash of the host survives
        known_options.remove("durability")
    for key in given:
        if key not in known_options:
            guess = difflib.get_close_matches(key, known_options, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise ConfigurationError(
                f"unknown option {key!r} for {scheme}://: the options are "
                f"{', '.join(known_options)}.{hint}"
            )
    memory = given.get("memory")
    return StoreURL(
        scheme=scheme,
        name=name,
        options=Options(
            memory=None if memory is None else parse_size(memory),
            create=parse_bool(given.get("create", True), "create"),
            mode=parse_mode(given.get("mode", 0o600)),
            durability=parse_durability(given.get("durability", "everysec")),
        ),
    )
