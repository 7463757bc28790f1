"""The history as the rest of the program asks for it: questions with types, answers in US dollars."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, cast

import msgspec
from pydantic import SecretStr

from pnl.cache import Cache, Stats
from pnl.errors import HistoryDown, HistoryError
from pnl.history.dimensions import Filters
from pnl.history.figures import Booked, Drawdowns, Fall, Figures, Part, Posting, Postings, Version
from pnl.history.monitor import QueryMonitor
from pnl.history.process import DEADLINE_S, Worker
from pnl.history.wire import Column, Counted, Database, Opening, Question, unpacked
from pnl.journal import COMPONENTS
from pnl.ledger import Ledger
from pnl.records import Snapshot
from pnl.rows import to_fill, to_instant, to_ms, to_settlement, to_snapshot, to_usd
from pnl.schema import FILLS, SETTLEMENTS
from pnl.store.address import Address

SHARED_S = 60.0
SHARED_ANSWERS = 64  # older versions are never asked for again: more would only grow, by 40 kB an answer
EXPORT_S = 300.0
FIRST_TIMES = 12  # as many deadlines has the first answer: before it, all that is recorded is read

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
class Underwater:
    """How far net P&L was below its high-water mark: `start` in ms since the epoch, money in whole micro-dollars.

    `high` is the mark at the end of a bucket, `under` the deepest below it in the bucket, never above zero.
    """

    bucket: str
    start: Column
    high: Column
    under: Column

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a query of one's own; `is_cut` when there were more rows. Decimals and instants are texts."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    is_cut: bool


class History:
    """The history of one data folder; `async with`. The worker is started by the first question, or by `start`.

    Args:
        path: The store's file.
        kind: Whether it has to hold `real` or `simulated` numbers; None: any.
        zone: Name of the time zone where days begin.
        counted: Whose records count.
        database: Where the records are, if not in that file; the archive is beside the file in any case.
        deadline_s: Seconds within which every question is answered or fails; twelve times as many for the first one,
            and for the first one after the worker had to be started anew.
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
        database: Database | None = None,
        deadline_s: float = DEADLINE_S,
        version: Callable[[], object] | None = None,
        on_query: Callable[[str, float], None] = lambda _kind, _seconds: None,
    ) -> None:
        self._opening = Opening(str(path), kind, zone, counted or Counted(), database=database)
        self._worker = Worker(self._opening, deadline_s=deadline_s, first_s=FIRST_TIMES * deadline_s)
        self._console = Worker(msgspec.structs.replace(self._opening, room="console"), deadline_s=deadline_s)
        self._writer: Worker | None = None
        self._exports = asyncio.Lock()
        self._is_closed = False
        self._version = version
        self._on_query = on_query
        self._cache = Cache(None, entries=SHARED_ANSWERS, ttl_s=SHARED_S)
        self.queries = QueryMonitor()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Have the worker begin, for somebody who will ask in a moment; there need not be a store yet.

        Raises:
            HistoryDown: It is closed.
        """
        await self._worker.start()

    async def aclose(self) -> None:
        """Stop the workers; whoever waits for an answer is told."""
        self._is_closed = True
        for worker in self._workers:
            await worker.aclose()

    def kill(self) -> None:
        """Stop the workers, where nothing can be awaited any more."""
        self._is_closed = True
        for worker in self._workers:
            worker.kill()

    @property
    def _workers(self) -> list[Worker]:
        return [each for each in (self._worker, self._console, self._writer) if each is not None]

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
        filters: Filters = (),
    ) -> Bars:
        """Bars over [start, end); None is the first record, and the newest.

        Args:
            start: Aware; the minute that it is in counts whole.
            end: Aware.
            bucket: 1s, 10s, 1m, 5m, 15m, 1h, 1d, 1w or 1mo; None: the finest that makes no more than `most` of them.
            column: A money column, see `records.MONEY_FIELDS`.
            most: See `bucket`.
            filters: Of the postings that count, see `ledger`; bars are then made of these alone.

        Raises:
            HistoryError: It makes no sense, or nothing is recorded.
            HistoryDown: There was no answer within the deadline.
        """
        found = await self._ask("bars", **_range(start, end), bucket=bucket, column=column, most=most, filters=filters)
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

    async def booked(
        self, start: datetime | None = None, end: datetime | None = None, *, filters: Filters = (), search: str = ""
    ) -> Booked:
        """What was booked in [start, end), from the records as they are known now; filters as in `ledger`.

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("booked", **_range(start, end), filters=filters, search=search)
        opens = {f"open_{end}_usd": _usd(found[f"open_{end}"]) for end in ("before", "after")}
        return Booked.of(found["sums"], **opens)

    async def breakdown(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        by: str = "source",
        filters: Filters = (),
        search: str = "",
    ) -> tuple[Part, ...]:
        """What was booked in [start, end) by one of `postings.DIMENSIONS`; filters as in `ledger`.

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("breakdown", **_range(start, end), by=by, filters=filters, search=search)
        return tuple(Part.of(row, name=name, text=text) for name, text, *row in found["rows"])

    async def ledger(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        filters: Filters = (),
        search: str = "",
        term: str = "net",
        order: str = "time",
        descending: bool = True,
        first: int = 0,
        count: int = 100,
    ) -> Postings:
        """What each record in [start, end) did to the P&L, some rows of it, and the sum of all.

        Args:
            start: Aware; None is the first record.
            end: Aware; None is the newest.
            filters: Pairs of a dimension and the name of one of its parts (None: of none), see `breakdown`; a row has
                to pass all of them.
            search: A text that a row has to hold.
            term: Whose share a row's amount is: net, trading, fees, costs, billed, estimated or revenue.
            order: By time, amount, source, what, side, contracts or price.
            descending: The largest, or newest, first.
            first: How many rows to skip.
            count: How many rows, 10,000 at most.

        Raises:
            HistoryError: See `bars`.
        """
        wanted = {"order": order, "descending": descending, "first": first, "count": count}
        found = await self._ask("ledger", **_range(start, end), filters=filters, search=search, term=term, **wanted)
        rows = tuple(map(_posting, found["rows"]))
        return Postings(Decimal(found["amount"]), Figures.of(found["sums"]), rows)

    async def export_ledger(
        self,
        path: Path,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        form: str | None = None,
        filters: Filters = (),
        search: str = "",
        term: str = "net",
    ) -> int:
        """Write all rows that `ledger` finds to a file, oldest first; returns how many.

        One file at a time; but for Parquet a process of its own makes it, which has ended when this returns.

        Args:
            path: The file; one that is there is replaced once the new one is whole.
            start: See `ledger`.
            end: See `ledger`.
            form: csv, json, xlsx or parquet; None: as the file's name ends.
            filters: See `ledger`.
            search: See `ledger`.
            term: See `ledger`.

        Raises:
            HistoryError: See `bars`, or the file cannot be written, or a workbook has no room for so many.
        """
        form = path.suffix.removeprefix(".").lower() if form is None else form
        chosen = {"form": form, **_range(start, end), "filters": filters, "search": search, "term": term}
        async with self._exports:
            try:
                with TemporaryDirectory(prefix=".pnl-", dir=path.parent) as folder:
                    file, rows = await self._exported(Path(folder), chosen)
                    await asyncio.to_thread(file.replace, path)
            except OSError as error:
                raise HistoryError(f"{path.name} cannot be written: {error.strerror}") from None
        return rows

    async def _exported(self, folder: Path, chosen: Mapping[str, Any]) -> tuple[Path, int]:
        """A file in a folder, and how many rows it has."""
        parquet, other = folder / "ledger.parquet", folder / "ledger"
        found = await self._uninterrupted(Question("export_ledger", {"path": str(parquet), **chosen}))
        if chosen["form"] == "parquet":
            return parquet, found["rows"]
        if self._is_closed:
            raise HistoryDown("the history is closed")
        wanted = {"source": str(parquet), "path": str(other), "form": chosen["form"], **found}
        self._writer = Worker(msgspec.structs.replace(self._opening, room="files"), deadline_s=EXPORT_S)
        try:
            await self._told(self._writer, Question("write_ledger", wanted))
        finally:
            await self._writer.aclose()
        return other, found["rows"]

    async def record(self, kind: str, name: str) -> tuple[Version, ...]:
        """The record behind a row of the ledger, every version of it, the newest first.

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("record", kind=kind, name=name)
        return tuple(
            Version(
                version["table"],
                tuple((column, value) for column, value in version["values"]),
                to_instant(version["since_ms"] * 1000),
                _at(version["until_ms"]),
            )
            for version in found["versions"]
        )

    async def drawdowns(
        self, start: datetime | None = None, end: datetime | None = None, *, most: int = 5, filters: Filters = ()
    ) -> Drawdowns:
        """The high-water mark and the deepest falls of net P&L in [start, end).

        Raises:
            HistoryError: See `bars`.
        """
        found = await self._ask("drawdowns", **_range(start, end), most=most, filters=filters)
        high, last = found["high"], found["last"]
        falls = tuple(_fall(*fall) for fall in found["falls"])
        return Drawdowns(_usd(high), _at(found["high_ms"]), None if high is None else _usd(high - last), falls)

    async def underwater(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        since: datetime | None = None,
        filters: Filters = (),
        most: int = 1000,
    ) -> Underwater:
        """How far net P&L was below its high-water mark, in no more than `most` buckets over [start, end).

        Args:
            start: See `bars`.
            end: See `bars`.
            since: From when on the mark is the highest; None: from `start`.
            filters: See `bars`.
            most: See `bars`.

        Raises:
            HistoryError: See `bars`.
        """
        since_ms = None if since is None else to_ms(since)
        found = await self._ask("underwater", **_range(start, end), since_ms=since_ms, most=most, filters=filters)
        return Underwater(bucket=found["bucket"], **unpacked(found["columns"]))

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

    async def _ask(self, kind: str, /, **values: Any) -> Any:
        """The answer to a question; whoever asks the same one meanwhile shares it."""
        if self._version is None:
            return await self._told(self._worker, Question(kind, values))
        question = Question(kind, values, self._version())
        key = f"history:{msgspec.json.encode(question).decode()}"
        cached = await self._cache.get(key, lambda: self._answered(self._worker, question), ttl_s=SHARED_S, stale_s=0)
        if cached.value is None:
            raise cached.error or HistoryDown("the history cannot be read now")
        return msgspec.msgpack.decode(cached.value)

    async def _uninterrupted(self, question: Question) -> Any:
        """The worker's answer, finished also for somebody who leaves: stopped, it would have to read all anew."""
        asked = asyncio.create_task(self._told(self._worker, question, deadline_s=EXPORT_S))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.gather(asked, return_exceptions=True)
            raise

    async def _told(self, worker: Worker, question: Question, *, deadline_s: float | None = None) -> Any:
        """A worker's answer to a question, for whoever asks alone."""
        return msgspec.msgpack.decode(await self._answered(worker, question, deadline_s=deadline_s))

    async def _answered(self, worker: Worker, question: Question, *, deadline_s: float | None = None) -> bytes:
        began = time.perf_counter()
        slow: list[tuple[str, float]] = []
        failed = True
        try:
            answer = await worker.ask(question, deadline_s=deadline_s)
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


