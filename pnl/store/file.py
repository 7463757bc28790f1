"""A record in a file of SQLite: the one writing connection, and the lock that keeps other processes from a second one.

`synchronous=FULL`: with NORMAL, 421 of 500 simulated power cuts lost acknowledged batches, with FULL none, for about a
millisecond per commit. No memory map: a file cut short under one ends the process. No index on `timestamp / 60000`: it
makes range queries up to a thousand times slower, and `pnl_1m` does its job.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from pnl.errors import Damaged, StoreError, StoreHeld, StoreReadOnly
from pnl.schema import MIGRATIONS, seal
from pnl.store.beside import FILE, OTHER_FOLDER, check_kind, known_version, reader
from pnl.store.connection import Connection
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
from pnl.store.place import Kind
from pnl.store.tables import Change, Recorded, load, read_chain, write

LOCK_FILE = "pnl.lock"
SEAL_FILE = "pnl.seal"

log = logging.getLogger(__name__)


class FilePlace:
    """A file in a data folder."""

    def __init__(self, folder: Path, kind: Kind, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.path = folder / FILE
        self._kind = kind
        self._synchronous = synchronous
        self._lock: int | None = None

    def __str__(self) -> str:
        return str(self.path)

    def hold(self) -> None:
        """See `Place`."""
        self._lock = hold(self.path.with_name(LOCK_FILE))

    def release(self) -> None:
        """See `Place`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def open_to_write(self) -> Iterator[Recorded]:
        """See `Place`; a file that is broken is set aside, and saved what can be."""
        with ExitStack() as opened:
            try:
                self._seal = opened.enter_context(Seal(self.path.with_name(SEAL_FILE)))
                self._connection, recorded = _open(self.path, self._kind, self._synchronous, self._seal)
            except StoreError:
                raise
            except Exception as error:  # who waits for the store must hear of it, whatever it was
                log.exception("%s cannot be opened", self.path)
                raise _unusable(self.path, error) from error
            opened.enter_context(closing(self._connection))
            if not is_quickly_examined(self.path):
                opened.enter_context(self._examined_meanwhile())
            yield recorded
            with suppress(sqlite3.Error):  # only upkeep: a full disk must not make closing fail
                self._connection.execute("PRAGMA analysis_limit = 1000")
                self._connection.execute("ANALYZE")
                self._connection.execute("PRAGMA optimize")

    def write(self, changes: Sequence[Change], *, broken: Container[str]) -> None:
        """See `Place`."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            chain = write(self._connection, changes, broken=broken)
        self._seal.write(chain)

    def is_passing(self, error: Exception) -> bool:
        """See `Place`: a full disk, a lock, and damage, which the next start repairs."""
        return isinstance(error, sqlite3.OperationalError) or is_damage(error)

    def look[T](self, look: Callable[[Connection], T]) -> T:
        """See `Place`."""
        with closing(reader(self.path)) as connection:  # the writer's own library
            return look(connection)

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
    both = "('kind', ?), ('identity', lower(hex(randomblob(8))))"  # who sees one of them relies on the other
    connection.execute(f"INSERT OR IGNORE INTO meta VALUES {both}", (kind,))  # noqa: S608 - no value is in it
    check_kind(connection, kind, str(path.parent), OTHER_FOLDER)
