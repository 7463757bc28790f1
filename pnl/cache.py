"""Answers kept in memory, over disk, over whoever is asked: TTL, LRU, single-flight, stale-if-error, invalidation.

It saves or costs time and never changes an answer: whatever goes wrong with the disk is a miss, and rows that may have
missed a drop are thrown away. `Disk` is diskcache without its ways of running code from the folder, and without memory
that is mapped from files: one that is cut short ends the process (SIGBUS).
"""

import asyncio
import fcntl
import logging
import math
import os
import sqlite3
import stat
import struct
import threading
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import diskcache
from diskcache.core import DBNAME, MODE_RAW, UNKNOWN

from pnl.errors import PnlError

CURRENT = "pnl:current"
"""The key of the snapshot that is shown now."""

KEPT_S: Mapping[str, int] = {
    CURRENT: 5 * 60,
    "pnl:1m:": 30 * 60,  # one minute's bar, by its start in ms since the epoch
    "history:": 15 * 60,  # bars over a range
    "kalshi:": 5 * 60,
    "john:": 15 * 60,
    "anthropic:": 30 * 60,  # costs change by the day
}
"""How long a value is kept, fresh or stale, by how its key begins; in seconds."""

KEPT_OTHERWISE_S = 5 * 60
MINUTES_OF_A_FILL = 10
WARM_S = 30

LARGEST_BYTES = 256 * 1024
MOST_QUEUED = 1000
READ_WAITS_S, WRITE_WAITS_S = 0.003, 1.0
READS_REST_S = 1.0
RETRY_S = 60.0
LOCK_FILE, CLOSED_WELL = "cache.lock", b"closed well"

type Fetch = Callable[[], Awaitable[bytes | None]]

log = logging.getLogger(__name__)

# Goes on while the machine sleeps, where the system has such a clock: what is old after a night must not look new.
_awake_and_asleep = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Cached(NamedTuple):  # made for every hit: a frozen dataclass would take longer than all the rest of it
    """An answer, how old it is, and what went wrong when a newer one was asked for."""

    value: bytes | None
    state: Literal["fresh", "stale", "missing"]
    level: Literal["memory", "disk", "store"]
    age_s: float
    error: PnlError | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """Told to subscribers: a fill became known at `at`, and these keys were dropped for it."""

    at: datetime
    keys: tuple[str, ...]


@dataclass(slots=True)
class Level:
    """What one level did so far; for the store a hit is a fetch that brought a value."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    evictions: int = 0

    @property
    def hit_ratio(self) -> float | None:
        """Hits per question, 0–1; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


@dataclass(frozen=True, slots=True)
class Stats:
    """All three levels at one instant."""

    memory: Level
    disk: Level
    store: Level


class Entry(NamedTuple):
    """A value as the levels keep it; `stored_at` is in seconds of the cache's clock."""

    value: bytes
    stored_at: float
    ttl_s: float

    def is_fresh(self, now: float) -> bool:
        """Whether it is inside its TTL; a value from the future, left by another clock, is not."""
        return 0 <= now - self.stored_at < self.ttl_s


def kept_s(key: str) -> int:
    """How long a value of this key is kept, in seconds."""
    return next((kept for start, kept in KEPT_S.items() if key.startswith(start)), KEPT_OTHERWISE_S)


def minute_key(minute_ms: int) -> str:
    """The key of the minute that starts at `minute_ms` since the epoch."""
    return f"pnl:1m:{minute_ms}"


