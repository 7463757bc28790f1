"""Noticing that a file does not hold what was written to it, and saving from it what can be saved.

`quick_check` says ok of a file whose log was overwritten, while the commits in that log are gone. So each commit adds
to a chain of counts and sums in the file, and leaves its number in a seal beside it. The seal is written behind the
commit and never forced to disk: it can lag behind the file, and is ahead of it only when commits are gone.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pnl.errors import Damaged
from pnl.records import MONEY_FIELDS
from pnl.schema import RECORD_TABLES, SNAPSHOT_COLUMNS, seal
from pnl.store.connection import Connection
from pnl.store.minutes import MINUTE_MS, archived_until, write_snapshots
from pnl.store.tables import Chain, insert_of, read_chain, write_chain

RECENT_MINUTES = 2 * 24 * 60
LARGEST_EXAMINED_BYTES = 32 * 1024 * 1024
BESIDE_RECORDS = {"source_state": 3, "kalshi_marks": 6, "superseded": 3, "quarantine": 6}  # and how many columns
NOT_WHOLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

DIFFERING_MINUTE = """
    SELECT minute FROM (
        SELECT minute, snapshots, net_pnl_sum FROM pnl_1m WHERE minute >= ?
        EXCEPT
        SELECT timestamp / 60000, count(*), sum(net_pnl_micros) FROM pnl_snapshots
        WHERE timestamp >= ? * 60000 GROUP BY 1
    ) AS differing LIMIT 1
"""


type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """What the records of a file come to: their check sum, and the statements that write them again."""

    sealed: int
    rows: list[tuple[str, list[Row]]]


@dataclass(frozen=True, slots=True)
class Old:
    """What a file says of its archive: the months, their minutes' bars, and what those come to."""

    months: Sequence[Row] = ()
    bars: Sequence[Row] = ()
    snapshots: int = 0
    net_micros: int = 0


class Seal:
    """The number of the last commit, and the newest snapshot in it, in a file of their own."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def read(self) -> tuple[int, int]:
        """Commits, and the newest snapshot's instant in ms; zeros of a seal that is new or cannot be read."""
        with suppress(ValueError):
            commits, newest = os.pread(self._file, 42, 0).split()
            return int(commits), int(newest)
        return 0, 0

    def write(self, chain: Chain) -> None:
        """Note a commit that is on disk."""
        os.pwrite(self._file, f"{chain.commits:20} {chain.newest:20}\n".encode("ascii"), 0)


def is_damage(error: Exception) -> bool:
    """Whether an error of SQLite says that the file itself is broken, and not the disk under it or a lock."""
    return isinstance(error, sqlite3.DatabaseError) and (getattr(error, "sqlite_errorcode", 0) & 0xFF) in NOT_WHOLE


def suspicion(path: Path) -> Path:
    """The file that marks a database in which damage was found while it was in use."""
    return path.with_suffix(".suspect")


def is_quickly_examined(path: Path) -> bool:
    """Whether all of a database is read within half a second or so."""
    return path.stat().st_size <= LARGEST_EXAMINED_BYTES