def database_at(url: SecretStr) -> Database:
    """A database in the place of the store's file."""
    address = Address.of(url)
    return Database(str(address), {**address.parameters, "application_name": "pnl-history"}, address.password)


def _range(start: datetime | None, end: datetime | None) -> dict[str, int | None]:
    return {"start_ms": None if start is None else to_ms(start), "end_ms": None if end is None else to_ms(end)}


def _usd(micros: int | None) -> Decimal | None:
    return None if micros is None else to_usd(micros)


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else to_instant(ms * 1000)


def _posting(row: Sequence[Any]) -> Posting:
    kind, source, record, at_us, key, text, side, contracts, price, *amounts = row
    *parts, amount, running = map(Decimal, amounts)
    return Posting(
        *(kind, source, record, to_instant(at_us), key, text, side),
        contracts=None if contracts is None else Decimal(contracts),
        price_usd=None if price is None else Decimal(price),
        usd=dict(zip(COMPONENTS, parts, strict=True)),
        amount_usd=amount,
        running_usd=running,
    )


def _fall(high: int, high_ms: int, low: int, low_ms: int, recovered_ms: int | None) -> Fall:
    return Fall(to_usd(high), to_instant(high_ms * 1000), to_usd(low), to_instant(low_ms * 1000), _at(recovered_ms))