class Cache:
    """Answers by key: from memory, from disk, or fetched once however many ask; `async with`, on one event loop.

    Args:
        folder: Where the disk level lives; made private, deletable at any time, used by one process at a time (a second
            one goes without). None: memory only.
        entries: The most that memory holds.
        ttl_s: How long memory answers without a look at the disk.
        disk_entries: The most that the disk holds.
        clock: Seconds that only grow.
        wall: Seconds since the epoch; read once, to tell the age of what an earlier process left.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        entries: int = 500,
        ttl_s: float = 0.3,
        disk_entries: int = 10_000,
        clock: Callable[[], float] = _awake_and_asleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if min(entries, disk_entries) < 1 or not ttl_s > 0:
            raise ValueError("a cache needs room for at least one entry, and a ttl_s above 0")
        self._clock = clock
        self._memory = Memory(entries, ttl_s)
        self._disk = Disk(folder, entries=disk_entries, clock=clock, epoch_s=wall() - clock())
        self._store = Level()
        self._flights: dict[str, asyncio.Task[Cached]] = {}  # whose answers will be kept
        self._running: set[asyncio.Task[Cached]] = set()
        self._subscribers: dict[object, Callable[[Filled], None]] = {}

    async def __aenter__(self) -> Self:
        await self._disk.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            await self._disk.aclose()

    @property
    def stats(self) -> Stats:
        """What each level did since the cache was made."""
        return Stats(replace(self._memory.counts), replace(self._disk.counts), replace(self._store))

    async def get(self, key: str, fetch: Fetch, *, ttl_s: float, stale_s: float = math.inf) -> Cached:
        """The value of a key, fetched when no level has a fresh one.

        Those who ask while a fetch is under way share it; it goes on when they are cancelled.

        Args:
            key: Its beginning decides how long the value is kept (`KEPT_S`).
            fetch: Asks the source or the store; None is its way to say that there is no such value.
            ttl_s: How long a fetched value is fresh; no longer than it is kept.
            stale_s: For how long after that it may stand in for a fetch that failed, as long as it is kept.

        Returns:
            `fresh`, just fetched or inside its TTL; `stale`, the last value, as the fetch failed; or `missing`, with
            None. `error` holds the fetch's failure, which is not raised.

        Raises:
            Exception: Whatever `fetch` raises that is no `PnlError`.
        """
        found = self.peek(key)
        if found is not None:
            return found
        flight = self._flights.get(key) or self._take_off(key, self._fetch(key, fetch, ttl_s, stale_s))
        return await asyncio.shield(flight)

    def peek(self, key: str) -> Cached | None:
        """The fresh value that memory or disk has, at once; None: it must be fetched."""
        now = self._clock()
        entry = self._memory.get(key, now)
        if entry is not None:
            return Cached(entry.value, "fresh", "memory", now - entry.stored_at)
        if key in self._flights:  # the disk was asked before that
            return None
        entry = self._disk.get(key, now)
        if entry is None:
            return None
        self._memory.put(key, entry, now)
        return Cached(entry.value, "fresh", "disk", now - entry.stored_at)

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, fresh for `ttl_s`; it overrules a fetch that is under way.

        Raises:
            TypeError: The value is not bytes.
            ValueError: `ttl_s` is below 0 or no number.
        """
        self._flights.pop(key, None)
        self._keep(key, value, ttl_s)

    def drop(self, *keys: str) -> None:
        """Forget keys on every level; what is being fetched for them now will not be kept."""
        for key in keys:
            self._flights.pop(key, None)
            self._memory.drop(key)
        self._disk.drop(keys)

    async def flush(self) -> None:
        """Wait until the disk has, or has failed at, what was put and dropped so far."""
        await self._disk.flush()

    def warm(self, snapshot: bytes) -> None:
        """Keep the snapshot that was just recorded."""
        self.put(CURRENT, snapshot, WARM_S)

    def on_fill(self, at: datetime) -> None:
        """Drop what a fill changes: the current snapshot and the ten minutes up to `at`; then tell the subscribers.

        Args:
            at: When the fill became known, UTC-aware; that it was made some minutes before is allowed for.
        """
        if at.tzinfo is None:
            raise ValueError("the time of a fill needs a time zone")
        minute = int(at.timestamp()) // 60
        minutes = (minute_key((minute - back) * 60_000) for back in range(MINUTES_OF_A_FILL))
        event = Filled(at, (CURRENT, *minutes))
        self.drop(*event.keys)
        for tell in tuple(self._subscribers.values()):
            try:
                tell(event)
            except Exception:
                log.exception("a subscriber failed at %s", event)

    def on_cost(self) -> None:
        """Drop what a cost changes: the current snapshot."""
        self.drop(CURRENT)

    def subscribe(self, tell: Callable[[Filled], None]) -> Callable[[], object]:
        """Have `tell` called after each fill; calling what is returned ends that."""
        ticket = object()
        self._subscribers[ticket] = tell
        return partial(self._subscribers.pop, ticket, None)

    def _take_off(self, key: str, fetching: Coroutine[Any, Any, Cached]) -> asyncio.Task[Cached]:
        flight = asyncio.create_task(fetching, name=f"cache-fetch {key}")
        self._flights[key] = flight
        self._running.add(flight)
        flight.add_done_callback(partial(self._landed, key))
        return flight

    def _landed(self, key: str, flight: asyncio.Task[Cached]) -> None:
        self._running.discard(flight)
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _fetch(self, key: str, fetch: Fetch, ttl_s: float, stale_s: float) -> Cached:
        try:
            value = await fetch()
        except Exception as error:
            self._store.errors += 1
            if isinstance(error, PnlError):
                return self._last_good(key, stale_s, error)
            raise
        was_overruled = self._flights.get(key) is not asyncio.current_task()  # by a drop or a put in the meantime
        if value is None:
            self._store.misses += 1
            if not was_overruled:
                self.drop(key)
            return Cached(None, "missing", "store", 0.0)
        self._store.hits += 1
        if not was_overruled:
            self._keep(key, value, ttl_s)
        return Cached(value, "fresh", "store", 0.0)

    def _last_good(self, key: str, stale_s: float, error: PnlError) -> Cached:
        now = self._clock()
        levels: tuple[Memory | Disk, ...] = (self._memory, self._disk)
        for level in levels:
            entry = level.last(key)
            if entry is None or not 0 <= now - entry.stored_at < min(kept_s(key), entry.ttl_s + stale_s):
                continue
            if entry.is_fresh(now):
                return Cached(entry.value, "fresh", level.name, now - entry.stored_at, error)
            level.counts.stale += 1
            return Cached(entry.value, "stale", level.name, now - entry.stored_at, error)
        return Cached(None, "missing", "store", 0.0, error)

    def _keep(self, key: str, value: bytes, ttl_s: float) -> None:
        if type(value) is not bytes:
            raise TypeError(f"the cache keeps bytes, and {key} got {type(value).__name__}")
        if not ttl_s >= 0:
            raise ValueError(f"ttl_s of {key} is {ttl_s}; it is a number of seconds from 0 on")
        now = self._clock()
        entry = Entry(value, now, min(ttl_s, kept_s(key)))
        self._memory.put(key, entry, now)
        self._disk.put(key, entry)


