"""The thread that owns the one writing connection, and the lock that keeps other processes from a second one.

What is appended waits in a queue; the first append after a pause is committed at once, later ones are gathered for
`commit_ms` or `commit_rows`. A future tells when a write is on disk.

`synchronous=FULL`: with NORMAL, 421 of 500 simulated power cuts lost acknowledged batches, with FULL none, for about a
millisecond per commit. No memory map: a file cut short under one ends the process. No index on `timestamp / 60000`: it
makes range queries up to a thousand times slower, and `pnl_1m` does its job.
"""

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pnl.config import private_folder
from pnl.errors import StoreError, StoreHeld
from pnl.records import MONEY_FIELDS
from pnl.store.schema import MIGRATIONS
from pnl.store.tables import Change, Recorded, load, write

FILE = "pnl.db"
LOCK_FILE = "pnl.lock"

log = logging.getLogger(__name__)


class Store:
    """The record of one data folder, open for writing by this process alone; `async with`."""

    def __init__(
        self,
        folder: Path,
        *,
        kind: Literal["real", "simulated"],
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        commit_rows: int = 100,
        commit_ms: int = 100,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._synchronous = synchronous
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000
        self._queue: queue.SimpleQueue[tuple[Change, Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._opened: Future[Recorded] = Future()

    @property
    def path(self) -> Path:
        """The database file."""
        return self._folder / FILE

    async def __aenter__(self) -> Self:
        private_folder(self._folder)
        self._lock = hold(self._folder / LOCK_FILE)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write what waits, close, and only then let another process in; blocks for it. Closing twice is fine."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def recorded(self) -> Recorded:
        """What the store held when it was opened."""
        return self._opened.result()

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done once it is on disk.

        Raises:
            StoreError: By the future: it could not be written. It stays queued, and is written with a later change.
        """
        done: Future[None] = Future()
        self._queue.put((change, done))
        return done

    async def snapshots(self, *, column: str = "net_pnl", limit: int = 1000) -> list[tuple[int, int]]:
        """The last snapshots of one money column: (ms since the epoch, micro-dollars), oldest first."""
        if column not in MONEY_FIELDS:
            raise ValueError(f"{column!r} is no money column; there are {', '.join(MONEY_FIELDS)}")
        query = f"SELECT timestamp, {column}_micros FROM pnl_snapshots ORDER BY timestamp DESC LIMIT ?"  # noqa: S608
        return (await asyncio.to_thread(self._read, query, limit))[::-1]

    def _read(self, query: str, *values: object) -> list[Any]:
        with closing(_reader(self.path)) as reader:  # the writer's own library
            return reader.execute(query, values).fetchall()

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        try:
            connection, recorded = _open(self.path, self._kind, self._synchronous)
        except StoreError as error:
            self._opened.set_exception(error)
            return
        with closing(connection):
            self._opened.set_result(recorded)
            self._write_until_stopped(connection)
            with suppress(sqlite3.Error):  # only upkeep: a full disk must not make closing fail
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")
                connection.execute("PRAGMA optimize")

    def _write_until_stopped(self, connection: sqlite3.Connection) -> None:
        waiting: list[tuple[Change, Future[None]]] = []
        committed_at = -self._commit_s
        while self._gather(waiting, until=committed_at + self._commit_s):
            if self._commit(connection, waiting):
                waiting = []
            committed_at = time.monotonic()
        self._commit(connection, waiting)

    def _gather(self, waiting: list[tuple[Change, Future[None]]], until: float) -> bool:
        """Wait for a change, then for more until the next commit is due; False once the store is closing."""
        timeout = None
        while len(waiting) < self._commit_rows or timeout is None:
            try:
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                return True
            if item is None:
                return False
            item[1].set_running_or_notify_cancel()  # from here on nobody can cancel it: it is written in any case
            waiting.append(item)
            timeout = max(0.0, until - time.monotonic())
        return True

    def _commit(self, connection: sqlite3.Connection, waiting: Sequence[tuple[Change, Future[None]]]) -> bool:
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                write(connection, [change for change, _ in waiting])
        except sqlite3.Error as error:
            self._refuse(waiting, error)
            return False
        except Exception as error:  # whatever it was, who waits must hear of it and the thread must live on
            log.exception("a change cannot be written")
            self._refuse(waiting, error)
            return False
        for _, done in waiting:
            if not done.done():
                done.set_result(None)
        return True

    def _refuse(self, waiting: Sequence[tuple[Change, Future[None]]], error: Exception) -> None:
        for _, done in waiting:
            if not done.done():
                done.set_exception(
                    StoreError(f"{self.path} cannot be written: {error}; what waits is kept and written later")
                )


def hold(path: Path) -> int:
    """Take the folder for this process; the file names who holds it, and a process that dies lets go.

    Raises:
        StoreHeld: Another process has it.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 100).decode("ascii", "replace").strip() or "another process"
        os.close(lock)
        raise StoreHeld(
            f"the data folder {path.parent} is in use by {holder}; stop it, or set PNL_DATA_DIR to another folder"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()}".encode())
    return lock


def _open(path: Path, kind: str, synchronous: str) -> tuple[sqlite3.Connection, Recorded]:
    """The writing connection, and what is recorded; a StoreError whatever is wrong with the file."""
    with ExitStack() as opened:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # before SQLite holds it: close() drops its locks
            version = _known_version(path)
            connection = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            _tune(connection, synchronous)
            _migrate(connection, version)
            _keep_apart(connection, path, kind)
            recorded = load(connection)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{path} cannot be opened: {error}; move it aside to start anew from the sources"
            ) from error
        opened.pop_all()
    return connection, recorded


def read_beside(folder: Path, kind: Literal["real", "simulated"]) -> Recorded:
    """What another process has recorded in a folder so far; changes nothing there.

    Raises:
        StoreError: It cannot be read, or holds numbers of the other kind.
    """
    path = folder / FILE
    try:
        _known_version(path)
        with closing(_reader(path)) as reader:
            reader.execute("BEGIN")  # one instant for all tables
            _check_kind(reader, path, kind)
            return load(reader)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _known_version(path: Path) -> int:
    """The file's schema version, read without a change to any byte of it."""
    with closing(_reader(path)) as reader:
        version: int = reader.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of pnl (schema {version}, this one knows {len(MIGRATIONS)}); "
            "it was left untouched. Install that version, or set PNL_DATA_DIR to another folder"
        )
    return version


def _tune(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -10000")
    connection.execute("PRAGMA mmap_size = 0")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _keep_apart(connection: sqlite3.Connection, path: Path, kind: str) -> None:
    """Simulated and real numbers never share a data folder; the first one decides which it holds."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (kind,))
    _check_kind(connection, path, kind)


def _check_kind(connection: sqlite3.Connection, path: Path, kind: str) -> None:
    found = connection.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()[0]
    if found != kind:
        raise StoreError(
            f"{path.parent} holds {found} numbers, and the sources are {kind} now; set PNL_DATA_DIR to another folder"
        )
