"""The level of the cache on disk: diskcache without its ways of running code from the folder.

It maps no file into memory: one that is cut short under a mapping ends the process (SIGBUS).
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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

import diskcache
from diskcache.core import DBNAME, MODE_RAW, UNKNOWN

from pnl.cache.memory import Entry, Level
from pnl.cache.row import LARGEST_BYTES, Refused, pack, unpack

MOST_QUEUED = 1000
READ_WAITS_S, WRITE_WAITS_S = 0.003, 1.0
READS_REST_S = 1.0
RETRY_S = 60.0
LOCK_FILE, CLOSED_WELL = "cache.lock", b"closed well"

log = logging.getLogger("pnl.cache")


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

    @property
    def waiting(self) -> int:
        """How many keys are not written yet."""
        return len(self._queued) + len(self._writing)

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


_STAMP = struct.Struct(">QI")  # ms since the epoch when it was stored, ms that it is fresh
_A_HAIR_S = 1e-6  # the last digit of a float must not make a value younger than it is


def _pack(key: str, entry: Entry, epoch_s: float) -> bytes:
    stored_ms = math.floor((epoch_s + entry.stored_at - _A_HAIR_S) * 1000)
    return pack(key, _STAMP.pack(stored_ms, round(entry.ttl_s * 1000)), entry.value)


def _unpack(key: str, row: bytes, epoch_s: float) -> Entry:
    stamp, value = unpack(key, row, _STAMP.size)
    stored_ms, ttl_ms = _STAMP.unpack(stamp)
    return Entry(value, stored_ms / 1000 - epoch_s, ttl_ms / 1000)