class Memory:
    """The last values, at most `entries` of them, each for `ttl_s`; the least recently used makes room.

    A value past its time stays where it is, for a fetch that fails, until its room is needed.
    """

    name: Literal["memory"] = "memory"

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._held: OrderedDict[str, tuple[float, Entry]] = OrderedDict()  # until when, and what
        self.counts = Level()

    def get(self, key: str, now: float) -> Entry | None:
        """The value that is still fresh."""
        held = self._held.get(key)
        if held is None or now >= held[0]:
            self.counts.misses += 1
            return None
        self._held.move_to_end(key)
        self.counts.hits += 1
        return held[1]

    def last(self, key: str) -> Entry | None:
        """The last value, however old."""
        held = self._held.get(key)
        return None if held is None else held[1]

    def put(self, key: str, entry: Entry, now: float) -> None:
        """Keep a value until its TTL or this level's ends, whichever is first."""
        self._held[key] = min(now + self._ttl_s, entry.stored_at + entry.ttl_s), entry
        self._held.move_to_end(key)
        if len(self._held) > self._entries:
            self._held.popitem(last=False)
            self.counts.evictions += 1

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._held.pop(key, None)


class Disk:
    """Rows in a private folder: read at once on the event loop, written behind it by a thread of their own.

    A read sees what is queued before what is written, so a drop counts from the moment it is asked for. Trouble with
    the files is counted, said once, and answered by beginning anew, if need be every minute; until then all is a miss.
    """

    name: Literal["disk"] = "disk"

    def __init__(self, folder: Path | None, *, entries: int, clock: Callable[[], float], epoch_s: float) -> None:
        self._folder = folder
        self._entries = entries
        self._clock = clock
        self._epoch_s = epoch_s  # of the clock's zero: the wall clock is asked once, so that its jumps change no age
        self._rests_until: float | None = None
        self._reader: Rows | None = None  # None: there is no disk now
        self._read: deque[str] = deque(maxlen=entries)  # since rows were last evicted
        self._queued: dict[str, bytes | None] = {}  # None: to be dropped
        self._writing: dict[str, bytes | None] = {}
        self._changed = threading.Condition()
        self._spoilt: sqlite3.Error | None = None  # what a read has found out about the files
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._was_opened = threading.Event()
        self._said: set[str] = set()
        self.counts = Level()

    async def open(self) -> None:
        """Start the thread, and wait until it has the files or does without."""
        if self._folder is None:
            return
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=[self._folder], name="cache-writer", daemon=True)
        self._thread.start()
        try:
            await asyncio.to_thread(self._was_opened.wait)
        except BaseException:
            self._stop()
            raise

    async def aclose(self) -> None:
        """Write what is queued and close; twice is fine."""
        self._stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    async def flush(self) -> None:
        """Wait until nothing is queued."""
        await asyncio.to_thread(self._wait_until_written)

    def get(self, key: str, now: float) -> Entry | None:
        """The value that is still fresh."""
        if self._reader is None:
            return None
        entry = self.last(key)
        if entry is None or not entry.is_fresh(now):
            self.counts.misses += 1
            return None
        self.counts.hits += 1
        return entry

    def last(self, key: str) -> Entry | None:
        """The last value, however old."""
        reader = self._reader
        if reader is None:
            return None
        try:
            if key in (queued := self._queued) or key in (queued := self._writing):
                row = queued[key]
            else:
                row = self._read_row(reader, key)
            return None if row is None else _unpack(key, row, self._epoch_s)
        except ValueError as error:  # one row that nobody here has written
            self._count_error()
            self._say("refused", "has a row that it will not read", error)
            self.drop([key])
        except sqlite3.Error as error:
            self._reading_failed(reader, error)
        return None

    def put(self, key: str, entry: Entry) -> None:
        """Queue a value."""
        self._queue({key: _pack(key, entry, self._epoch_s) if len(entry.value) <= LARGEST_BYTES else None})

    def drop(self, keys: Iterable[str]) -> None:
        """Forget keys at once, and queue that they are deleted."""
        self._queue(dict.fromkeys(keys))

    def _queue(self, rows: Mapping[str, bytes | None]) -> None:
        if self._reader is None:
            return
        with self._changed:
            is_full = len(self._queued) >= MOST_QUEUED
            for key, row in rows.items():
                self._queued[key] = None if is_full else row  # the row before it is wrong in any case
            self._changed.notify_all()

    def _read_row(self, reader: "Rows", key: str) -> bytes | None:
        if self._rests_until is not None and self._clock() < self._rests_until:
            return None
        row: bytes | None = reader.get(key)
        if row is None or self._reader is not reader:  # what the writer has just given up may have missed a drop
            return None
        self._read.append(key)
        return row

    def _reading_failed(self, reader: "Rows", error: sqlite3.Error) -> None:
        self._count_error()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            self._rests_until = self._clock() + READS_REST_S  # each try would hold up the loop
            self._say("busy", "is locked by another process", error)
            return
        reader.close()
        with self._changed:
            if self._reader is reader:
                self._reader, self._spoilt = None, error
                self._changed.notify_all()

    def _wait_until_written(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._reader is None or not (self._queued or self._writing))

    def _count_error(self) -> None:
        with self._changed:  # both threads count
            self.counts.errors += 1

    def _say(self, kind: str, text: str, error: Exception) -> None:
        level = logging.DEBUG if kind in self._said else logging.WARNING
        self._said.add(kind)
        log.log(level, "the disk cache in %s %s: %r", self._folder, text, error)

    # What follows runs in the writer's thread.

    def _run(self, folder: Path) -> None:
        trouble: Exception | None = None
        pause_s = 0.0
        while not self._stops_within(pause_s):
            try:
                with _opened(folder, self._entries, afresh=trouble is not None) as (reader, writer):
                    self._begin(reader, trouble)
                    trouble = None
                    self._write_until_stopped(writer)
                    return
            except Exception as error:  # noqa: BLE001 - whatever it was, the program goes on without this level
                self._lose(error)
                pause_s = 0.0 if trouble is None else RETRY_S
                if trouble is not None:
                    self._say("off", "is off, and is tried again every minute", error)
                    self._was_opened.set()
                trouble = error
        self._was_opened.set()

    def _stops_within(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopping, timeout_s)

    def _begin(self, reader: "Rows", trouble: Exception | None) -> None:
        if trouble is not None:
            self._say("anew", "begins anew", trouble)
        with self._changed:
            self._reader, self._spoilt = reader, None
        self._was_opened.set()

    def _lose(self, error: Exception) -> None:
        if error is not self._spoilt:
            self._count_error()
        with self._changed:
            lost, self._reader = self._reader, None  # first of all: a read looks at it last
            self._queued, self._writing = {}, {}
            self._changed.notify_all()
        if lost is not None:
            with suppress(RuntimeError):  # the loop is gone, and what it had open with it
                self._loop.call_soon_threadsafe(lost.close)

    def _write_until_stopped(self, rows: "Rows") -> None:
        file = Path(rows.directory, DBNAME)
        number = file.stat().st_ino
        while self._take_queued():
            if file.stat().st_ino != number:
                raise FileNotFoundError(f"{file} was replaced")
            self._write(rows)
            with self._changed:
                self._writing = {}
                self._changed.notify_all()

    def _take_queued(self) -> bool:
        """Wait for something to write; False: there will be nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued or self._spoilt or self._is_stopping)
            if self._spoilt is not None:
                raise self._spoilt
            self._writing, self._queued = self._queued, {}
            return bool(self._writing)

    def _write(self, rows: "Rows") -> None:
        with rows.transact():
            for key, row in self._writing.items():
                if row is None:
                    rows.delete(key)
                else:
                    rows.set(key, row)  # without diskcache's expiry: it goes by the wall clock, which jumps
            if len(rows) > self._entries:
                self._evict(rows)

    def _evict(self, rows: "Rows") -> None:
        read = [self._read.popleft() for _ in range(len(self._read))]
        for key in reversed(dict.fromkeys(reversed(read))):  # each at its last time
            rows.get(key)  # notes that it was used, for which the event loop did not wait
        evicted = rows.cull()
        with self._changed:
            self.counts.evictions += evicted


class BytesOnly(diskcache.Disk):  # type: ignore[misc]  # diskcache has no annotations
    """How diskcache keeps a row, without its ways out of the row: no pickle is loaded, and no file name followed.

    There is no fixed release for CVE-2025-69872: as it comes, whoever can write to the folder runs code in the reader.
    """

    def put(self, key: object) -> tuple[str, bool]:
        """Keys are text."""
        if type(key) is not str:
            raise Refused(f"a key is text, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Only a key that was put as text."""
        if not raw or type(key) is not str:
            raise Refused("a key that is no text")
        return key

    def store(self, value: object, read: object, key: object = UNKNOWN) -> tuple[int, int, None, bytes]:
        """Values are bytes, and lie in the row whatever their size."""
        del key
        if type(value) is not bytes or read:
            raise Refused(f"a value is bytes, not {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        """Only bytes that lie in the row."""
        if mode != MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise Refused("a row that is not plain bytes")
        return value

    def filename(self, key: object = UNKNOWN, value: object = UNKNOWN) -> tuple[str, str]:
        """No row has a file."""
        del key, value
        raise Refused("a file for a value")

    def remove(self, file_path: object) -> None:
        """Leave alone what a row names: it is no file of this cache."""


class Refused(ValueError):
    """A row or a value that this cache does not write and will not read."""


class Rows(diskcache.Cache):  # type: ignore[misc]  # diskcache has no annotations
    """A diskcache whose size is counted in entries."""

    def volume(self) -> int:
        """What `size_limit` limits."""
        return len(self)


@contextmanager
def _opened(folder: Path, entries: int, *, afresh: bool) -> Iterator[tuple[Rows, Rows]]:
    """A handle to read and one to write; the rows that were there only if none of them can be wrong."""
    if os.path.expandvars(folder) != str(folder):
        raise OSError("a $ in its name would lead diskcache to another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    were_private = [_make_private(path) for path in (folder, *folder.glob("cache.*"))]
    with _claimed(folder / LOCK_FILE) as was_closed_well:
        if afresh or not was_closed_well or not all(were_private):  # a drop may be lost, or a row planted
            for path in folder.glob(f"{DBNAME}*"):
                path.unlink()
        _prepare(folder / DBNAME)
        reader, writer = _handle(folder, entries, READ_WAITS_S), _handle(folder, entries, WRITE_WAITS_S)
        reader.eviction_policy = "none"  # else every read would write
        reader.close()  # in this thread
        with closing(writer):
            yield reader, writer


def _make_private(path: Path) -> bool:
    """Close a path to everybody else; True when nobody else could write to it before."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is a link, or belongs to someone else")
    path.chmod(0o700 if stat.S_ISDIR(found.st_mode) else 0o600)
    return not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Hold a folder's lock; True when who held it last came to its end, which is written only if this one does too."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError("another process uses it") from None
        was_closed_well = os.read(lock, 100) == CLOSED_WELL
        os.ftruncate(lock, 0)
        yield was_closed_well
        os.pwrite(lock, CLOSED_WELL, 0)
    finally:
        os.close(lock)


