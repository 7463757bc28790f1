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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pnl.config import private_folder
from pnl.errors import Damaged, StoreError, StoreHeld, StoreReadOnly
from pnl.records import MONEY_FIELDS, Snapshot
from pnl.rows import to_snapshot
from pnl.schema import MIGRATIONS, seal
from pnl.store.beside import FILE, NEWEST, Kind, check_kind, known_version, reader
from pnl.store.damage import (
    Seal,
    check,
    examine,
    is_damage,
    is_quickly_examined,
    lost,
    salvage,
    set_aside,
    suspicion,
)
from pnl.store.retention import Archived, Month, drop_some, due, has_dropped_all, note_archived, oldest_raw
from pnl.store.tables import Change, Recorded, load, read_chain, write

LOCK_FILE = "pnl.lock"
SEAL_FILE = "pnl.seal"
MOST_WAITING = 10_000

type Waiting = tuple[Change, Future[None]]

log = logging.getLogger(__name__)


class Store:
    """The record of one data folder, open for writing by this process alone; `async with`.

    `on_commit` is told of each commit, by the writer's thread: how many seconds it took.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: Kind,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        commit_rows: int = 100,
        commit_ms: int = 100,
        on_commit: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._synchronous = synchronous
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._gathered: list[Waiting] = []
        self._stuck_since: float | None = None
        self._broken: set[str] = set()
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
    def waiting(self) -> int:
        """How many changes are not on disk yet."""
        return self._queue.qsize() + len(self._gathered)

    @property
    def stuck_s(self) -> float:
        """For how many seconds a commit has been under way, or failing; 0 while nothing waits for one."""
        since = self._stuck_since
        return 0.0 if since is None else time.perf_counter() - since

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

    async def due_months(self, now_ms: int, keep_days: int) -> list[Month]:
        """The months of snapshots that are to be archived, oldest first."""
        with_oldest = await asyncio.to_thread(self._look, oldest_raw)
        return list(due(with_oldest, now_ms, keep_days))

    async def retire(self, archived: Archived) -> None:
        """Take a month from its file from now on, and delete its rows, a few at a time.

        Raises:
            StoreError: The file does not hold what is recorded; nothing is deleted.
        """
        await asyncio.wrap_future(self.append(Change(upkeep=note_archived(archived))))
        await self.drop_archived()

    async def drop_archived(self) -> None:
        """Delete the rows that are in the archive, also those that an earlier process left."""
        while await asyncio.to_thread(self._look, has_dropped_all) is False:
            await asyncio.wrap_future(self.append(Change(upkeep=drop_some)))

    async def snapshots(self, *, column: str = "net_pnl", limit: int = 1000) -> list[tuple[int, int]]:
        """The last snapshots of one money column: (ms since the epoch, micro-dollars), oldest first."""
        if column not in MONEY_FIELDS:
            raise ValueError(f"{column!r} is no money column; there are {', '.join(MONEY_FIELDS)}")
        query = f"SELECT timestamp, {column}_micros FROM pnl_snapshots ORDER BY timestamp DESC LIMIT ?"  # noqa: S608
        return (await asyncio.to_thread(self._read, query, limit))[::-1]

    async def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """The last snapshot, with what it says of these sources; None before the first."""
        rows = await asyncio.to_thread(self._read, NEWEST)
        return to_snapshot(rows[0], sources) if rows else None

    def _read(self, query: str, *values: object) -> list[Any]:
        return self._look(lambda connection: connection.execute(query, values).fetchall())

    def _look[T](self, look: Callable[[sqlite3.Connection], T]) -> T:
        with closing(reader(self.path)) as connection:  # the writer's own library
            return look(connection)

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        with ExitStack() as opened:
            try:
                beside = opened.enter_context(Seal(self._folder / SEAL_FILE))
                connection, recorded = _open(self.path, self._kind, self._synchronous, beside)
            except StoreError as error:
                self._opened.set_exception(error)
                return
            except Exception as error:  # who waits for the store must hear of it, whatever it was
                log.exception("%s cannot be opened", self.path)
                self._opened.set_exception(_unusable(self.path, error))
                return
            opened.enter_context(closing(connection))
            self._opened.set_result(recorded)
            if not is_quickly_examined(self.path):
                opened.enter_context(self._examined_meanwhile())
            self._write_until_stopped(connection, beside)
            with suppress(sqlite3.Error):  # only upkeep: a full disk must not make closing fail
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")
                connection.execute("PRAGMA optimize")

    @contextmanager
    def _examined_meanwhile(self) -> Iterator[None]:
        """Have a large file read by another thread; what it finds is repaired at the next start."""
        with closing(reader(self.path)) as connection:
            examiner = threading.Thread(target=self._examine, args=(connection,), name="store-examiner", daemon=True)
            examiner.start()
            yield
            connection.interrupt()
            examiner.join()

    def _examine(self, connection: sqlite3.Connection) -> None:
        try:
            examine(connection)
        except (Damaged, sqlite3.DatabaseError) as error:
            if isinstance(error, Damaged) or is_damage(error):
                suspicion(self.path).touch(mode=0o600)
                log.error("%s is damaged (%s); the next start saves what can be saved", self.path, error)  # noqa: TRY400

    def _write_until_stopped(self, connection: sqlite3.Connection, beside: Seal) -> None:
        committed_at = -self._commit_s
        while self._gather(self._gathered, until=committed_at + self._commit_s):
            self._gathered = self._commit(connection, beside, self._gathered)
            committed_at = time.monotonic()
        self._gathered = self._commit(connection, beside, self._gathered)

    def _gather(self, waiting: list[Waiting], until: float) -> bool:
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

    def _commit(self, connection: sqlite3.Connection, beside: Seal, waiting: list[Waiting]) -> list[Waiting]:
        """Write what waits; returns what goes on waiting, for a disk with space or a lock that is let go."""
        try:
            self._write(connection, beside, waiting)
        except Exception as error:  # whatever it was, who waits must hear of it and the thread must live on
            if isinstance(error, sqlite3.OperationalError) or is_damage(error):
                self._tell(waiting, error, "what waits is kept and written later")
                return _at_most(waiting, MOST_WAITING)
            if len(waiting) > 1:  # one of them cannot be held; the others must not wait for it
                return [left for one in waiting for left in self._commit(connection, beside, [one])]
            log.exception("a change cannot be written")
            self._broken.update(change.origin for change, _ in waiting)
            self._tell(waiting, error, "it is left out, and its source read again from there at the next start")
        return []

    def _write(self, connection: sqlite3.Connection, beside: Seal, waiting: Sequence[Waiting]) -> None:
        began = time.perf_counter()
        self._stuck_since = self._stuck_since or began
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            chain = write(connection, [change for change, _ in waiting], broken=self._broken)
        beside.write(chain)
        self._stuck_since = None
        self._on_commit(time.perf_counter() - began)
        for _, done in waiting:
            if not done.done():
                done.set_result(None)

    def _tell(self, waiting: Sequence[Waiting], error: Exception, then: str) -> None:
        for _, done in waiting:
            if not done.done():
                done.set_exception(StoreError(f"{self.path} cannot be written: {error}; {then}"))


def _at_most(waiting: list[Waiting], most: int) -> list[Waiting]:
    """Let go of the oldest snapshots of a queue that grows too long, never of a record."""
    excess = len(waiting) - most
    if excess <= 0:
        return waiting
    log.error("the disk cannot be written for long: the oldest %s snapshots that wait are let go", excess)
    records = [(replace(change, snapshot=None), done) for change, done in waiting[:excess] if change.origin]
    return records + waiting[excess:]


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} cannot be opened: {error}; is its folder on a disk with space, and yours?")


def hold(path: Path) -> int:
    """Take the folder for this process; the file names who holds it, and a process that dies lets go.

    Raises:
        StoreHeld: Another process has it.
        StoreReadOnly: Nothing can be written there.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreReadOnly(
            f"the data folder {path.parent} cannot be written ({error.strerror}); make it writable, or set PNL_DATA_DIR"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 100).decode("ascii", "replace").strip() or "another process"
        os.close(lock)
        raise StoreHeld(
            f"the data folder {path.parent} is in use by {holder}; stop it, or set PNL_DATA_DIR to another folder",
            holder,
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()}".encode())
    return lock


