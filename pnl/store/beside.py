"""What another process records, read while it grows and without a change to any byte of it."""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol, Self

from pydantic import SecretStr

from pnl.errors import StoreError, StoreNotReady
from pnl.records import Mark, Snapshot
from pnl.rows import to_snapshot
from pnl.schema import MIGRATIONS, SNAPSHOT_COLUMNS
from pnl.store.connection import Connection
from pnl.store.place import Kind, with_postgres
from pnl.store.tables import Recorded, load, read_marks

FILE = "pnl.db"
OTHER_FOLDER = "PNL_DATA_DIR to another folder"

NEWEST = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM pnl_snapshots ORDER BY timestamp DESC LIMIT 1"  # noqa: S608


def reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; on a disk that nobody can write, one that needs no lock either."""
    mode = "mode=ro" if os.access(path.parent, os.W_OK) else "immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, check_same_thread=False)


def known_version(path: Path) -> int:
    """The file's schema version, read without a change to any byte of it.

    Raises:
        StoreError: A newer version of this program wrote it.
    """
    with closing(reader(path)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of pnl (schema {version}, this one knows {len(MIGRATIONS)}); "
            "it was left untouched. Install that version, or set PNL_DATA_DIR to another folder"
        )
    return version


def kind_of(connection: Connection, where: str) -> Kind:
    """Whether real or simulated numbers are recorded.

    Raises:
        StoreNotReady: Neither: whoever makes the record is not that far.
    """
    row = connection.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()
    if row is None:
        raise StoreNotReady(f"{where} holds nothing yet")
    kind: Kind = row[0]
    return kind


def check_kind(connection: Connection, kind: Kind, where: str, instead: str) -> None:
    """Simulated and real numbers never share a data folder or a database.

    Raises:
        StoreNotReady: It holds nothing yet.
        StoreError: It holds the other kind; says what to set instead.
    """
    if (found := kind_of(connection, where)) != kind:
        raise StoreError(f"{where} holds {found} numbers, and the sources are {kind} now; set {instead}")


def read_newest(connection: Connection, sources: Iterable[str]) -> Snapshot | None:
    """The last snapshot, with what it says of these sources; None before the first."""
    row = connection.execute(NEWEST).fetchone()
    return None if row is None else to_snapshot(row, sources)


class Beside(Protocol):
    """The record that another process writes; `with`. It may be used in any one thread at a time.

    It is opened by the first question, and anew by the next one after it was lost. Every question raises `StoreError`
    when it cannot be read, or holds numbers of the other kind.
    """

    where: str
    """Where that is, behind the name of the other process."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...

    def has_grown(self) -> bool:
        """Whether anything was written since the last call, at the price of one page or row."""
        ...

    def recorded(self) -> Recorded:
        """All records, as of one instant."""
        ...

    def marks(self) -> tuple[Mark, ...]:
        """The last price of each market: that is no record, and none comes when it changes."""
        ...

    def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """The last snapshot, with what it says of these sources; None before the first."""
        ...

    def holder(self) -> str | None:
        """The process that records, None if there is none or it is not told."""
        ...


class FileBeside:
    """The record of a folder."""

    where = "on this machine, which holds the data folder"

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        self._seen = -1
        self._file = -1
        self._open: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def has_grown(self) -> bool:
        """See `Beside`."""
        with self._opened() as connection:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        is_new, self._seen = version != self._seen, version
        return is_new

    def recorded(self) -> Recorded:
        """See `Beside`."""
        with self._opened() as connection, connection:
            connection.execute("BEGIN")
            return load(connection)

    def marks(self) -> tuple[Mark, ...]:
        """See `Beside`."""
        with self._opened() as connection:
            return read_marks(connection)

    def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """See `Beside`."""
        with self._opened() as connection:
            return read_newest(connection, sources)

    def holder(self) -> str | None:
        """See `Beside`: a folder is asked by trying to hold it."""
        return None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._path.exists():
                raise StoreNotReady(f"{self._path} is not there yet")
            if self._open is None or self._path.stat().st_ino != self._file:
                self._close()  # a damaged file was set aside, another stands in its place
                self._open = self._checked()
            yield self._open
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error

    def _checked(self) -> sqlite3.Connection:
        if known_version(self._path) < len(MIGRATIONS):
            raise StoreNotReady(f"{self._path} is of an older version of pnl; start that process anew with this one")
        with ExitStack() as opened:
            self._file, self._seen = self._path.stat().st_ino, -1
            connection = opened.enter_context(closing(reader(self._path)))
            check_kind(connection, self._kind, str(self._path.parent), OTHER_FOLDER)
            opened.pop_all()
        return connection

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def beside_of(folder: Path, url: SecretStr | None, kind: Kind) -> Beside:
    """What another process records in a folder, or in the database at `url` where there is one."""
    if url is None:
        return FileBeside(folder / FILE, kind)
    with with_postgres():
        from pnl.store.database_beside import DatabaseBeside  # noqa: PLC0415 - a part that may be left out
    return DatabaseBeside(url, kind)


def read_beside(folder: Path, url: SecretStr | None, kind: Kind) -> Recorded:
    """What another process has recorded so far, see `beside_of`.

    Raises:
        StoreError: It cannot be read, or holds numbers of the other kind.
    """
    with beside_of(folder, url, kind) as beside:
        return beside.recorded()


def newest_beside(folder: Path, url: SecretStr | None, kind: Kind) -> Snapshot | None:
    """The last snapshot that another process has recorded, see `read_beside`; None before the first."""
    with beside_of(folder, url, kind) as beside:
        return beside.newest(())