def _prepare(file: Path) -> None:
    """Make the file, closed to others, or fail if it is locked; the settings in it are not believed."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(file, timeout=WRITE_WAITS_S, isolation_level=None)) as rows:
        if rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone():
            rows.execute("DELETE FROM Settings WHERE key NOT IN ('count', 'size')")  # they would run as pragmas


def _handle(folder: Path, entries: int, timeout_s: float) -> Rows:
    return Rows(
        str(folder.absolute()),  # or a ~ at the start would be replaced
        timeout=timeout_s,
        disk=BytesOnly,
        eviction_policy="least-recently-used",
        size_limit=entries,
        cull_limit=0,  # rows are evicted after a batch, where they are counted
        sqlite_journal_mode="memory",  # no WAL: its index is a mapped file; what a crash leaves is discarded anyway
        sqlite_mmap_size=0,
        sqlite_synchronous=0,
    )


_CHECK = struct.Struct(">I")  # CRC-32 of the key and of all that follows, as SQLite does not notice a flipped bit
_STAMP = struct.Struct(">QI")  # ms since the epoch when it was stored, ms that it is fresh
_START = _CHECK.size + _STAMP.size
_A_HAIR_S = 1e-6  # the last digit of a float must not make a value younger than it is


def _pack(key: str, entry: Entry, epoch_s: float) -> bytes:
    stored_ms = math.floor((epoch_s + entry.stored_at - _A_HAIR_S) * 1000)
    stamp = _STAMP.pack(stored_ms, round(entry.ttl_s * 1000))
    return _CHECK.pack(_checksum(key, stamp, entry.value)) + stamp + entry.value


def _unpack(key: str, row: bytes, epoch_s: float) -> Entry:
    check, stamp, value = row[: _CHECK.size], row[_CHECK.size : _START], row[_START:]
    if len(row) < _START or check != _CHECK.pack(_checksum(key, stamp, value)):
        raise Refused("a row that is damaged, or stored for another key")
    stored_ms, ttl_ms = _STAMP.unpack(stamp)
    return Entry(value, stored_ms / 1000 - epoch_s, ttl_ms / 1000)


def _checksum(key: str, stamp: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(stamp + key.encode()))
