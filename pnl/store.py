"""The one SQLite writer: records and snapshots in, one commit for what belongs together, minutes rolled up with it.

One thread owns the one connection. What is appended waits in a queue; the first append after a pause is committed at
once, later ones are gathered for `commit_ms` or `commit_rows`. A future tells when a write is on disk.

`synchronous=FULL`: with NORMAL, 421 of 500 simulated power cuts lost acknowledged batches, with FULL none, for about a
millisecond per commit. No memory map: a file cut short under one ends the process. No index on `timestamp / 60000`: it
makes range queries up to a thousand times slower, and `pnl_1m` does its job.
"""

import asyncio
import fcntl
import json
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pnl.config import private_folder
from pnl.errors import StoreError, StoreHeld
from pnl.records import (
    MONEY_FIELDS,
    Batch,
    Cost,
    CostDay,
    Deal,
    Fill,
    Known,
    Mark,
    Result,
    Settlement,
    Snapshot,
    State,
)

FILE = "pnl.db"
LOCK_FILE = "pnl.lock"
MINUTE_MS = 60_000
MICROS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)

BAR_PARTS = ("open", "high", "low", "close", "sum")

MIGRATIONS = (
    f"""
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE pnl_snapshots (
        timestamp INTEGER PRIMARY KEY,  -- ms since the epoch; two in one ms do not happen, see _Writer
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
)

SNAPSHOT_COLUMNS = (
    "timestamp",
    *(f"{name}_micros" for name in MONEY_FIELDS),
    "trade_count",
    "open_trade_count",
    "settled_market_count",
    "as_of",
    "complete",
    "sources",
)


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


class Store:
    """The record of one data folder, open for writing by this process alone; `async with`."""

    def __init__(
        self,
        folder: Path,
        *,
        kind: Literal["real", "simulated"],
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        commit_rows: int = 100,
        commit_ms: int = 100,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._synchronous = synchronous
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000
        self._queue: queue.SimpleQueue[tuple[Change, Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._opened: Future[Recorded] = Future()

    @property
    def path(self) -> Path:
        """The database file."""
        return self._folder / FILE

    async def __aenter__(self) -> Self:
        private_folder(self._folder)
        self._lock = hold(self._folder / LOCK_FILE)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write what waits, close, and only then let another process in; blocks for it. Closing twice is fine."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def recorded(self) -> Recorded:
        """What the store held when it was opened."""
        return self._opened.result()

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done once it is on disk.

        Raises:
            StoreError: By the future: it could not be written. It stays queued, and is written with a later change.
        """
        done: Future[None] = Future()
        self._queue.put((change, done))
        return done

    async def snapshots(self, *, column: str = "net_pnl", limit: int = 1000) -> list[tuple[int, int]]:
        """The last snapshots of one money column: (ms since the epoch, micro-dollars), oldest first."""
        if column not in MONEY_FIELDS:
            raise ValueError(f"{column!r} is no money column; there are {', '.join(MONEY_FIELDS)}")
        query = f"SELECT timestamp, {column}_micros FROM pnl_snapshots ORDER BY timestamp DESC LIMIT ?"  # noqa: S608
        return (await asyncio.to_thread(self._read, query, limit))[::-1]

    def _read(self, query: str, *values: object) -> list[Any]:
        with closing(_reader(self.path)) as reader:  # the writer's own library
            return reader.execute(query, values).fetchall()

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        try:
            connection, recorded = _open(self.path, self._kind, self._synchronous)
        except StoreError as error:
            self._opened.set_exception(error)
            return
        with closing(connection):
            self._opened.set_result(recorded)
            self._write_until_stopped(connection)
            with suppress(sqlite3.Error):  # only upkeep: a full disk must not make closing fail
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")
                connection.execute("PRAGMA optimize")

    def _write_until_stopped(self, connection: sqlite3.Connection) -> None:
        waiting: list[tuple[Change, Future[None]]] = []
        committed_at = -self._commit_s
        while self._gather(waiting, until=committed_at + self._commit_s):
            if self._commit(connection, waiting):
                waiting = []
            committed_at = time.monotonic()
        self._commit(connection, waiting)

    def _gather(self, waiting: list[tuple[Change, Future[None]]], until: float) -> bool:
        """Wait for a change, then for more until the next commit is due; False once the store is closing."""
        timeout = None
        while len(waiting) < self._commit_rows or timeout is None:
            try:
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                return True
            if item is None:
                return False
            item[1].set_running_or_notify_cancel()  # from here on nobody can cancel it: it is written in any case
            waiting.append(item)
            timeout = max(0.0, until - time.monotonic())
        return True

    def _commit(self, connection: sqlite3.Connection, waiting: Sequence[tuple[Change, Future[None]]]) -> bool:
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                write(connection, [change for change, _ in waiting])
        except sqlite3.Error as error:
            self._refuse(waiting, error)
            return False
        except Exception as error:  # whatever it was, who waits must hear of it and the thread must live on
            log.exception("a change cannot be written")
            self._refuse(waiting, error)
            return False
        for _, done in waiting:
            if not done.done():
                done.set_result(None)
        return True

    def _refuse(self, waiting: Sequence[tuple[Change, Future[None]]], error: Exception) -> None:
        for _, done in waiting:
            if not done.done():
                done.set_exception(
                    StoreError(f"{self.path} cannot be written: {error}; what waits is kept and written later")
                )


def hold(path: Path) -> int:
    """Take the folder for this process; the file names who holds it, and a process that dies lets go.

    Raises:
        StoreHeld: Another process has it.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 100).decode("ascii", "replace").strip() or "another process"
        os.close(lock)
        raise StoreHeld(
            f"the data folder {path.parent} is in use by {holder}; stop it, or set PNL_DATA_DIR to another folder"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()}".encode())
    return lock


def _open(path: Path, kind: str, synchronous: str) -> tuple[sqlite3.Connection, Recorded]:
    """The writing connection, and what is recorded; a StoreError whatever is wrong with the file."""
    with ExitStack() as opened:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # before SQLite holds it: close() drops its locks
            version = _known_version(path)
            connection = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
            _tune(connection, synchronous)
            _migrate(connection, version)
            _keep_apart(connection, path, kind)
            recorded = load(connection)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"{path} cannot be opened: {error}; move it aside to start anew from the sources"
            ) from error
        opened.pop_all()
    return connection, recorded


def read_beside(folder: Path, kind: Literal["real", "simulated"]) -> Recorded:
    """What another process has recorded in a folder so far; changes nothing there.

    Raises:
        StoreError: It cannot be read, or holds numbers of the other kind.
    """
    path = folder / FILE
    try:
        _known_version(path)
        with closing(_reader(path)) as reader:
            reader.execute("BEGIN")  # one instant for all tables
            _check_kind(reader, path, kind)
            return load(reader)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _known_version(path: Path) -> int:
    """The file's schema version, read without a change to any byte of it."""
    with closing(_reader(path)) as reader:
        version: int = reader.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of pnl (schema {version}, this one knows {len(MIGRATIONS)}); "
            "it was left untouched. Install that version, or set PNL_DATA_DIR to another folder"
        )
    return version


