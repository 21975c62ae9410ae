"""Stores: ``connect(url)`` and what it returns."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from celeriac import _core, checks, tags
from celeriac.cache import DEFAULT_TTL, Cache
from celeriac.cache_entries import CacheEntries, Shared
from celeriac.concurrency import Concurrency
from celeriac.entries import DEFAULT_THRESHOLD, Format
from celeriac.errors import ConfigurationError, StoreNotFound
from celeriac.limits import Limiter, make_limiter
from celeriac.metrics import Metrics
from celeriac.prefix_stats import PrefixStats, counted, lead_size
from celeriac.queue import Queue, Waiter
from celeriac.queue_options import Keep, check_count, check_options
from celeriac.store_locks import StoreLocks
from celeriac.table import Table
from celeriac.url import DEFAULT_MEMORY, DURABILITIES, StoreURL, parse_size, parse_url

_open: weakref.WeakSet[Store] = weakref.WeakSet()
_default: Store | None = None


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of {what} is a str, not {type(name).__name__}")
    name.encode()  # UnicodeEncodeError says what is wrong with it


def _check_mode(path: str, mode: int) -> None:
    """The core refuses files that are open to more than `mode`; here those that are to less."""
    with suppress(OSError):  # not there, or nothing that may be opened: the core says so
        there = os.lstat(f"{path}/arena").st_mode & 0o777
        if mode & 0o060 & ~there:
            raise ConfigurationError(
                f"mode={mode:04o}, but the store at {path} was made with {there:04o}: mode= counts "
                "when a store is made; leave it out, or remove the store first"
            )


class Store(StoreLocks):
    """One store: caches, tables, queues and locks that every process of the host shares.

    Made by :func:`connect`. Thread-safe and fork-safe: a forked child uses the same handle and is
    another owner. Pickles as its URL. As a context manager it closes at the end.
    """

    def __init__(self, url: StoreURL, *, looking: bool = False) -> None:
        """`looking`: an existing store's ceiling stays as it is, whatever the URL says."""
        self._url = url
        options = url.options
        if url.is_file:
            root, name, path = url.name, "", url.name
        else:
            root, name = os.environ.get("CELERIAC_SHM_DIR") or "/dev/shm", url.name
            if not os.path.isabs(root):
                raise ConfigurationError(
                    f"CELERIAC_SHM_DIR={root!r} depends on where a process was started: stores are "
                    "shared by all who have the same absolute path"
                )
            path = f"{root}/celeriac-{os.geteuid()}/{name}"
        _check_mode(path, options.mode)
        self._core = _core.open_local(
            root=root,
            name=name,
            memory=DEFAULT_MEMORY if options.memory is None else options.memory,
            memory_given=options.memory is not None and not looking,
            mode=options.mode,
            durability=DURABILITIES.index(options.durability),
            create=options.create,
        )
        self._shared = Shared(self._core)
        _open.add(self)

    @property
    def url(self) -> str:
        """The URL that leads here, with its options."""
        return str(self._url)

    @property
    def path(self) -> str:
        """The directory of the store."""
        return self._core.path

    @property
    def closed(self) -> bool:
        """True after close(), or after any handle's destroy()."""
        return self._core.closed

    def __repr__(self) -> str:
        return f"<Store {self.url}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.url,)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def cache(
        self,
        namespace: str = "default",
        *,
        ttl: float | None = DEFAULT_TTL,
        serializer: str = "native",
        compressor: str | None = None,
        compress_above: int = DEFAULT_THRESHOLD,
        max_entries: int | None = None,
        version: int | str | None = None,
        overflow: str | None = None,
        lead: str = "",
    ) -> Cache:
        """A cache: a namespace of the store.

        :param ttl: default time to live in seconds; None = no expiry.
        :param serializer: ``native`` (plain values in a form of their own, the rest pickled),
            ``pickle``, ``json``, ``msgpack``, or a dotted path to something with ``dumps(value)``
            and ``loads(bytes)``.
        :param compressor: ``zlib``, ``lzma``, ``lz4`` or ``zstd``, for values that are larger than
            ``compress_above`` bytes when serialized, and smaller compressed.
        :param max_entries: bound by count, beside the store's bound by memory. It is the
            namespace's, for everybody who uses it: whoever names one last has set it. While
            entries are kept in an ``overflow``, memory alone bounds them.
        :param version: entries of another version are another cache's.
        :param overflow: a cache that keeps this one's entries, with those of others, while the
            store has no place for one more namespace; without it that is NotEnoughMemory. For
            callers whose keys differ from all others' that name the same overflow.
        :param lead: what all keys begin with, up to and with a ``:``. It is the namespace's, for
            everybody who uses it: statistics by prefix look at what comes behind.

        A store has places for some 110 caches and tables that have entries at a time; names of
        caches without entries are no limit. Names that begin with ``celeriac.`` are its own.

        Serializer and compressor are named in each entry that isn't in the core's own form: after
        a change of settings old entries are read as they were written, or are misses.
        """
        _check_name(namespace, "a namespace")
        if version is not None:
            if not isinstance(version, (int, str)):
                raise TypeError(f"version is an int, a str or None, not {type(version).__name__}")
            namespace = f"{namespace}@{version}"
        written = Format(serializer, compressor, compress_above)
        checks.check_ttl(ttl)
        check_count(max_entries, "max_entries")
        core = self._core.cache(
            namespace,
            table=False,
            pickle_all=written.pickle_all,
            unpickles=written.unpickles,
            overflow=overflow or "",
            lead=lead_size(lead),
        )
        entries = CacheEntries(core, namespace, self._shared, written)
        again = functools.partial(
            self.cache,
            namespace,
            ttl=ttl,
            serializer=serializer,
            compressor=compressor,
            compress_above=compress_above,
            max_entries=max_entries,
            overflow=overflow,
            lead=lead,
        )
        return Cache(core, entries, namespace, ttl, again, max_entries)

    def table(self, name: str, *, ttl: float | None = None) -> Table:
        """A table: like a cache, but its entries are never evicted. For small shared state."""
        _check_name(name, "a table")
        checks.check_ttl(ttl)
        core = self._core.cache(name, table=True, pickle_all=False)
        again = functools.partial(self.table, name, ttl=ttl)
        return Table(core, CacheEntries(core, name, self._shared), name, ttl, again)

    def queue(
        self,
        name: str,
        *,
        max_length: int | None = None,
        max_deliveries: int | None = None,
        drop_oldest: bool = False,
        owner_bound: bool = False,
        dead_letter: str | None = None,
        keep_done: Keep | None = None,
        keep_failed: Keep | None = None,
        dedup_ttl: float | None = None,
        visibility: float | None = None,
        create: bool = True,
    ) -> Queue:
        """A queue by name; made on first use. Options, when given, become the queue's for all, in
        place of all that were given before.

        :param max_length: most messages that are not yet done; a put beyond raises QueueFull.
        :param max_deliveries: after that many deliveries a message that is given back, or whose
            consumer died, is dead.
        :param drop_oldest: at max_length drop the oldest ready message instead of raising.
        :param owner_bound: the queue vanishes with the process that made it.
        :param dead_letter: name of the queue that gets what would be dead here, and what expired,
            in place of the list of dead messages; made when it is needed. There their deliveries
            count anew and they don't expire; its max_length doesn't keep them out.
        :param keep_done: ``(count, seconds)``: keep that many messages that are done, that long;
            one of the two may be None. See Queue.done().
        :param keep_failed: the same for dead messages, which otherwise stay until you see to them.
            What is kept by these two options gives way when memory is short.
        :param dedup_ttl: seconds for which the ``dedup_key`` of a put is taken; without it, as long
            as its message isn't done.
        :param visibility: seconds after which a message that a living process has reserved is
            delivered again, unless extended; None = never.
        :param create: False raises StoreNotFound when there is no such queue, now or at a later
            use of the handle; True makes it (again).

        In a ``file://`` store a queue is durable, as the URL's ``durability`` says: messages
        survive the end of any process, and a crash of the host.
        """
        _check_name(name, "a queue")
        asked: dict[str, Any] = {
            "max_length": max_length,
            "max_deliveries": max_deliveries,
            "drop_oldest": drop_oldest,
            "owner_bound": owner_bound,
            "dead_letter": dead_letter,
            "keep_done": keep_done,
            "keep_failed": keep_failed,
            "dedup_ttl": dedup_ttl,
            "visibility": visibility,
        }
        options = check_options(name, **asked)
        given = any(value not in (0, False, "", (0, 0.0)) for value in options.values())
        checks.yes_or_no(create, "create")
        core = self._core.queue(name, create=create, given=given, **options)
        again = functools.partial(self.queue, name, create=create, **asked)
        on_disk = self._url.is_file and self._url.options.durability == "always"
        return Queue(self._core, core, name, again, on_disk)

    def limiter(
        self,
        rates: str | Iterable[str],
        *,
        burst: int | Iterable[int | None] | None = None,
        algorithm: str = "gcra",
        name: str | None = None,
        on_error: str = "allow",
        shadow: bool = False,
    ) -> Limiter:
        """A rate limiter, over all processes of the store.

        :param rates: ``"100/s"``, ``"5/10s"``, ``"60/min"``, ``"1000/hour"``, ``"10000/day"`` …; a
            list of up to 8 is one all-or-nothing decision.
        :param burst: the most that can be taken at once, by default the rate's own count. Of a list
            of rates a list, with None for a rate's own count. Windows have none.
        :param algorithm: ``gcra``, ``token_bucket``, ``sliding_window`` or ``fixed_window``.
        :param name: limiters of one name share the state of their keys, by algorithm and period;
            count and burst may change meanwhile. By default the rates themselves.
        :param on_error: ``allow`` or ``deny``, for when the store can't answer: it has no memory
            for a new key, was destroyed, is damaged.
        :param shadow: decide and count, but allow everything: to see what a limit would do.

        Raises ConfigurationError for what is no rate, TypeError. See :class:`Limiter`.
        """
        return make_limiter(
            self._core,
            self.limiter,
            rates,
            burst=burst,
            algorithm=algorithm,
            name=name,
            on_error=on_error,
            shadow=shadow,
        )

    def concurrency(self, name: str, limit: int) -> Concurrency:
        """At most ``limit`` at once of that name, in the whole store; slots of the dead come back.

        :param limit: 1 to 65,536. It is the name's, for everybody who uses it: whoever names one
            last has set it, as long as somebody uses it. Who is in when it is lowered stays.

        Raises ConfigurationError, TypeError; NotEnoughMemory when somebody holds a slot of 1,024
        other names.
        """
        _check_name(name, "a concurrency limit")
        checks.whole(limit, "limit")
        if not 1 <= limit <= 65536:
            raise ConfigurationError(f"limit={limit}: 1 to 65536 at once")
        core = self._core.concurrency(name, limit)
        return Concurrency(core, name, functools.partial(self.concurrency, name, limit))

    @property
    def metrics(self) -> Metrics:
        """Counters, gauges and histograms. See :class:`celeriac.metrics.Metrics`."""
        return Metrics(self)

    def caches(self) -> list[str]:
        """Names of all caches that were ever used, in no order."""
        return [name for name in self._core.caches() if name != tags.NAMESPACE]

    def tables(self) -> list[str]:
        """Names of all tables, in no order; those of the library begin with ``celeriac.``."""
        return self._core.tables()

    def has_queue(self, name: str) -> bool:
        """True when there is a queue of that name."""
        _check_name(name, "a queue")
        return self._core.has_queue(name)

    def queues(self) -> list[str]:
        """Names of all queues."""
        return self._core.queues()

    def waiter(self) -> Waiter:
        """One descriptor for an event loop that consumes from several queues."""
        return Waiter(self._core.waiter())

    def stats(self) -> dict[str, Any]:
        """Memory in bytes, living owners, what recovery did; counts by cache, by prefix of keys
        (see :meth:`Cache.stats_by_prefix`; without entries and bytes), table and queue."""
        stats: dict[str, Any] = dict(self._core.stats())
        stats["url"] = self.url
        stats["path"] = self.path
        stats["caches"] = {
            name: self.cache(name).stats()._asdict() for name in sorted(self.caches())
        }
        stats["prefixes"] = {name: self._counted(name) for name in stats["caches"]}
        stats["tables"] = {
            name: self.table(name).stats()._asdict() for name in sorted(self.tables())
        }
        stats["queues"] = {}
        for name in sorted(self.queues()):
            with suppress(StoreNotFound):  # gone since; looking must not bring it back
                counts = self.queue(name, create=False).counts()
                stats["queues"][name] = counts._asdict()
        return stats

    def _counted(self, name: str) -> dict[str, dict[str, int]]:
        _, rows = self.cache(name)._core.prefixes()
        names = PrefixStats._fields[2:]
        return {
            prefix: dict(zip(names, counts, strict=True))
            for prefix, counts in sorted(counted(rows).items())
        }

    def owners(self) -> list[dict[str, Any]]:
        """Attached processes: slot, epoch, pid, started, command, alive."""
        return self._core.owners()

    def recover(self) -> int:
        """Repair what dead processes left; how many of them there were.

        Runs by itself when somebody waits, registers or runs short; here for tools.
        """
        return self._core.recover()

    def resize(self, memory: int | str) -> int:
        """Change the ceiling of the store's memory while it is in use; the ceiling in bytes that
        holds then, which is another when somebody else has set it meanwhile.

        :param memory: bytes, or ``512M``, ``2G``, as in connect(); rounded down to whole pages.

        Upward at once, for all processes. Downward the ceiling falls first; then caches are evicted
        by their policy until all fits, what is left moves down, and the memory above goes back to
        the file system. That takes about as long as writing those entries again; others read and
        write meanwhile, and other threads run. Messages and entries of tables are neither evicted
        nor moved; most of them lie at the low end, but where caches filled it first, some don't.

        Raises NotEnoughMemory, with nothing changed, when they lie above the new ceiling, or when
        it is more than the file system or this process's address space can give;
        ConfigurationError for what is no size or less than 2M; LockTimeout when a stopped process
        keeps it from being finished, and NotEnoughMemory when the cache's index finds no room: then
        the ceiling is as before, but entries of caches may have been evicted.

        Who connects with a larger ``memory=`` later raises the ceiling again; who names none
        leaves it. Thread-safe and fork-safe. A process that is killed meanwhile leaves the old
        ceiling or the new one, and perhaps memory above it that isn't given back yet: nothing grows
        above the new one, and the next resize() does the rest.
        """
        bytes_now = self._core.resize(parse_size(memory))
        if self._url.options.memory is not None:  # or a pickled handle would undo it
            options = dataclasses.replace(self._url.options, memory=bytes_now)
            self._url = dataclasses.replace(self._url, options=options)
        return bytes_now

    def close(self) -> None:
        """End this handle, and the caches, queues and messages made from it.

        With the last open handle of the process, everything that the process holds in the store is
        given back: its reserved messages become ready again.
        """
        self._core.close()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write all queues and messages of a ``file://`` store into one file, as they are at one
        moment, while others go on; caches and tables aren't in it. The file appears when it is
        complete and on the disk. :func:`celeriac.restore` makes a store of it.

        Raises ConfigurationError when the file is there already, or the store is no ``file://``.
        """
        _check_backup(path)
        self._core.backup(os.fsencode(path))

    def destroy(self, force: bool = False) -> None:
        """Remove the store. Raises NotOwner while other processes use it, unless ``force``."""
        self._core.destroy(checks.yes_or_no(force, "force"))


def _check_backup(path: str | os.PathLike[str]) -> None:
    """Raises ConfigurationError for what can't be the name of a backup."""
    name = os.path.basename(os.fspath(path))
    if not name:
        raise ConfigurationError(f"{os.fspath(path)!r} is no name of a file for a backup")
    if name.startswith("journal."):
        raise ConfigurationError(f"{name!r} is a name of a store's own files: choose another")


