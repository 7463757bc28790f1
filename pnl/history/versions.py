"""Every version of every record, so that the records known at any instant can be put together again."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, tzinfo
from itertools import groupby
from typing import Any

from pnl.history.duck import Duck
from pnl.history.wire import Counted
from pnl.journal import Posting, postings
from pnl.ledger import Ledger
from pnl.records import CostDay, Deal, Fill, Settlement
from pnl.rows import to_cost_day, to_deal, to_fill, to_instant, to_settlement
from pnl.schema import COSTS, DEALS, FILLS, RECORD_TABLES, SETTLEMENTS, RecordTable

NEVER_MS = 1 << 62

type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A record as it was known from `since_ms` until another one took its place."""

    table: RecordTable
    row: Row
    since_ms: int
    until_ms: int = NEVER_MS

    @property
    def is_current(self) -> bool:
        """Whether nothing has taken its place."""
        return self.until_ms == NEVER_MS

    def is_known(self, at_ms: int) -> bool:
        """Whether this is how the record was known at an instant."""
        return self.since_ms <= at_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class Records:
    """What counted at one time."""

    fills: tuple[Fill, ...]
    settlements: tuple[Settlement, ...]
    cost_days: tuple[CostDay, ...]
    deals: tuple[Deal, ...]

    def ledger(self) -> Ledger:
        """The trading account of these records."""
        ledger = Ledger()
        ledger.add(self.fills, self.settlements)
        return ledger

    def postings(self, zone: tzinfo) -> list[Posting]:
        """What each of them did to the P&L."""
        return postings(self.ledger(), self.cost_days, self.deals, zone)


def read_versions(duck: Duck, counted: Counted) -> list[Version]:
    """All versions of the records that count."""
    found = []
    for table in RECORD_TABLES:
        rows = duck.rows(f"SELECT {', '.join(table.columns)}, received_ms FROM store.{table.name}")
        found += [Version(table, row[:-1], row[-1]) for row in rows]
    tables = {table.name: table for table in RECORD_TABLES}
    for name, record, replaced_ms in duck.rows("SELECT name, record, replaced_ms FROM store.superseded"):
        *row, received_ms = json.loads(record)
        found.append(Version(tables[name], tuple(row), received_ms, replaced_ms))
    return [version for version in found if _counts(version, counted)]


def _counts(version: Version, counted: Counted) -> bool:
    match version.table.name:
        case DEALS.name:
            return counted.has("john", version.row[0])
        case COSTS.name:
            return counted.sources is None or version.row[0] in counted.sources
        case _:
            return counted.sources is None or "kalshi" in counted.sources


def records_of(versions: Iterable[Version]) -> Records:
    """The records of these versions; where a deal was moved to another day, the later version of it."""
    rows: dict[str, list[Row]] = {table.name: [] for table in RECORD_TABLES}
    for version in versions:
        rows[version.table.name].append(version.row)
    costs = groupby(sorted(rows[COSTS.name], key=lambda row: row[:3]), key=lambda row: row[:2])
    return Records(
        tuple(map(to_fill, rows[FILLS.name])),
        tuple(map(to_settlement, rows[SETTLEMENTS.name])),
        tuple(to_cost_day(key, lines) for key, lines in costs),
        tuple(map(to_deal, {row[:2]: row for row in sorted(rows[DEALS.name], key=lambda row: row[6])}.values())),
    )


def before_the_first(versions: Iterable[Version], first_ms: int, zone: tzinfo) -> list[Version]:
    """What the P&L before the first snapshot is rebuilt from.

    What happened on days before it is taken as it is known now; of its own day what it counted is taken, or the line
    would not end where the snapshots begin.
    """
    today = _day(first_ms * 1000, zone)
    return [
        version
        for version in versions
        if (version.is_current if day_of(version, zone) < today else version.is_known(first_ms))
    ]


def day_of(version: Version, zone: tzinfo) -> date:
    """The day on which a record changes the P&L."""
    day: Callable[[Row], date] = {
        FILLS.name: lambda row: _day(row[1], zone),
        SETTLEMENTS.name: lambda row: _day(row[10], zone),
        COSTS.name: lambda row: date.fromisoformat(row[1]),
        DEALS.name: lambda row: date.fromisoformat(row[5]),
    }[version.table.name]
    return day(version.row)


def _day(us: int, zone: tzinfo) -> date:
    return to_instant(us).astimezone(zone).date()
