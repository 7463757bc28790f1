"""What is written in one transaction, and what is read back at the start."""

import json
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from functools import partial
from itertools import batched, chain, groupby
from typing import Any

from pnl.errors import Damaged
from pnl.records import Batch, CostDay, Deal, Fill, Known, Mark, Refused, Settlement, Snapshot
from pnl.rows import (
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
    to_ms,
    to_settlement,
    to_us,
)
from pnl.schema import COSTS, DEALS, FILLS, MARK_COLUMNS, RECORD_TABLES, SETTLEMENTS, RecordTable, seal
from pnl.store.connection import Connection
from pnl.store.minutes import MINUTE_MS, insert, upsert, write_snapshots
from pnl.store.retention import Upkeep

SHOWN_FOR_MS = 7 * 24 * 60 * MINUTE_MS
KEYS_AT_ONCE = 500

type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What one poll changes: the records, where its source goes on from, and the snapshot that includes them.

    `known_at` is from when on the records count: the instant of the first snapshot with them, recorded or not.
    `upkeep` is done in the same commit.
    """

    snapshot: Snapshot | None = None
    origin: str = ""
    batch: Batch = field(default_factory=Batch)
    as_of: datetime | None = None
    known_at: datetime | None = None
    upkeep: Upkeep | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that the store knows when it is opened.

    `damage` is what was found lost not long ago, in words; `identity` is of this one file and of none that is made
    anew, empty in one that an older version has opened last.
    """

    fills: tuple[Fill, ...]
    settlements: tuple[Settlement, ...]
    marks: tuple[Mark, ...]
    cost_days: tuple[CostDay, ...]
    deals: tuple[Deal, ...]
    sources: Mapping[str, tuple[Known, datetime | None]]
    refused: Mapping[str, tuple[Refused, ...]] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """What all commits together hold, so that what is gone is noticed: see `damage.py`."""

    commits: int
    snapshots: int
    net_micros: int
    newest: int
    records: int


def read_chain(connection: Connection) -> Chain:
    """The chain as the last commit left it."""
    return Chain(*connection.execute("SELECT commits, snapshots, net_micros, newest, records FROM chain").fetchone())


def write(connection: Connection, changes: Sequence[Change], *, broken: Container[str] = ()) -> Chain:
    """Write changes inside the open transaction, in order.

    Args:
        connection: The writing one.
        changes: What to write.
        broken: Origins of which something could not be held: they do not move on, so that it comes again.

    Returns:
        The chain that includes them.
    """
    now_ms = time.time_ns() // 1_000_000
    chain = read_chain(connection)
    sealed = chain.records
    for change in changes:
        sealed += _write_records(connection, change, now_ms if change.known_at is None else to_ms(change.known_at))
        if change.origin and change.origin not in broken:
            _write_source(connection, change, now_ms)
    snapshots = [snapshot_row(change.snapshot) for change in changes if change.snapshot is not None]
    added, net, newest = write_snapshots(connection, snapshots)
    for change in changes:
        if change.upkeep is not None:
            change.upkeep(connection)
    chain = Chain(chain.commits + 1, chain.snapshots + added, chain.net_micros + net, max(chain.newest, newest), sealed)
    write_chain(connection, chain)
    return chain


def write_chain(connection: Connection, chain: Chain) -> None:
    """Make it the chain of all that the open transaction leaves."""
    connection.execute(
        "UPDATE chain SET commits = ?, snapshots = ?, net_micros = ?, newest = ?, records = ?", astuple(chain)
    )


def _write_records(connection: Connection, change: Change, now_ms: int) -> int:
    """Write the records of a change; returns by how much their check sum grew."""
    batch = change.batch
    put = partial(_put, connection, now_ms=now_ms)
    grown = put(FILLS, {row[:1]: [row] for row in map(fill_row, batch.fills)})
    grown += put(SETTLEMENTS, {row[:1]: [row] for row in map(settlement_row, batch.settlements)})
    _settle(connection, {fill.ticker for fill in batch.fills} | {row.ticker for row in batch.settlements})
    connection.executemany(upsert("kalshi_marks", MARK_COLUMNS), [mark_row(mark) for mark in batch.marks])
    grown += put(COSTS, {(day.source, f"{day.day}"): list(cost_rows(day)) for day in batch.cost_days})
    deals = [deal_row(deal) for deal in batch.deals]
    return grown + put(DEALS, {(change.origin,): deals} if batch.holds_all_deals else {row[:2]: [row] for row in deals})


def _put(connection: Connection, table: RecordTable, wanted: Mapping[Row, Sequence[Row]], *, now_ms: int) -> int:
    """Put rows in the place of all that have their keys; what they replace is kept, for what was known at a past time.

    Returns:
        By how much the check sum of all records grew.
    """
    found = _found(connection, table, list(wanted))
    new = {key: rows for key, rows in wanted.items() if {row[:-1] for row in found.get(key, ())} != set(rows)}
    old = {key: found[key] for key in new if key in found}
    for some, condition in _by_keys(table, list(old)):
        connection.execute(f"DELETE FROM {table.name} WHERE {condition}", some)  # noqa: S608
    gone = [row for key, rows in old.items() for row in rows if row[:-1] not in set(new[key])]
    came_ms = {row[:-1]: row[-1] for rows in old.values() for row in rows}
    connection.executemany(
        insert("superseded", ("name", "record", "replaced_ms")), [(table.name, json.dumps(row), now_ms) for row in gone]
    )
    added = [row for rows in new.values() for row in rows]
    connection.executemany(insert_of(table), [(*row, came_ms.get(row, now_ms)) for row in added])
    return sum(seal(*row) for row in added) - sum(seal(*row) for row in came_ms)