def connect(url: str, **options: Any) -> Store:
    """Open a store, making it when it isn't there; the same URL in any process of the host is the
    same store.

    :param url: ``shm://NAME``, with options as query: ``shm://app?memory=512M``; or
        ``file:///DIRECTORY``, a store in a directory of its own on a disk of this host, which is
        made if its parent is there; its queues survive a crash of the host, its caches don't.
    :param memory: ceiling of the store; bytes, or ``512M``, ``2G``; default 256M. It starts small
        and grows. Of a store that is there it raises the ceiling, and never lowers it: that is
        Store.resize(). Without it the ceiling stays what it is.
    :param create: False raises StoreNotFound when there is no such store.
    :param mode: permissions of its files, 0600 (default) or 0660, the same in every URL of a
        user: the directory of his stores has it too. A store is its user's alone with either.
    :param durability: of the queues of ``file://``. ``process``: what was put survives the end of
        any process. ``everysec`` (default): and is on the disk within a second. ``always``: it is
        on the disk when the call returns.

    Raises ConfigurationError, StoreNotFound, VersionMismatch, StoreCorrupt, NotEnoughMemory.
    """
    return Store(parse_url(url, **options))


def restore(url: str, path: str | os.PathLike[str]) -> None:
    """Make a new ``file://`` store of what :meth:`Store.backup` wrote; the backup is checked first.

    Of the URL's options ``mode`` counts; the others are for :func:`connect`, which makes the arena.

    Raises ConfigurationError when the directory holds anything, StoreNotFound when there is no
    such file, and StoreCorrupt when it is no whole backup.
    """
    parsed = parse_url(url)
    if not parsed.is_file:
        raise ConfigurationError(f"{url!r} is no file:///DIRECTORY: only those have a backup")
    _core.restore_journal(parsed.name, os.fsencode(os.path.realpath(path)), parsed.options.mode)


def set_default(store: Store | None) -> None:
    """The store that functions use when none is named."""
    global _default
    if store is not None and not isinstance(store, Store):
        raise TypeError(f"store is a celeriac.Store or None, not {type(store).__name__}")
    _default = store


def get_default() -> Store:
    """The default store. Raises ConfigurationError when none was set."""
    if _default is None:
        raise ConfigurationError("no default store: call celeriac.set_default(store) first")
    return _default


@atexit.register
def _close_all() -> None:
    """A process that ends in good order gives back at once what it holds.

    Not while daemon threads run: they would meet closed handles on their last steps. Then the
    kernel tells the others, as after a kill.
    """
    if threading.active_count() > 1:
        return
    for store in list(_open):
        if not store.closed:
            store.close()