def _tune(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -10000")
    connection.execute("PRAGMA mmap_size = 0")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _keep_apart(connection: sqlite3.Connection, path: Path, kind: str) -> None:
    """Simulated and real numbers never share a data folder; the first one decides which it holds."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (kind,))
    _check_kind(connection, path, kind)


def _check_kind(connection: sqlite3.Connection, path: Path, kind: str) -> None:
    found = connection.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()[0]
    if found != kind:
        raise StoreError(
            f"{path.parent} holds {found} numbers, and the sources are {kind} now; set PNL_DATA_DIR to another folder"
        )


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
    connection.executemany(_upsert("kalshi_trades", 10), [(*_fill_row(fill), received_ms) for fill in batch.fills])
    connection.executemany(
        _upsert("kalshi_settlements", 12), [(*_settlement_row(row), received_ms) for row in batch.settlements]
    )
    tickers = {fill.ticker for fill in batch.fills} | {row.ticker for row in batch.settlements}
    connection.executemany(
        "UPDATE kalshi_trades SET status = 'settled' WHERE ticker = ? AND status = 'open' "
        "AND EXISTS (SELECT 1 FROM kalshi_settlements WHERE ticker = ?)",
        [(ticker, ticker) for ticker in tickers],
    )
    connection.executemany(_upsert("kalshi_marks", 5), [_mark_row(mark) for mark in batch.marks])
    for day in batch.cost_days:
        connection.execute("DELETE FROM anthropic_costs WHERE source = ? AND day = ?", (day.source, f"{day.day}"))
        connection.executemany(
            "INSERT INTO anthropic_costs (source, day, line, item, amount_usd, amount_micros, is_estimate, received_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row, received_ms) for row in _cost_rows(day)],
        )
    if batch.holds_all_deals:
        connection.execute("DELETE FROM john_revenue WHERE origin = ?", (change.origin,))
    connection.executemany(_upsert("john_revenue", 9), [(*_deal_row(deal), received_ms) for deal in batch.deals])


def _write_source_state(connection: sqlite3.Connection, change: Change) -> None:
    as_of = None if change.as_of is None else _us(change.as_of)
    connection.execute(
        "INSERT INTO source_state VALUES (?, ?, ?) ON CONFLICT (origin) "
        "DO UPDATE SET cursors = excluded.cursors, as_of = coalesce(excluded.as_of, as_of)",
        (change.origin, json.dumps(dict(change.batch.cursors)), as_of),
    )


def _write_snapshots(connection: sqlite3.Connection, snapshots: Sequence[Snapshot]) -> None:
    rows = [_snapshot_row(snapshot) for snapshot in snapshots]
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
        fills=tuple(_fill(row) for row in rows("SELECT * FROM kalshi_trades")),
        settlements=tuple(_settlement(row) for row in rows("SELECT * FROM kalshi_settlements")),
        marks=tuple(_mark(row) for row in rows("SELECT * FROM kalshi_marks")),
        cost_days=tuple(_cost_day(key, lines) for key, lines in groupby(costs, key=lambda row: row[:2])),
        deals=tuple(_deal(row) for row in rows("SELECT * FROM john_revenue")),
        sources={
            origin: (Known(json.loads(cursors)), None if as_of is None else _instant(as_of))
            for origin, cursors, as_of in rows("SELECT origin, cursors, as_of FROM source_state")
        },
    )


def micros(usd: Decimal) -> int:
    """US dollars as whole micro-dollars; what is finer is rounded half to even."""
    return int((usd * MICROS).to_integral_value())


def _usd(value: int) -> Decimal:
    return Decimal(value).scaleb(-6)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _ms(moment: datetime) -> int:
    return _us(moment) // 1000


def _instant(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def _fill_row(fill: Fill) -> tuple[Any, ...]:
    return (
        fill.fill_id,
        _us(fill.filled_at),
        fill.ticker,
        fill.side,
        int(fill.count * 100),
        micros(fill.yes_price_usd),
        micros(fill.fee_usd),
        int(fill.is_taker),
        "open",
    )


def _fill(row: Sequence[Any]) -> Fill:
    fill_id, at, ticker, side, count, price, fee, is_taker, *_ = row
    return Fill(fill_id, ticker, side, Decimal(count).scaleb(-2), _usd(price), _usd(fee), bool(is_taker), _instant(at))


def _settlement_row(row: Settlement) -> tuple[Any, ...]:
    return (
        row.ticker,
        row.event_ticker,
        row.result.value,
        int(row.yes_count * 100),
        micros(row.yes_cost_usd),
        int(row.no_count * 100),
        micros(row.no_cost_usd),
        micros(row.revenue_usd),
        micros(row.fee_usd),
        None if row.value_usd is None else micros(row.value_usd),
        _us(row.settled_at),
    )


def _settlement(row: Sequence[Any]) -> Settlement:
    ticker, event, result, yes_count, yes_cost, no_count, no_cost, revenue, fee, value, settled_at, _ = row
    return Settlement(
        ticker,
        event,
        Result(result),
        Decimal(yes_count).scaleb(-2),
        _usd(yes_cost),
        Decimal(no_count).scaleb(-2),
        _usd(no_cost),
        _usd(revenue),
        _usd(fee),
        None if value is None else _usd(value),
        _instant(settled_at),
    )


def _mark_row(mark: Mark) -> tuple[Any, ...]:
    return mark.ticker, micros(mark.yes_bid_usd), micros(mark.yes_ask_usd), _us(mark.as_of), mark.title


def _mark(row: Sequence[Any]) -> Mark:
    ticker, bid, ask, as_of, title = row
    return Mark(ticker, _usd(bid), _usd(ask), _instant(as_of), title)


def _cost_rows(day: CostDay) -> Iterable[tuple[Any, ...]]:
    for number, line in enumerate(day.lines):
        usd = line.amount_usd
        yield day.source, f"{day.day}", number, line.item, f"{usd:f}", micros(usd), int(day.is_estimate)


def _cost_day(key: tuple[str, str], rows: Iterable[Sequence[Any]]) -> CostDay:
    source, day = key[0], date.fromisoformat(key[1])
    lines = tuple(Cost(source, day, item, Decimal(usd), bool(estimate)) for _, _, item, usd, estimate in rows)
    return CostDay(source, day, lines, is_estimate=lines[0].is_estimate)


def _deal_row(deal: Deal) -> tuple[Any, ...]:
    return (
        deal.origin,
        deal.deal_id,
        micros(deal.amount_usd),
        micros(deal.fee_usd),
        deal.status,
        f"{deal.closed_on}",
        _us(deal.updated_at),
        deal.description,
    )


def _deal(row: Sequence[Any]) -> Deal:
    origin, deal_id, amount, fee, status, closed_on, updated_at, description, _ = row
    closed = date.fromisoformat(closed_on)
    return Deal(origin, deal_id, _usd(amount), status, closed, _instant(updated_at), description, _usd(fee))


def _snapshot_row(snapshot: Snapshot) -> tuple[Any, ...]:
    states = {
        reading.source: [reading.state.value, None if reading.as_of is None else _ms(reading.as_of)]
        for reading in snapshot.sources
        if reading.state is not State.NOT_CONFIGURED
    }
    return (
        _ms(snapshot.taken_at),
        *(micros(getattr(snapshot, name)) for name in MONEY_FIELDS),
        snapshot.trade_count,
        snapshot.open_trade_count,
        snapshot.settled_market_count,
        _ms(snapshot.as_of),
        int(snapshot.complete),
        json.dumps(states, separators=(",", ":")),
    )