def examine(connection: sqlite3.Connection) -> None:
    """Have SQLite read all of the file; a millisecond or more for each 100 kB.

    Raises:
        Damaged: It is not whole; says where.
        sqlite3.DatabaseError: The same, so bad that SQLite stopped.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(" ".join(found.split()))


def check(connection: Connection) -> None:
    """Hold the file against its own chain: all minutes, and the snapshots of the last days.

    Raises:
        Damaged: It is not what was written; says where.
        sqlite3.DatabaseError: The same, found by SQLite.
    """
    chain = read_chain(connection)
    totals = connection.execute(
        "SELECT coalesce(sum(snapshots), 0), coalesce(sum(net_pnl_sum), 0) FROM pnl_1m"
    ).fetchone()
    if totals != (chain.snapshots, chain.net_micros):
        raise Damaged("the minutes differ from what was written")
    newest = connection.execute("SELECT max(minute) FROM pnl_1m").fetchone()[0] or 0
    since = max(newest - RECENT_MINUTES, archived_until(connection) // MINUTE_MS)
    if (differing := connection.execute(DIFFERING_MINUTE, (since, since)).fetchone()) is not None:
        raise Damaged(f"snapshots of the minute {_clock(differing[0] * 60_000)} differ from what was written")


def lost(chain: Chain, sealed: tuple[int, int]) -> str | None:
    """What the seal knows and the file does not, in words."""
    commits, newest = sealed
    if commits <= chain.commits:
        return None
    return (
        f"{commits - chain.commits} commits that were on disk are gone, with the snapshots "
        f"{_between(chain.newest, newest)}. What the sources still hold is read again."
    )


def set_aside(path: Path) -> Path:
    """Give a damaged file and its log another name, for a person to look at; returns that name."""
    aside = path.with_name(f"{path.stem}-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}{path.suffix}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def salvage(aside: Path, connection: sqlite3.Connection, sealed: tuple[int, int]) -> str:
    """Copy what a damaged file still holds into a new one, inside its open transaction.

    Snapshots are taken up to the first damage from either end. Records are taken when all of them are what was
    written; else the sources hold them, and are read from the beginning.

    Returns:
        What was saved and what is lost, in words.
    """
    early: list[Row] = []
    late: list[Row] = []
    records = Records(0, [])
    old = Old()
    with suppress(sqlite3.Error), closing(sqlite3.connect(aside)) as damaged:
        old = _archived(damaged)
        early, late = list(_sound(damaged, "ASC")), list(_sound(damaged, "DESC"))
        records = _records(damaged)
    snapshots = sorted({row[0]: row for row in (*early, *late)}.values())
    for statement, rows in records.rows:
        connection.executemany(statement, rows)
    for table, kept in (("archived", old.months), ("pnl_1m", old.bars)):
        if kept:
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(kept[0]))})", kept)  # noqa: S608
    added, net, newest = write_snapshots(connection, snapshots)
    write_chain(connection, Chain(sealed[0] + 1, added + old.snapshots, net + old.net_micros, newest, records.sealed))
    return f"{len(snapshots)} snapshots were saved from it; {_missing(early, late[::-1], sealed[1])}"


def _archived(damaged: sqlite3.Connection) -> Old:
    """What is in the archive, and the minutes of it; nothing unless they are what was written."""
    with suppress(sqlite3.Error):
        months = damaged.execute("SELECT * FROM archived ORDER BY month").fetchall()
        until = archived_until(damaged) // MINUTE_MS
        bars = damaged.execute("SELECT * FROM pnl_1m WHERE minute < ?", (until,)).fetchall()
        query = "SELECT coalesce(sum(snapshots), 0), coalesce(sum(net_pnl_sum), 0) FROM pnl_1m WHERE minute < ?"
        if damaged.execute(query, (until,)).fetchone() == (
            sum(row[2] for row in months),
            sum(row[3] for row in months),
        ):
            return Old(months, bars, sum(row[2] for row in months), sum(row[3] for row in months))
    return Old()


def _sound(damaged: sqlite3.Connection, order: str) -> Iterator[Row]:
    """Snapshots of either version, up to the first that cannot be read or does not add up."""
    since = (0,)
    with suppress(sqlite3.Error):
        since = (archived_until(damaged),)
    with suppress(sqlite3.Error):
        query = f"SELECT * FROM pnl_snapshots WHERE timestamp >= ? ORDER BY timestamp {order}"  # noqa: S608
        for row in damaged.execute(query, since):
            whole = (*row, "{}")[: len(SNAPSHOT_COLUMNS)]
            if not _adds_up(whole):
                return
            yield whole


def _adds_up(row: Row) -> bool:
    if not all(isinstance(value, int) for value in row[: 1 + len(MONEY_FIELDS)]):
        return False
    usd = dict(zip(MONEY_FIELDS, row[1:], strict=False))
    return bool(
        usd["kalshi_pnl"] == usd["kalshi_realized"] + usd["kalshi_unrealized"] - usd["kalshi_fees"]
        and usd["total_costs"] == usd["billed_costs"] + usd["estimated_costs"]
        and usd["net_pnl"] == usd["kalshi_pnl"] - usd["total_costs"] + usd["total_revenue"]
    )


def _records(damaged: sqlite3.Connection) -> Records:
    """All records, and where their sources go on; none unless they are what was written."""
    tables = [
        (table, _rows(damaged, f"{', '.join(table.columns)}, received_ms", table.name)) for table in RECORD_TABLES
    ]
    sealed = sum(seal(*row[:-1]) for _, rows in tables for row in rows)
    if sealed != read_chain(damaged).records:
        return Records(0, [])
    others = [_copied(damaged, name, columns) for name, columns in BESIDE_RECORDS.items()]
    return Records(sealed, [*((insert_of(table), rows) for table, rows in tables), *others])


def _copied(damaged: sqlite3.Connection, table: str, columns: int) -> tuple[str, list[Row]]:
    """The rows of a table, and the statement that writes them; an older version may have had fewer columns."""
    insert = f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608
    return insert, [(*row, *[None] * columns)[:columns] for row in _rows(damaged, "*", table)]


def _rows(damaged: sqlite3.Connection, columns: str, table: str) -> list[Row]:
    return damaged.execute(f"SELECT {columns} FROM {table}").fetchall()  # noqa: S608


def _missing(early: Sequence[Row], late: Sequence[Row], newest: int) -> str:
    """Which snapshots are gone: `early` is what was read from the front, `late` from the back, both oldest first."""
    if not early and not late:
        return "its history is lost"
    gaps = []
    if not early:
        gaps.append(f"before {_clock(late[0][0])}")
    elif late and early[-1][0] < late[0][0]:
        gaps.append(_between(early[-1][0], late[0][0]))
    last = (late or early)[-1][0]
    if last < newest:
        gaps.append(_between(last, newest))
    return f"those {' and '.join(gaps)} are lost" if gaps else "none is lost"


def _between(from_ms: int, until_ms: int) -> str:
    return f"between {_clock(from_ms)} and {_clock(until_ms)}"


def _clock(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
