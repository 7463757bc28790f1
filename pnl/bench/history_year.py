"""A made-up year of snapshots in a store's file, written faster than a store would."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_PARTS, MIGRATIONS, SNAPSHOT_COLUMNS, seal

YEAR_MINUTES = 525_600
FIRST_MS = 1_735_689_600_000  # 2025-01-01, UTC
YEAR_MS = YEAR_MINUTES * 60_000
CHUNK = 200_000
STEP_MICROS = 50_000

type Numbers = npt.NDArray[np.int64]


def write_year(path: Path, rows: int) -> Iterator[int]:
    """Write a year of so many snapshots, evenly spaced, and its minutes; yields how many are written so far."""
    at = FIRST_MS + np.arange(rows, dtype=np.int64) * YEAR_MS // rows
    random = np.random.default_rng(1)
    net = np.cumsum(random.integers(-STEP_MICROS, STEP_MICROS + 1, rows, dtype=np.int64))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.create_function("seal", -1, seal, deterministic=True)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # a power cut costs a measurement, not a record
        for number, script in enumerate(MIGRATIONS, start=1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
        connection.execute("INSERT INTO meta VALUES ('kind', 'simulated')")
        for start in range(0, rows, CHUNK):
            chunk = slice(start, start + CHUNK)
            _insert(connection, "pnl_snapshots", len(SNAPSHOT_COLUMNS), _snapshots(at[chunk], net[chunk]))
            yield min(rows, start + CHUNK)
        _insert(connection, "pnl_1m", 2 + len(MONEY_FIELDS) * len(BAR_PARTS), _minutes(at, net))
        chain = (rows, int(net.sum()), int(at[-1]))
        connection.execute("UPDATE chain SET commits = 1, snapshots = ?, net_micros = ?, newest = ?", chain)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(connection: sqlite3.Connection, table: str, width: int, rows: Iterator[tuple[Any, ...]]) -> None:
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", rows)  # noqa: S608
    connection.execute("COMMIT")


def _snapshots(at: Numbers, net: Numbers) -> Iterator[tuple[Any, ...]]:
    """Rows in which all P&L is realized trading."""
    for ms, micros in zip(at.tolist(), net.tolist(), strict=True):
        yield (ms, micros, micros, micros, 0, 0, 0, 0, 0, 0, 0, 0, 0, ms, 1, "{}", "{}")


def _minutes(at: Numbers, net: Numbers) -> Iterator[tuple[int, ...]]:
    minute, first = np.unique(at // 60_000, return_index=True)
    last = np.append(first[1:], len(at))
    columns = (net[first], np.maximum.reduceat(net, first), np.minimum.reduceat(net, first), net[last - 1])
    parts = np.stack([*columns, np.add.reduceat(net, first)], axis=1)
    rest = [0] * (len(BAR_PARTS) * (len(MONEY_FIELDS) - 3))
    for number, count, bar in zip(minute.tolist(), (last - first).tolist(), parts.tolist(), strict=True):
        yield (number, count, *bar, *bar, *bar, *rest)