def _found(connection: Connection, table: RecordTable, keys: Sequence[Row]) -> dict[Row, list[Row]]:
    """What is recorded under these keys, which are of the same length: rows with the instant at which they came."""
    found: dict[Row, list[Row]] = {}
    for some, condition in _by_keys(table, keys):
        query = f"SELECT {', '.join(table.columns)}, received_ms FROM {table.name} WHERE {condition}"  # noqa: S608
        for row in connection.execute(query, some):
            found.setdefault(row[: len(keys[0])], []).append(row)
    return found


def _by_keys(table: RecordTable, keys: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """The values and the condition of statements that find all rows with these keys, some keys at a time."""
    for some in batched(keys, KEYS_AT_ONCE):
        columns, values = table.columns[: len(some[0])], ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        yield tuple(chain.from_iterable(some)), f"({', '.join(columns)}) IN (VALUES {values})"


def insert_of(table: RecordTable) -> str:
    """The statement that writes one record: its columns, and when it came."""
    names, values = [*table.columns, "received_ms"], ["?"] * (len(table.columns) + 1)
    if table is FILLS:
        names, values = [*names, "status"], [*values, "'open'"]
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(values)})"  # noqa: S608


def _settle(connection: Connection, tickers: Iterable[str]) -> None:
    connection.executemany(
        "UPDATE kalshi_trades SET status = 'settled' WHERE ticker = ? AND status = 'open' "
        "AND EXISTS (SELECT 1 FROM kalshi_settlements WHERE ticker = ?)",
        [(ticker, ticker) for ticker in tickers],
    )


def _write_source(connection: Connection, change: Change, now_ms: int) -> None:
    """Where a source goes on, and which of its rows are set aside."""
    batch = change.batch
    as_of = None if change.as_of is None else to_us(change.as_of)
    connection.execute(
        "INSERT INTO source_state VALUES (?, ?, ?) ON CONFLICT (origin) "
        "DO UPDATE SET cursors = excluded.cursors, as_of = coalesce(excluded.as_of, source_state.as_of)",
        (change.origin, json.dumps(dict(batch.cursors)), as_of),
    )
    still = {(row.what, row.key) for row in batch.refused}
    set_aside = connection.execute("SELECT what, key FROM quarantine WHERE origin = ?", (change.origin,)).fetchall()
    good_again = [row for row in set_aside if row[0] in batch.reread and row not in still]
    connection.executemany(
        "DELETE FROM quarantine WHERE origin = ? AND what = ? AND key = ?",
        [(change.origin, *row) for row in good_again],
    )
    connection.executemany(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (origin, what, key) "
        "DO UPDATE SET reason = excluded.reason, raw = excluded.raw",
        [(change.origin, row.what, row.key, row.reason, row.raw, now_ms) for row in batch.refused],
    )


def load(connection: Connection) -> Recorded:
    """Read all records back.

    Raises:
        Damaged: They are not the ones that were written.
    """
    fills, settlements, costs, deals = found = [_all(connection, table) for table in RECORD_TABLES]
    if sum(seal(*row) for rows in found for row in rows) != read_chain(connection).records:
        raise Damaged("records differ from what was written")
    rows = connection.execute
    return Recorded(
        fills=tuple(map(to_fill, fills)),
        settlements=tuple(map(to_settlement, settlements)),
        marks=read_marks(connection),
        cost_days=tuple(to_cost_day(key, lines) for key, lines in groupby(costs, key=lambda row: row[:2])),
        deals=tuple(map(to_deal, deals)),
        sources={
            origin: (Known(json.loads(cursors)), None if as_of is None else to_instant(as_of))
            for origin, cursors, as_of in rows("SELECT origin, cursors, as_of FROM source_state")
        },
        refused=_set_aside(connection),
        damage=tuple(what for (what,) in rows("SELECT what FROM damage WHERE found_ms > ?", (_ago_ms(SHOWN_FOR_MS),))),
        identity="".join(value for (value,) in rows("SELECT value FROM meta WHERE key = 'identity'")),
    )


def read_marks(connection: Connection) -> tuple[Mark, ...]:
    """The last price of each market."""
    return tuple(to_mark(row) for row in connection.execute("SELECT * FROM kalshi_marks"))


def _all(connection: Connection, table: RecordTable) -> list[tuple[Any, ...]]:
    columns = ", ".join(table.columns)
    order = " ORDER BY 1, 2, 3" if table is COSTS else ""
    return connection.execute(f"SELECT {columns} FROM {table.name}{order}").fetchall()  # noqa: S608


def _set_aside(connection: Connection) -> dict[str, tuple[Refused, ...]]:
    rows = connection.execute("SELECT origin, what, key, reason, raw FROM quarantine ORDER BY origin, first_ms")
    return {origin: tuple(Refused(*row[1:]) for row in some) for origin, some in groupby(rows, key=lambda row: row[0])}


def _ago_ms(ms: int) -> int:
    return time.time_ns() // 1_000_000 - ms
