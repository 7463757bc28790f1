"""What another process records in a data folder, read while it grows and without a change to any byte of it."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal, Self

from pnl.errors import StoreError
from pnl.records import Snapshot
from pnl.rows import to_snapshot
from pnl.schema import MIGRATIONS, SNAPSHOT_COLUMNS
from pnl.store.tables import Recorded, load

FILE = "pnl.db"

type Kind = Literal["real", "simulated"]

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


def check_kind(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    """Simulated and real numbers never share a data folder.

    Raises:
        StoreError: It holds the other kind.
    """
    found = connection.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()[0]
    if found != kind:
        raise StoreError(
            f"{path.parent} holds {found} numbers, and the sources are {kind} now; set PNL_DATA_DIR to another folder"
        )


class Beside:
    """The record of a folder that another process writes; `with`. It may be used in any one thread at a time."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        self._seen = 0

    def __enter__(self) -> Self:
        if known_version(self._path) < len(MIGRATIONS):
            raise StoreError(f"{self._path} is of an older version of pnl; start that process anew with this one")
        self._connection = reader(self._path)
        self._file = self._path.stat().st_ino
        check_kind(self._connection, self._path, self._kind)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def has_grown(self) -> bool:
        """Whether anything was written since the last call, at the price of one page."""
        if self._path.stat().st_ino != self._file:  # a damaged file was set aside, and another stands in its place
            self._connection.close()
            self.__enter__()
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        is_new, self._seen = version != self._seen, version
        return is_new

    def recorded(self) -> Recorded:
        """All records, as of one instant."""
        with self._connection:
            self._connection.execute("BEGIN")
            return load(self._connection)

    def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """The last snapshot, with what it says of these sources; None before the first."""
        row = self._connection.execute(NEWEST).fetchone()
        return None if row is None else to_snapshot(row, sources)


def read_beside(folder: Path, kind: Kind) -> Recorded:
    """What another process has recorded in a folder so far.

    Raises:
        StoreError: It cannot be read, or holds numbers of the other kind.
    """
    path = folder / FILE
    try:
        with Beside(path, kind) as beside:
            return beside.recorded()
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
