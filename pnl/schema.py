"""The tables, version by version; money is in integer micro-dollars, counts in hundredths of a contract."""

import zlib
from dataclasses import dataclass

from pnl.records import MONEY_FIELDS

BAR_PARTS = ("open", "high", "low", "close", "sum")


@dataclass(frozen=True, slots=True)
class RecordTable:
    """A table of records: what a record says, by column, and how many of the first columns identify it."""

    name: str
    columns: tuple[str, ...]
    key_columns: int = 1


FILLS = RecordTable(
    "kalshi_trades",
    ("fill_id", "timestamp", "ticker", "side", "count_centis", "yes_price_micros", "fee_micros", "is_taker"),
)
SETTLEMENTS = RecordTable(
    "kalshi_settlements",
    (
        *("ticker", "event_ticker", "result", "yes_count_centis", "yes_cost_micros"),
        *("no_count_centis", "no_cost_micros", "revenue_micros", "fee_micros", "value_micros", "settled_at"),
    ),
)
COSTS = RecordTable(
    "anthropic_costs",
    ("source", "day", "line", "item", "amount_usd", "amount_micros", "is_estimate"),
    key_columns=2,  # a day comes whole
)
DEALS = RecordTable(
    "john_revenue",
    ("origin", "deal_id", "amount_micros", "fee_micros", "status", "closed_date", "updated_at", "description"),
    key_columns=2,
)
RECORD_TABLES = (FILLS, SETTLEMENTS, COSTS, DEALS)


def seal(*row: object) -> int:
    """The check sum of one record's row; also a function in SQL."""
    return zlib.crc32(repr(row).encode())


FIRST_CHAIN = (
    "INSERT INTO chain SELECT 1, 0, count(*), coalesce(sum(net_pnl_micros), 0), coalesce(max(timestamp), 0), "  # noqa: S608
    + " + ".join(
        f"(SELECT coalesce(sum(seal({', '.join(table.columns)})), 0) FROM {table.name})"  # noqa: S608
        for table in RECORD_TABLES
    )
    + " FROM pnl_snapshots;"
)
"""What the chain is of all that was recorded before there was one."""


