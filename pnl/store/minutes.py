"""Snapshots and the minutes they are rolled up into, in the same transaction."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import batched, chain, groupby
from operator import itemgetter, lt
from typing import Any

from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_COLUMNS, BAR_PARTS, SNAPSHOT_COLUMNS
from pnl.store.connection import Connection

MINUTE_MS = 60_000
AT_ONCE = 100

type Statement = Callable[[str, tuple[str, ...], int], str]
"""What writes so many rows to some columns of a table."""


def archived_until(connection: Connection) -> int:
    """Before this instant, in ms since the epoch, snapshots are in the archive."""
    until_ms: int = connection.execute("SELECT coalesce(max(until_ms), 0) FROM archived").fetchone()[0]
    return until_ms


def comes_to(connection: Connection, start_ms: int, until_ms: int) -> tuple[int, int]:
    """How many snapshots are recorded of [start, until), and the sum of their net P&L in micro-dollars."""
    query = (
        "SELECT count(*), coalesce(sum(net_pnl_micros), 0) FROM pnl_snapshots WHERE timestamp >= ? AND timestamp < ?"
    )
    count, net_micros = connection.execute(query, (start_ms, until_ms)).fetchone()
    return count, net_micros


def write_snapshots(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, int, int]:
    """Write rows of snapshots and their minutes.

    Returns:
        By how many rows and micro-dollars of net P&L there are more, and the newest row's instant in ms.
    """
    if not rows:
        return 0, 0, 0
    newest = connection.execute("SELECT max(timestamp) FROM pnl_snapshots").fetchone()[0]
    instants = [-1 if newest is None else newest, *(row[0] for row in rows)]
    if all(map(lt, instants, instants[1:])):
        return _add_to_bars(connection, rows, insert)
    return _write_out_of_order(connection, rows)


def _add_to_bars(connection: Connection, rows: Sequence[tuple[Any, ...]], statement: Statement) -> tuple[int, int, int]:
    """Write rows in order of time that replace none."""
    _put(connection, rows, statement)
    connection.executemany(MERGE_BARS, [_roll_up(minute, some) for minute, some in _by_minute(rows)])
    return len(rows), sum(map(itemgetter(1), rows)), rows[-1][0]


def _put(connection: Connection, rows: Sequence[tuple[Any, ...]], statement: Statement) -> None:
    """Write rows; many in one statement take two thirds of the time."""
    last_ones = {row[0]: row for row in rows}  # PostgreSQL takes each instant once in a statement
    for some in batched(last_ones.values(), AT_ONCE):
        connection.execute(statement("pnl_snapshots", SNAPSHOT_COLUMNS, len(some)), tuple(chain.from_iterable(some)))


def _by_minute(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Sequence[tuple[Any, ...]]]]:
    """Rows in order of time by their minute; nearly always all of a batch are in one, which takes no look at each."""
    first, last = rows[0][0] // MINUTE_MS, rows[-1][0] // MINUTE_MS
    if first == last:
        yield first, rows
        return
    for minute, some in groupby(rows, key=lambda row: row[0] // MINUTE_MS):
        yield minute, list(some)


def _write_out_of_order(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, int, int]:
    """The clock went back: a row may replace one, and the minutes are rolled up anew from their rows.

    Of minutes that are in the archive the rows are gone: to their bars is added.
    """
    until_ms = archived_until(connection)
    if old := [row for row in rows if row[0] < until_ms]:
        added, net, newest = _add_to_bars(connection, sorted(old), upsert)
        rest = write_snapshots(connection, [row for row in rows if row[0] >= until_ms])
        return added + rest[0], net + rest[1], max(newest, rest[2])
    if not (rows := _new_ones(connection, rows)):
        return 0, 0, 0
    connection.execute(
        "INSERT INTO meta VALUES ('rewrites', '1') "
        "ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS INTEGER) + 1 AS TEXT)"
    )
    minutes = {row[0] // MINUTE_MS for row in rows}
    before = [_of_minute(connection, minute) for minute in minutes]
    _put(connection, rows, upsert)
    for minute in minutes:
        connection.execute(upsert("pnl_1m", BAR_COLUMNS), _bar_anew(connection, minute))
    after = [_of_minute(connection, minute) for minute in minutes]
    added, net = (sum(c) - sum(b) for b, c in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True))
    return added, net, max(row[0] for row in rows)


def _new_ones(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows that are not there yet just like this."""
    query = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM pnl_snapshots WHERE timestamp = ?"  # noqa: S608
    return [row for row in rows if connection.execute(query, row[:1]).fetchone() != row]


def _of_minute(connection: Connection, minute: int) -> tuple[int, int]:
    return comes_to(connection, minute * MINUTE_MS, (minute + 1) * MINUTE_MS)


def _roll_up(minute: int, rows: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    """One bar of a minute from its snapshot rows in order of time."""
    columns = list(zip(*rows, strict=True))[1 : 1 + len(MONEY_FIELDS)]
    parts = (part for c in columns for part in (c[0], max(c), min(c), c[-1], sum(c)))
    return (minute, len(rows), *parts)


def _bar_anew(connection: Connection, minute: int) -> tuple[int, ...]:
    query = f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM pnl_snapshots WHERE timestamp >= ? AND timestamp < ? ORDER BY 1"  # noqa: S608
    return _roll_up(minute, connection.execute(query, (minute * MINUTE_MS, (minute + 1) * MINUTE_MS)).fetchall())


def _merge_part(name: str, part: str) -> str:
    column = f"{name}_{part}"
    old, new = f"pnl_1m.{column}", f"excluded.{column}"
    merged = {
        "open": old,
        "high": f"CASE WHEN {new} > {old} THEN {new} ELSE {old} END",
        "low": f"CASE WHEN {new} < {old} THEN {new} ELSE {old} END",
        "close": new,
        "sum": f"{old} + {new}",
    }
    return f"{column} = {merged[part]}"


@cache
def insert(table: str, columns: tuple[str, ...], rows: int = 1) -> str:
    """A statement that writes so many rows."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608


@cache
def upsert(table: str, columns: tuple[str, ...], rows: int = 1) -> str:
    """A statement that writes so many rows in the place of those with their keys, which are their first columns."""
    key, *others = columns
    changes = ", ".join(f"{column} = excluded.{column}" for column in others)
    return f"{insert(table, columns, rows)} ON CONFLICT ({key}) DO UPDATE SET {changes}"


MERGE_BARS = (
    f"{insert('pnl_1m', BAR_COLUMNS)} "
    "ON CONFLICT (minute) DO UPDATE SET snapshots = pnl_1m.snapshots + excluded.snapshots, "
    + ", ".join(_merge_part(name, part) for name in MONEY_FIELDS for part in BAR_PARTS)
)
