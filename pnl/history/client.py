"""The history as the rest of the program asks for it: questions with types, answers in US dollars."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from pnl.cache import Cache, Stats
from pnl.errors import HistoryDown, HistoryError
from pnl.history.monitor import QueryMonitor
from pnl.history.process import DEADLINE_S, Worker
from pnl.history.wire import Column, Counted, Opening, Question, unpacked
from pnl.journal import COMPONENTS
from pnl.ledger import Ledger
from pnl.records import MICRO, ZERO, Snapshot
from pnl.rows import to_fill, to_instant, to_ms, to_settlement, to_snapshot, to_usd
from pnl.schema import FILLS, SETTLEMENTS

SHARED_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of one money column: `start` in ms since the epoch, money in whole micro-dollars, `count` of snapshots.

    Where `rebuilt` is true a bar is made from the records, without open P&L, and `count` is of changes.
    """

    bucket: str
    start: Column
    open: Column
    high: Column
    low: Column
    close: Column
    mean: Column
    count: Column
    rebuilt: Column

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class Booked:
    """What was booked in a range, in US dollars, by component; and how open P&L moved meanwhile, None if unknown."""

    components: Mapping[str, Decimal]
    open_before_usd: Decimal | None
    open_after_usd: Decimal | None
    finest_usd: Decimal | None = MICRO

    @property
    def trading_usd(self) -> Decimal:
        """Realized on trades, before fees."""
        return self._part("kalshi_realized")

    @property
    def fees_usd(self) -> Decimal:
        """Fees of trading."""
        return self._part("kalshi_fees")

    @property
    def costs_usd(self) -> Decimal:
        """Billed and estimated costs."""
        return self._part("billed_costs") + self._part("estimated_costs")

    @property
    def revenue_usd(self) -> Decimal:
        """Revenue of deals."""
        return self._part("total_revenue")

    @property
    def net_usd(self) -> Decimal:
        """Trading − fees − costs + revenue; open P&L is not in it."""
        return self.trading_usd - self.fees_usd - self.costs_usd + self.revenue_usd

    @property
    def exact(self) -> "Booked":
        """The same with fractions of a micro-dollar, as bills have them: so parts sum to it."""
        return replace(self, finest_usd=None)

    @property
    def open_change_usd(self) -> Decimal | None:
        """By how much open P&L grew; what was open before the first snapshot is not known and counts as nothing."""
        return None if self.open_after_usd is None else self.open_after_usd - (self.open_before_usd or ZERO)

    def _part(self, component: str) -> Decimal:
        usd = self.components.get(component, ZERO)
        return usd if self.finest_usd is None else usd.quantize(self.finest_usd)


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a breakdown in US dollars, exact; `name` is None for all that it does not speak of."""

    name: str | None
    net_usd: Decimal
    trading_usd: Decimal
    fees_usd: Decimal
    costs_usd: Decimal
    revenue_usd: Decimal
    steps: int


@dataclass(frozen=True, slots=True)
class Fall:
    """From a high of net P&L to the lowest point behind it, until the high was reached again (None: not yet)."""

    high_usd: Decimal
    high_at: datetime
    low_usd: Decimal
    low_at: datetime
    recovered_at: datetime | None

    @property
    def depth_usd(self) -> Decimal:
        """How deep it went."""
        return self.high_usd - self.low_usd


@dataclass(frozen=True, slots=True)
class Drawdowns:
    """The high-water mark, how far the newest minute is below it, and the deepest falls, the deepest first."""

    high_usd: Decimal | None
    high_at: datetime | None
    below_usd: Decimal | None
    falls: tuple[Fall, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a query of one's own; `is_cut` when there were more rows. Decimals and instants are texts."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    is_cut: bool


class History:
    """The history of one data folder; `async with`. The worker is started by the first question.

    Args:
        path: The store's file.
        kind: Whether it has to hold `real` or `simulated` numbers; None: any.
        zone: Name of the time zone where days begin.
        counted: Whose records count.
        deadline_s: Seconds within which every question is answered or fails.
        version: Grows with every commit; while it stands still, the same question gets the same answer again, and the
            worker looks at the files only. None: every question is asked, and the worker looks into the store.
        on_query: Told of each question that was asked: its kind, and how many seconds it took.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: str | None,
        zone: str,
        counted: Counted | None = None,
        deadline_s: float = DEADLINE_S,
        version: Callable[[], object] | None = None,
        on_query: Callable[[str, float], None] = lambda _kind, _seconds: None,
    ) -> None:
        opening = Opening(str(path), kind, zone, counted or Counted())
        self._worker = Worker(opening, deadline_s=deadline_s)
        self._console = Worker(msgspec.structs.replace(opening, is_console=True), deadline_s=deadline_s)
        self._version = version
        self._on_query = on_query
        self._cache = Cache(None, ttl_s=SHARED_S)
        self.queries = QueryMonitor()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the workers; whoever waits for an answer is told."""
        await self._worker.aclose()
        await self._console.aclose()

    def kill(self) -> None:
        """Stop the workers, where nothing can be awaited any more."""
        self._worker.kill()
        self._console.kill()

    @property
    def shared(self) -> Stats:
        """How often an answer was there already."""
        return self._cache.stats

    @property
    def pid(self) -> int | None:
        """The worker's process, None while there is none."""
        return self._worker.pid

    async def bars(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        bucket: str | None = None,
        column: str = "net_pnl",
        most: int = 1000,
    ) -> Bars:
        """Bars over [start, end); None is the first record, and the newest.

        Args:
            start: Aware; the minute that it is in counts whole.
            end: Aware.
            bucket: 1s, 10s, 1m, 5m, 15m, 1h, 1d, 1w or 1mo; None: the finest that makes no more than `most` of them.
            column: A money column, see `records.MONEY_FIELDS`.
            most: See `bucket`.

        Raises:
            HistoryError: It makes no sense, or nothing is recorded.
            HistoryDown: There was no answer within the deadline.
        """
        found = await self._ask("bars", **_range(start, end), bucket=bucket, column=column, most=most)
        return Bars(bucket=found["bucket"], **unpacked(found["columns"]))

    async def export(
        self, path: Path, start: datetime | None = None, end: datetime | None = None, *, bucket: str, column: str
    ) -> int:
        """Write bars to a Parquet file: `bucket_start`, money as decimals of US dollars, `count`; returns how many.

        Raises:
            HistoryError: See `bars`, or the file cannot be written.
        """
        asked = Question("export", {"path": str(path), "bucket": bucket, "column": column, **_range(start, end)})
        written: int = (await self._told(self._worker, asked))["rows"]
        return written

    async def archive(self, month: str, *, start_ms: int, until_ms: int) -> Mapping[str, Any]:
        """Write a month of raw snapshots to a Parquet file beside the store; returns `file`, `rows` and `net_micros`.

        Raises:
            HistoryError: It cannot be written, or does not hold what the store holds.
        """
        asked = Question("archive", {"month": month, "start_ms": start_ms, "until_ms": until_ms})
        return cast("Mapping[str, Any]", await self._told(self._worker, asked))

    async def booked(self, start: datetime | None = None, end: datetime | None = None) -> Booked:
        """What was booked in [start, end), from the records as they are known now.

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("booked", **_range(start, end))
        components = {name: Decimal(found["components"].get(name, 0)) for name in COMPONENTS}
        return Booked(components, _usd(found["open_before"]), _usd(found["open_after"]))

    async def breakdown(
        self, start: datetime | None = None, end: datetime | None = None, *, by: str = "source"
    ) -> tuple[Part, ...]:
        """What was booked in [start, end) by source, market, event, series, item, deal, day, month, weekday or hour.

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("breakdown", **_range(start, end), by=by)
        return tuple(map(_line, found["rows"]))

    async def drawdowns(
        self, start: datetime | None = None, end: datetime | None = None, *, most: int = 5
    ) -> Drawdowns:
        """The high-water mark and the deepest falls of net P&L in [start, end).

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("drawdowns", **_range(start, end), most=most)
        high, last = found["high"], found["last"]
        falls = tuple(_fall(*fall) for fall in found["falls"])
        return Drawdowns(_usd(high), _at(found["high_ms"]), None if high is None else _usd(high - last), falls)

    async def snapshot_at(self, moment: datetime, sources: tuple[str, ...]) -> Snapshot | None:
        """The snapshot that was shown at an instant; None before the first.

        Args:
            moment: Aware.
            sources: Whose states it should tell.

        Raises:
            HistoryError: See `bars`.
        """
        row = (await self._ask("snapshot_at", at_ms=to_ms(moment)))["row"]
        return None if row is None else to_snapshot(row, sources)

    async def ledger_at(self, moment: datetime) -> Ledger:
        """The trading account as its records were known at an instant.

        Raises:
            HistoryError: See `bars`.
        """
        rows = (await self._ask("records_at", at_ms=to_ms(moment)))["rows"]
        ledger = Ledger()
        ledger.add(map(to_fill, rows.get(FILLS.name, ())), map(to_settlement, rows.get(SETTLEMENTS.name, ())))
        return ledger

    async def sql(self, query: str, *, rows: int = 1000, seconds: float = 5.0) -> Table:
        """What a SELECT of one's own finds in the store's tables; it can change nothing and read nothing else.

        Args:
            query: One SELECT of DuckDB's SQL, over `pnl_snapshots`, `pnl_1m`, `kalshi_trades` and the others.
            rows: The most rows of the answer.
            seconds: How long it may take.

        Raises:
            HistoryError: With DuckDB's own words, or it is no SELECT, or took too long.
        """
        asked = Question("sql", {"query": query, "rows": rows, "seconds": seconds})
        found = await self._told(self._console, asked)
        return Table(tuple(found["names"]), [tuple(row) for row in found["rows"]], is_cut=found["is_cut"])

    async def _ask(self, kind: str, **values: Any) -> Any:
        """The answer to a question; whoever asks the same one meanwhile shares it."""
        if self._version is None:
            return await self._told(self._worker, Question(kind, values))
        question = Question(kind, values, self._version())
        key = f"history:{msgspec.json.encode(question).decode()}"
        cached = await self._cache.get(key, lambda: self._answered(self._worker, question), ttl_s=SHARED_S, stale_s=0)
        if cached.value is None:
            raise cached.error or HistoryDown("the history cannot be read now")
        return msgspec.msgpack.decode(cached.value)

    async def _told(self, worker: Worker, question: Question) -> Any:
        """A worker's answer to a question, for whoever asks alone."""
        return msgspec.msgpack.decode(await self._answered(worker, question))

    async def _answered(self, worker: Worker, question: Question) -> bytes:
        began = time.perf_counter()
        slow: list[tuple[str, float]] = []
        failed = True
        try:
            answer = await worker.ask(question)
            slow = answer.slow
            if answer.error is not None:
                raise HistoryError(answer.error)
            failed = False
        finally:
            took_s = time.perf_counter() - began
            self.queries.note(question.kind, took_s * 1000, failed=failed, slow=slow)
            self._on_query(question.kind, took_s)
        for statement, ms in slow:
            log.info("slow: %.0f ms for %s: %s", ms, question.kind, statement)
        return bytes(answer.value)


def _range(start: datetime | None, end: datetime | None) -> dict[str, int | None]:
    return {"start_ms": None if start is None else to_ms(start), "end_ms": None if end is None else to_ms(end)}


def _usd(micros: int | None) -> Decimal | None:
    return None if micros is None else to_usd(micros)


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else to_instant(ms * 1000)


def _line(row: Sequence[Any]) -> Part:
    name, *money, steps = row
    net, trading, fees, costs, revenue = map(Decimal, money)
    return Part(name, net, trading, fees, costs, revenue, steps)


def _fall(high: int, high_ms: int, low: int, low_ms: int, recovered_ms: int | None) -> Fall:
    return Fall(to_usd(high), to_instant(high_ms * 1000), to_usd(low), to_instant(low_ms * 1000), _at(recovered_ms))