def _open(path: Path, kind: Kind, synchronous: str, beside: Seal) -> tuple[sqlite3.Connection, Recorded]:
    """The writing connection, and what is recorded; a file that is broken is set aside, and saved what can be.

    Raises:
        StoreError: Whatever else is wrong with the file.
    """
    try:
        try:
            connection = _open_whole(path, kind, synchronous, beside.read())
        except Damaged as damage:
            connection = _rebuild(path, kind, synchronous, beside.read(), damage)
        beside.write(read_chain(connection))
        return connection, load(connection)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _open_whole(path: Path, kind: Kind, synchronous: str, sealed: tuple[int, int]) -> sqlite3.Connection:
    with ExitStack() as opened:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # before SQLite holds it: close() drops its locks
            version = known_version(path)
            if version == 0 and sealed[0]:
                raise Damaged("it is empty")
            connection = opened.enter_context(closing(connect(path, synchronous)))
            migrate(connection, path, version)
            _keep_apart(connection, path, kind)
            if is_quickly_examined(path) or suspicion(path).exists():
                examine(connection)
            check(connection)
            load(connection)
            suspicion(path).unlink(missing_ok=True)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise Damaged(str(error)) from error
            raise
        if what := lost(read_chain(connection), sealed):
            _note_damage(connection, f"{path.name}: {what}")
        opened.pop_all()
    return connection


def _rebuild(path: Path, kind: Kind, synchronous: str, sealed: tuple[int, int], damage: Damaged) -> sqlite3.Connection:
    """A new file with all that can be saved of a damaged one, which is kept."""
    aside = set_aside(path)
    suspicion(path).unlink(missing_ok=True)
    log.error("%s is damaged (%s) and kept as %s", path, damage, aside.name)
    connection = _open_whole(path, kind, synchronous, (0, 0))
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        saved = salvage(aside, connection, sealed)
    _note_damage(connection, f"{path.name} was damaged ({damage}) and is kept as {aside.name}; {saved}.")
    return connection


def _note_damage(connection: sqlite3.Connection, what: str) -> None:
    log.error("%s", what)
    connection.execute("INSERT OR REPLACE INTO damage VALUES (?, ?)", (time.time_ns() // 1_000_000, what))


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection that writes; there must be one of them only."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("seal", -1, seal, deterministic=True)
    _tune(connection, synchronous)
    return connection


def _tune(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -10000")
    connection.execute("PRAGMA mmap_size = 0")


def migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Bring the file to this version, each step whole or not at all; what it was before is kept beside it."""
    if 0 < version < len(MIGRATIONS):
        _back_up(connection, path.with_name(f"{path.stem}-v{version}{path.suffix}"))
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    """Copy the database through SQLite: a plain copy would miss its log, and drop its locks."""
    unfinished = copy.with_name(copy.name + ".part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(unfinished)) as target:
        connection.backup(target)
    unfinished.replace(copy)


def _keep_apart(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    """Simulated and real numbers never share a data folder; the first one decides which it holds."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (kind,))
    check_kind(connection, path, kind)
