"""Snapshots and the minutes they are rolled up into, in the same transaction."""

import sqlite3
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_PARTS, SNAPSHOT_COLUMNS

MINUTE_MS = 60_000


def archived_until(connection: sqlite3.Connection) -> int:
    """Before this instant, in ms since the epoch, snapshots are in the archive."""
    until_ms: int = connection.execute("SELECT coalesce(max(until_ms), 0) FROM archived").fetchone()[0]
    return until_ms


def comes_to(connection: sqlite3.Connection, start_ms: int, until_ms: int) -> tuple[int, int]:
    """How many snapshots are recorded of [start, until), and the sum of their net P&L in micro-dollars."""
    query = (
        "SELECT count(*), coalesce(sum(net_pnl_micros), 0) FROM pnl_snapshots WHERE timestamp >= ? AND timestamp < ?"
    )
    count, net_micros = connection.execute(query, (start_ms, until_ms)).fetchone()
    return count, net_micros


def write_snapshots(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, int, int]:
    """Write rows of snapshots and their minutes.

    Returns:
        By how many rows and micro-dollars of net P&L there are more, and the newest row's instant in ms.
    """
    if not rows:
        return 0, 0, 0
    newest = connection.execute("SELECT max(timestamp) FROM pnl_snapshots").fetchone()[0]
    instants = [-1 if newest is None else newest, *(row[0] for row in rows)]
    if all(earlier < later for earlier, later in pairwise(instants)):
        return _add_to_bars(connection, rows)
    return _write_out_of_order(connection, rows)


def _add_to_bars(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, int, int]:
    """Write rows in order of time that replace none."""
    connection.executemany(upsert("pnl_snapshots", len(SNAPSHOT_COLUMNS)), rows)
    bars = [_roll_up(minute, list(some)) for minute, some in groupby(rows, key=lambda row: row[0] // MINUTE_MS)]
    connection.executemany(MERGE_BARS, bars)
    return len(rows), sum(row[1] for row in rows), rows[-1][0]


def _write_out_of_order(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, int, int]:
    """The clock went back: a row may replace one, and the minutes are rolled up anew from their rows.

    Of minutes that are in the archive the rows are gone: to their bars is added.
    """
    until_ms = archived_until(connection)
    if old := [row for row in rows if row[0] < until_ms]:
        added, net, newest = _add_to_bars(connection, sorted(old))
        rest = write_snapshots(connection, [row for row in rows if row[0] >= until_ms])
        return added + rest[0], net + rest[1], max(newest, rest[2])
    if not (rows := _new_ones(connection, rows)):
        return 0, 0, 0
    connection.execute(
        "INSERT INTO meta VALUES ('rewrites', '1') ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
    )
    minutes = {row[0] // MINUTE_MS for row in rows}
    before = [_of_minute(connection, minute) for minute in minutes]
    connection.executemany(upsert("pnl_snapshots", len(SNAPSHOT_COLUMNS)), rows)
    for minute in minutes:
        connection.execute(upsert("pnl_1m", 2 + len(MONEY_FIELDS) * len(BAR_PARTS)), _bar_anew(connection, minute))
    after = [_of_minute(connection, minute) for minute in minutes]
    added, net = (sum(c) - sum(b) for b, c in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True))
    return added, net, max(row[0] for row in rows)


def _new_ones(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows that are not there yet just like this."""
    query = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM pnl_snapshots WHERE timestamp = ?"  # noqa: S608
    return [row for row in rows if connection.execute(query, row[:1]).fetchone() != row]


def _of_minute(connection: sqlite3.Connection, minute: int) -> tuple[int, int]:
    return comes_to(connection, minute * MINUTE_MS, (minute + 1) * MINUTE_MS)


def _roll_up(minute: int, rows: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    """One bar of a minute from its snapshot rows in order of time."""
    columns = list(zip(*rows, strict=True))[1 : 1 + len(MONEY_FIELDS)]
    parts = (part for c in columns for part in (c[0], max(c), min(c), c[-1], sum(c)))
    return (minute, len(rows), *parts)


def _bar_anew(connection: sqlite3.Connection, minute: int) -> tuple[int, ...]:
    query = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM pnl_snapshots WHERE timestamp >= ? AND timestamp < ? ORDER BY 1"  # noqa: S608
    return _roll_up(minute, connection.execute(query, (minute * MINUTE_MS, (minute + 1) * MINUTE_MS)).fetchall())


def _merge_part(name: str, part: str) -> str:
    column = f"{name}_{part}"
    merged = {
        "open": column,
        "high": f"max({column}, excluded.{column})",
        "low": f"min({column}, excluded.{column})",
        "close": f"excluded.{column}",
        "sum": f"{column} + excluded.{column}",
    }
    return f"{column} = {merged[part]}"


def upsert(table: str, columns: int) -> str:
    """A statement that writes a row of so many columns, in the place of one with its key."""
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608


MERGE_BARS = (
    f"INSERT INTO pnl_1m VALUES ({', '.join('?' * (2 + len(MONEY_FIELDS) * len(BAR_PARTS)))}) "  # noqa: S608
    "ON CONFLICT (minute) DO UPDATE SET snapshots = snapshots + excluded.snapshots, "
    + ", ".join(_merge_part(name, part) for name in MONEY_FIELDS for part in BAR_PARTS)
)
