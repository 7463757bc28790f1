"""What is written in one transaction, the minute rollup included, and what is read back at the start."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any

from pnl.records import MONEY_FIELDS, Batch, CostDay, Deal, Fill, Known, Mark, Settlement, Snapshot
from pnl.store.rows import (
    cost_rows,
    deal_row,
    fill_row,
    mark_row,
    settlement_row,
    snapshot_row,
    to_cost_day,
    to_deal,
    to_fill,
    to_instant,
    to_mark,
    to_settlement,
    to_us,
)
from pnl.store.schema import BAR_PARTS, SNAPSHOT_COLUMNS

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Change:
    """What one poll changes: the records, where its source goes on from, and the snapshot that includes them."""

    snapshot: Snapshot | None = None
    origin: str = ""
    batch: Batch = field(default_factory=Batch)
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that the store knows when it is opened."""

    fills: tuple[Fill, ...]
    settlements: tuple[Settlement, ...]
    marks: tuple[Mark, ...]
    cost_days: tuple[CostDay, ...]
    deals: tuple[Deal, ...]
    sources: Mapping[str, tuple[Known, datetime | None]]


def write(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Write changes inside the open transaction, in order."""
    received_ms = time.time_ns() // 1_000_000
    for change in changes:
        _write_records(connection, change, received_ms)
        if change.origin:
            _write_source_state(connection, change)
    _write_snapshots(connection, [change.snapshot for change in changes if change.snapshot is not None])


def _write_records(connection: sqlite3.Connection, change: Change, received_ms: int) -> None:
    batch = change.batch
    connection.executemany(_upsert("kalshi_trades", 10), [(*fill_row(fill), received_ms) for fill in batch.fills])
    connection.executemany(
        _upsert("kalshi_settlements", 12), [(*settlement_row(row), received_ms) for row in batch.settlements]
    )
    tickers = {fill.ticker for fill in batch.fills} | {row.ticker for row in batch.settlements}
    connection.executemany(
        "UPDATE kalshi_trades SET status = 'settled' WHERE ticker = ? AND status = 'open' "
        "AND EXISTS (SELECT 1 FROM kalshi_settlements WHERE ticker = ?)",
        [(ticker, ticker) for ticker in tickers],
    )
    connection.executemany(_upsert("kalshi_marks", 5), [mark_row(mark) for mark in batch.marks])
    for day in batch.cost_days:
        connection.execute("DELETE FROM anthropic_costs WHERE source = ? AND day = ?", (day.source, f"{day.day}"))
        connection.executemany(
            "INSERT INTO anthropic_costs (source, day, line, item, amount_usd, amount_micros, is_estimate, received_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row, received_ms) for row in cost_rows(day)],
        )
    if batch.holds_all_deals:
        connection.execute("DELETE FROM john_revenue WHERE origin = ?", (change.origin,))
    connection.executemany(_upsert("john_revenue", 9), [(*deal_row(deal), received_ms) for deal in batch.deals])


def _write_source_state(connection: sqlite3.Connection, change: Change) -> None:
    as_of = None if change.as_of is None else to_us(change.as_of)
    connection.execute(
        "INSERT INTO source_state VALUES (?, ?, ?) ON CONFLICT (origin) "
        "DO UPDATE SET cursors = excluded.cursors, as_of = coalesce(excluded.as_of, as_of)",
        (change.origin, json.dumps(dict(change.batch.cursors)), as_of),
    )


def _write_snapshots(connection: sqlite3.Connection, snapshots: Sequence[Snapshot]) -> None:
    rows = [snapshot_row(snapshot) for snapshot in snapshots]
    if not rows:
        return
    newest = connection.execute("SELECT max(timestamp) FROM pnl_snapshots").fetchone()[0]
    connection.executemany(_upsert("pnl_snapshots", len(SNAPSHOT_COLUMNS)), rows)
    instants = [-1 if newest is None else newest, *(row[0] for row in rows)]
    in_order = all(earlier < later for earlier, later in pairwise(instants))
    if in_order:
        bars = [_roll_up(minute, list(some)) for minute, some in groupby(rows, key=lambda row: row[0] // MINUTE_MS)]
        connection.executemany(MERGE_BARS, bars)
    else:  # the clock went back: such minutes are rolled up anew from their rows
        for minute in {row[0] // MINUTE_MS for row in rows}:
            connection.execute(_upsert("pnl_1m", 2 + len(MONEY_FIELDS) * len(BAR_PARTS)), _bar_anew(connection, minute))


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


def _upsert(table: str, columns: int) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608


MERGE_BARS = (
    f"INSERT INTO pnl_1m VALUES ({', '.join('?' * (2 + len(MONEY_FIELDS) * len(BAR_PARTS)))}) "  # noqa: S608
    "ON CONFLICT (minute) DO UPDATE SET snapshots = snapshots + excluded.snapshots, "
    + ", ".join(_merge_part(name, part) for name in MONEY_FIELDS for part in BAR_PARTS)
)


def load(connection: sqlite3.Connection) -> Recorded:
    """Read all records back."""
    rows = connection.execute
    costs = rows("SELECT source, day, item, amount_usd, is_estimate FROM anthropic_costs ORDER BY source, day, line")
    return Recorded(
        fills=tuple(to_fill(row) for row in rows("SELECT * FROM kalshi_trades")),
        settlements=tuple(to_settlement(row) for row in rows("SELECT * FROM kalshi_settlements")),
        marks=tuple(to_mark(row) for row in rows("SELECT * FROM kalshi_marks")),
        cost_days=tuple(to_cost_day(key, lines) for key, lines in groupby(costs, key=lambda row: row[:2])),
        deals=tuple(to_deal(row) for row in rows("SELECT * FROM john_revenue")),
        sources={
            origin: (Known(json.loads(cursors)), None if as_of is None else to_instant(as_of))
            for origin, cursors, as_of in rows("SELECT origin, cursors, as_of FROM source_state")
        },
    )