MIGRATIONS = (
    f"""
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE pnl_snapshots (
        timestamp INTEGER PRIMARY KEY,  -- ms since the epoch; two in one ms do not happen: the model sees to it
        {", ".join(f"{name}_micros INTEGER NOT NULL" for name in MONEY_FIELDS)},
        trade_count INTEGER NOT NULL,
        open_trade_count INTEGER NOT NULL,
        settled_market_count INTEGER NOT NULL,
        as_of INTEGER NOT NULL,
        complete INTEGER NOT NULL,
        sources TEXT NOT NULL
    ) STRICT;

    CREATE TABLE pnl_1m (
        minute INTEGER PRIMARY KEY,  -- minutes since the epoch
        snapshots INTEGER NOT NULL,
        {", ".join(f"{name}_{part} INTEGER NOT NULL" for name in MONEY_FIELDS for part in BAR_PARTS)}
    ) STRICT;

    CREATE TABLE kalshi_trades (
        fill_id TEXT PRIMARY KEY,
        timestamp INTEGER NOT NULL,  -- µs since the epoch: the venue tells microseconds, and they order the fills
        ticker TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('yes', 'no')),
        count_centis INTEGER NOT NULL,
        yes_price_micros INTEGER NOT NULL,
        fee_micros INTEGER NOT NULL,
        is_taker INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('open', 'settled')),
        received_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX kalshi_trades_status_time ON kalshi_trades (status, timestamp DESC);
    CREATE INDEX kalshi_trades_ticker ON kalshi_trades (ticker);

    CREATE TABLE kalshi_settlements (
        ticker TEXT PRIMARY KEY,
        event_ticker TEXT NOT NULL,
        result TEXT NOT NULL,
        yes_count_centis INTEGER NOT NULL,
        yes_cost_micros INTEGER NOT NULL,
        no_count_centis INTEGER NOT NULL,
        no_cost_micros INTEGER NOT NULL,
        revenue_micros INTEGER NOT NULL,
        fee_micros INTEGER NOT NULL,
        value_micros INTEGER,
        settled_at INTEGER NOT NULL,  -- µs since the epoch
        received_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE kalshi_marks (
        ticker TEXT PRIMARY KEY,
        yes_bid_micros INTEGER NOT NULL,
        yes_ask_micros INTEGER NOT NULL,
        as_of INTEGER NOT NULL,  -- µs since the epoch
        title TEXT NOT NULL
    ) STRICT;

    CREATE TABLE anthropic_costs (
        source TEXT NOT NULL,
        day TEXT NOT NULL,  -- UTC, YYYY-MM-DD
        line INTEGER NOT NULL,
        month TEXT NOT NULL GENERATED ALWAYS AS (substr(day, 1, 7)) STORED,
        item TEXT NOT NULL,
        amount_usd TEXT NOT NULL,  -- exact: bills hold fractions of a cent finer than a micro-dollar
        amount_micros INTEGER NOT NULL,
        is_estimate INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        PRIMARY KEY (source, day, line)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX anthropic_costs_month ON anthropic_costs (month DESC);
    CREATE INDEX anthropic_costs_day ON anthropic_costs (day DESC);

    CREATE TABLE john_revenue (
        origin TEXT NOT NULL,
        deal_id TEXT NOT NULL,
        amount_micros INTEGER NOT NULL,
        fee_micros INTEGER NOT NULL,
        status TEXT NOT NULL,
        closed_date TEXT NOT NULL,
        updated_at INTEGER NOT NULL,  -- µs since the epoch
        description TEXT NOT NULL,
        received_ms INTEGER NOT NULL,
        PRIMARY KEY (origin, deal_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX john_revenue_closed ON john_revenue (closed_date DESC);

    CREATE TABLE source_state (
        origin TEXT PRIMARY KEY,
        cursors TEXT NOT NULL,
        as_of INTEGER  -- µs since the epoch of the last good answer
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE pnl_snapshots ADD COLUMN said TEXT NOT NULL DEFAULT '{}';  -- what was missing, odd or wrong, in words

    CREATE TABLE superseded (
        name TEXT NOT NULL,  -- the table that held the record
        record TEXT NOT NULL,  -- its row as a JSON list, the moment it came last
        replaced_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX superseded_when ON superseded (name, replaced_ms);

    CREATE TABLE quarantine (
        origin TEXT NOT NULL,
        what TEXT NOT NULL,
        key TEXT NOT NULL,
        reason TEXT NOT NULL,
        raw TEXT NOT NULL,
        first_ms INTEGER NOT NULL,
        PRIMARY KEY (origin, what, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE chain (  -- one row: what must be found again at the next start
        one INTEGER PRIMARY KEY CHECK (one = 1),
        commits INTEGER NOT NULL,
        snapshots INTEGER NOT NULL,
        net_micros INTEGER NOT NULL,  -- the sum over all snapshots
        newest INTEGER NOT NULL,  -- ms since the epoch
        records INTEGER NOT NULL  -- the sum of the check sums of all records
    ) STRICT;

    CREATE TABLE damage (
        found_ms INTEGER PRIMARY KEY,
        what TEXT NOT NULL
    ) STRICT;
    """
    + FIRST_CHAIN,
    """
    CREATE TABLE archived (
        month TEXT PRIMARY KEY,  -- UTC, YYYY-MM
        until_ms INTEGER NOT NULL,  -- what is older is in the archive
        rows INTEGER NOT NULL,
        net_micros INTEGER NOT NULL,
        file TEXT NOT NULL  -- relative to the data folder
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE kalshi_marks ADD COLUMN closes_at INTEGER;  -- µs since the epoch; NULL: the venue does not say
    """,
)

MARK_COLUMNS = ("ticker", "yes_bid_micros", "yes_ask_micros", "as_of", "title", "closes_at")
BAR_COLUMNS = ("minute", "snapshots", *(f"{name}_{part}" for name in MONEY_FIELDS for part in BAR_PARTS))
SNAPSHOT_COLUMNS = (
    "timestamp",
    *(f"{name}_micros" for name in MONEY_FIELDS),
    "trade_count",
    "open_trade_count",
    "settled_market_count",
    "as_of",
    "complete",
    "sources",
    "said",
)
