"""What is wrong with a record on disk: damage, rows that are there twice, bars that do not fit their snapshots."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pnl.records import MONEY_FIELDS
from pnl.schema import BAR_PARTS
from pnl.store.address import Address
from pnl.store.connection import Connection

MINUTE_MS = 60_000
KEYS = {
    "pnl_snapshots": "timestamp",
    "kalshi_trades": "fill_id",
    "kalshi_settlements": "ticker",
    "anthropic_costs": "source, day, line",
    "john_revenue": "origin, deal_id",
}


@dataclass(frozen=True, slots=True)
class Recording:
    """One file at one instant.

    Attributes:
        net: Net P&L in micro-dollars, by the instant of its snapshot in ms since the epoch.
        damage: What SQLite finds wrong with the file.
        doubled: Records that are there more than once, and minutes whose bar is not that of its snapshots.
    """

    net: dict[int, int]
    damage: frozenset[str]
    doubled: frozenset[str]


def examine(path: Path) -> Recording:
    """Read a file, beside the process that writes it if there is one; changes nothing.

    Raises:
        sqlite3.Error: It cannot be read at all.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as reader:
        reader.execute("BEGIN")  # one instant for all of it
        damage = frozenset(text for (text,) in reader.execute("PRAGMA integrity_check") if text != "ok")
        net = dict(reader.execute("SELECT timestamp, net_pnl_micros FROM pnl_snapshots").fetchall())
        return Recording(net, damage, _doubled(reader, "NOT INDEXED"))


def examine_database(url: SecretStr) -> Recording:
    """The same of a database, whose own damage no statement finds.

    Raises:
        psycopg.Error: It cannot be read at all.
    """
    from pnl.store.postgres import connect, own_name  # noqa: PLC0415 - a part that may be left out

    reader = connect(Address.of(url), own_name(), read_only=True)
    with reader.raw, reader.raw.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        net = dict(reader.execute("SELECT timestamp, net_pnl_micros FROM pnl_snapshots").fetchall())
        return Recording(net, frozenset(), _doubled(reader))


def _doubled(reader: Connection, how: str = "") -> frozenset[str]:
    return frozenset([*_twice(reader, how), *(f"minute {each}" for each in odd_minutes(reader))])


def _twice(reader: Connection, how: str) -> Iterator[str]:
    for table, key in KEYS.items():
        query = f"SELECT {key} FROM {table} {how} GROUP BY {key} HAVING count(*) > 1"  # noqa: S608
        yield from (f"{table} {row}" for row in reader.execute(query))


def odd_minutes(reader: Connection) -> Iterator[int]:
    """Each minute, since the epoch, whose bar is not what its snapshots make it."""
    money = ", ".join(f"{name}_micros" for name in MONEY_FIELDS)
    rows = reader.execute(f"SELECT timestamp, {money} FROM pnl_snapshots ORDER BY timestamp")  # noqa: S608
    columns = ", ".join(f"{name}_{part}" for name in MONEY_FIELDS for part in BAR_PARTS)
    bars = {minute: bar for minute, *bar in reader.execute(f"SELECT minute, snapshots, {columns} FROM pnl_1m")}  # noqa: S608
    for minute, some in groupby(rows, key=lambda row: row[0] // MINUTE_MS):
        if bars.pop(minute, None) != _bar(list(some)):
            yield minute
    yield from bars


def _bar(rows: Sequence[Sequence[Any]]) -> list[int]:
    columns = list(zip(*rows, strict=True))[1:]
    return [len(rows), *(part for c in columns for part in (c[0], max(c), min(c), c[-1], sum(c)))]
