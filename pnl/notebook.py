"""For notebooks and scripts: the demo, a data folder or a recorded account with one call, and its answers as frames.

Money that is summed is exact (`Decimal`), money that is only drawn is a float, as ratios are; both in US dollars.
"""

import asyncio
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pandas as pd

from pnl.config import Settings, load_settings
from pnl.engine import Engine, history_of
from pnl.errors import HistoryError
from pnl.history.client import Bars, History, Underwater
from pnl.history.figures import Booked, Figures
from pnl.history.ranges import Range, parse_range
from pnl.history.wire import Column
from pnl.ledger import Book, Ledger
from pnl.metrics import MS, Metrics, Row, Spread
from pnl.model import PnLModel
from pnl.reconcile import Settled, settled
from pnl.records import MICRO
from pnl.simulator import RecordedAccount, Simulator
from pnl.simulator.demo import Demo, demo_settings
from pnl.sources import OWN

DEMO = "demo"
FOLLOW_S = 1.0
PATIENCE_S = 60.0
LOOKS = 20
USD = 1e6  # micro-dollars
REST = "everything else"
OF_DAYS = frozenset({"day", "month"})
MONEY = ("net_usd", "trading_usd", "fees_usd", "costs_usd", "revenue_usd")
COUNTS = ("fills", "wins", "losses")
SETTLED = (
    *("settled_at", "result", "fills", "row_realized_usd", "row_fees_usd", "fills_realized_usd", "fills_fees_usd"),
    *("realized_usd", "fees_usd", "gap_usd", "oddity"),
)
RATIOS = ("win_rate", "break_even_win_rate", "cost_per_fill_usd")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """An account that is open: `model` has the numbers of now, `history` answers about the past.

    The frames are of a range as somebody would type it (`all`, `30d`, `2026-07`, see `parse_range`). `metrics` is empty
    for a data folder: what is measured there is in the process that records.
    """

    model: PnLModel
    history: History
    metrics: Metrics
    zone: ZoneInfo
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)

    async def aclose(self) -> None:
        """Stop polling, close everything."""
        await self._opened.aclose()

    def range(self, text: str) -> Range:
        """What somebody means who types this.

        Raises:
            HistoryError: It means nothing.
        """
        return parse_range(text, zone=self.zone, now=datetime.now(UTC))

    async def bars(self, within: str = "all", *, bucket: str | None = None, column: str = "net_pnl") -> pd.DataFrame:
        """Bars of a money column, see `History.bars` and `bars_frame`."""
        span = self.range(within)
        return bars_frame(await self.history.bars(span.start, span.end, bucket=bucket, column=column), self.zone)

    async def underwater(self, within: str = "all") -> pd.DataFrame:
        """How far net P&L was below its high-water mark, see `History.underwater`.

        Returns:
            A row for each bucket. Index `start`, in the reporting time zone; `high` and `under` (float, US dollars).
        """
        span = self.range(within)
        return _drawn(await self.history.underwater(span.start, span.end), ("high", "under"), self.zone)

    async def falls(self, within: str = "all", *, most: int = 5) -> pd.DataFrame:
        """The deepest falls of net P&L, the deepest first; what was not made good yet has no `recovered_at`."""
        span = self.range(within)
        found = (await self.history.drawdowns(span.start, span.end, most=most)).falls
        instants = [[_local(at, self.zone) for at in (fall.high_at, fall.low_at, fall.recovered_at)] for fall in found]
        frame = pd.DataFrame(instants, columns=["high_at", "low_at", "recovered_at"])
        frame.insert(0, "depth_usd", [fall.depth_usd for fall in found])
        return frame

    async def parts(self, by: str = "source", within: str = "all") -> pd.DataFrame:
        """What was booked, broken down, see `History.breakdown` and `figures_frame`; days and months are dates."""
        span = self.range(within)
        found = await self.history.breakdown(span.start, span.end, by=by)
        frame = figures_frame([(part.name or REST, part) for part in found], by)
        return frame.set_axis(pd.DatetimeIndex(frame.index, name=by)) if by in OF_DAYS else frame

    async def ledger(self) -> Ledger:
        """Every market as its records are known now."""
        return await self.history.ledger_at(datetime.now(UTC))

    async def books(self) -> tuple[Ledger, Booked]:
        """Every market, and what the history has booked, both from the same trades though more may come meanwhile.

        Raises:
            HistoryError: Trades came in whenever it looked.
        """
        before = await self.history.booked()
        for _ in range(LOOKS):
            ledger, after = await self.ledger(), await self.history.booked()
            if _traded(before) == _traded(after):
                return ledger, after
            before = after
        raise HistoryError("trades come in too fast to compare what is made of them; try again in a quieter moment")

    async def sql(self, query: str, *, rows: int = 1000) -> pd.DataFrame:
        """What a SELECT of one's own finds, see `History.sql`; warns when there are more rows than these."""
        found = await self.history.sql(query, rows=rows)
        if found.is_cut:
            warnings.warn(f"only the first {rows} rows; ask for more with rows=", stacklevel=2)
        return pd.DataFrame(found.rows, columns=list(found.names))

    def checklist(self) -> pd.DataFrame:
        """The latency checklist as it stands, see `metrics.Row`; a row that was not measured has no figures."""
        rows = self.metrics.checklist.rows()
        index = pd.Index([row.target.title for row in rows], name="step")
        return pd.DataFrame(list(map(_checklist_row, rows)), index=index)

    def spans(self) -> pd.DataFrame:
        """Where the program's time went, by span, in milliseconds."""
        spreads = self.metrics.spans.spreads()
        return pd.DataFrame(list(map(_in_ms, spreads.values())), index=pd.Index(list(spreads), name="span"))


def _traded(booked: Booked) -> tuple[object, ...]:
    """What a fill or a settlement changes, and neither a price nor the estimate of a day's costs."""
    return booked.trading_usd, booked.fees_usd, booked.fills, booked.closes


async def open_desk(account: Path | str = DEMO) -> Desk:
    """Open an account; close it with `aclose`, or with `contextlib.aclosing` around the block.

    Args:
        account: `demo`: the simulated market, polled as a real one is. A folder with `fills.csv` and `settlements.csv`:
            that recorded account, read once through the same APIs. Both are kept in a folder that goes away again. Any
            other folder: what `pnl` recorded in it, followed while a dashboard goes on and never changed.

    Raises:
        HistoryError: Nothing is recorded in the folder.
        SimulatorError: The recorded account makes no sense.
        ConfigError: A setting makes no sense.
    """
    async with AsyncExitStack() as opened:
        if account == DEMO:
            desk = await _demo(opened)
        elif (Path(account) / "fills.csv").is_file():
            desk = await _recorded(Path(account), opened)
        else:
            desk = await _followed(Path(account), opened)
        return replace(desk, _opened=opened.pop_all())


async def _demo(opened: AsyncExitStack) -> Desk:
    engine = await opened.enter_async_context(Demo(_settings(opened)))
    await engine.sync()
    engine.start()
    return await _desk(engine.model, engine.metrics, engine.settings, opened)


async def _recorded(folder: Path, opened: AsyncExitStack) -> Desk:
    simulator = await opened.enter_async_context(Simulator(RecordedAccount(folder)))
    engine = await opened.enter_async_context(Engine(demo_settings(_settings(opened), simulator)))
    await engine.sync()
    return await _desk(engine.model, engine.metrics, engine.settings, opened)


async def _followed(folder: Path, opened: AsyncExitStack) -> Desk:
    settings = load_settings(data_dir=folder, store_url=None, store_read_url=None)
    desk = await _desk(PnLModel(mark=settings.kalshi_mark), Metrics(), settings, opened)
    await _show_newest(desk)
    following = asyncio.create_task(_follow(desk), name="notebook-follow")
    opened.push_async_callback(_stopped, following)
    return desk


def _settings(opened: AsyncExitStack) -> Settings:
    return load_settings(data_dir=Path(opened.enter_context(TemporaryDirectory(prefix="pnl-"))))


async def _desk(model: PnLModel, metrics: Metrics, settings: Settings, opened: AsyncExitStack) -> Desk:
    """With a history of its own: in a notebook one would rather wait than hear that there was no answer yet."""
    history = await opened.enter_async_context(history_of(settings, deadline_s=PATIENCE_S))
    return Desk(model, history, metrics, settings.zone)


async def _follow(desk: Desk) -> None:
    """Ask the history's process for what is new: this one need not open the store then."""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            await _show_newest(desk)
        except HistoryError as error:
            log.warning("%s", error)


async def _show_newest(desk: Desk) -> None:
    shown, newest = desk.model.snapshot, await desk.history.snapshot_at(datetime.now(UTC), OWN)
    if newest is not None and (shown is None or shown.taken_at != newest.taken_at):
        says = f"As it was recorded at {newest.taken_at.astimezone(desk.zone):%Y-%m-%d %H:%M:%S %Z}."
        desk.model.show_recorded(replace(newest, notes=(says, *newest.notes)))


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def bars_frame(bars: Bars, zone: tzinfo) -> pd.DataFrame:
    """Bars as a frame.

    Returns:
        A row for each bar, oldest first. Index `start`, in the time zone; `open`, `high`, `low`, `close` and `mean`
        (float, US dollars), `count` of snapshots, and `rebuilt`, see `Bars`.
    """
    frame = _drawn(bars, ("open", "high", "low", "close", "mean"), zone)
    return frame.assign(count=bars.count, rebuilt=bars.rebuilt)


def _drawn(found: Bars | Underwater, money: Iterable[str], zone: tzinfo) -> pd.DataFrame:
    usd = {name: getattr(found, name) / USD for name in money}
    return pd.DataFrame(usd, index=_instants(found.start, zone))


def _instants(ms: Column, zone: tzinfo) -> pd.DatetimeIndex:
    return pd.to_datetime(ms, unit="ms", utc=True).tz_convert(zone).rename("start")


def figures_frame(figures: Sequence[tuple[str, Figures]], name: str = "") -> pd.DataFrame:
    """Figures as a frame, a row for each, by their names.

    Returns:
        Index `name`. `net_usd`, `trading_usd`, `fees_usd`, `costs_usd` and `revenue_usd`, exact: parts sum to their
        whole; `fills`, `wins` and `losses`; `win_rate`, `break_even_win_rate` (0-1) and `cost_per_fill_usd`, floats,
        NaN where they make no sense. See `Figures`.
    """
    index = pd.Index([named for named, _ in figures], name=name, dtype=object)
    rows = [_figures_row(each) for _, each in figures]
    return pd.DataFrame(rows, index=index, columns=[*MONEY, *COUNTS, *RATIOS])


def _figures_row(figures: Figures) -> list[object]:
    money = (_tidy(getattr(figures.exact, column)) for column in MONEY)
    ratios = (getattr(figures, column) for column in RATIOS)
    return [
        *money,
        *(getattr(figures, column) for column in COUNTS),
        *(math.nan if ratio is None else float(ratio) for ratio in ratios),
    ]


def _tidy(usd: Decimal) -> Decimal:
    """The same amount without a tail of zeros."""
    rounded = usd.quantize(MICRO)
    return rounded if rounded == usd else usd.normalize()


def settlements_frame(ledger: Ledger) -> pd.DataFrame:
    """Every settled market: what its settlement says beside what its fills make.

    Returns:
        Index `ticker`. `settled_at` (UTC), `result`, `fills` (how many); exact, and None where nothing is told,
        `row_realized_usd`, `row_fees_usd`, `fills_realized_usd`, `fills_fees_usd`, and what counts in the end,
        `realized_usd` and `fees_usd`; `gap_usd`, see `Settled`, and `oddity` in words.
    """
    found = list(settled(ledger))
    index = pd.Index([one.book.ticker for one in found], name="ticker", dtype=object)
    return pd.DataFrame(list(map(_settled_row, found)), index=index, columns=list(SETTLED))


def _settled_row(one: Settled) -> dict[str, object]:
    return {
        "settled_at": one.row.settled_at,
        "result": one.row.result.value,
        "fills": one.book.fill_count,
        **_made("row_", one.by_row),
        **_made("fills_", one.by_fills),
        **_made("", one.book),
        "gap_usd": None if one.gap_usd is None else _tidy(one.gap_usd),
        "oddity": one.book.oddity or "",
    }


def _made(by: str, book: Book | None) -> dict[str, Decimal | None]:
    realized, fees = (None, None) if book is None else (_tidy(book.realized_usd), _tidy(book.fees_usd))
    return {f"{by}realized_usd": realized, f"{by}fees_usd": fees}


def _checklist_row(row: Row) -> dict[str, float | str]:
    own_s = math.nan if row.target.own_s is None else row.target.own_s
    return {
        **_in_ms(row.spread),
        "target_ms": row.target.target_s * MS,
        "verdict": row.verdict,
        "own_target_ms": own_s * MS,
        "own_verdict": row.own_verdict or "",
    }


def _in_ms(spread: Spread | None) -> dict[str, float]:
    names = ("p50", "p95", "p99", "max")
    if spread is None:
        return {"count": 0, **{f"{name}_ms": math.nan for name in names}}
    return {"count": spread.count, **{f"{name}_ms": getattr(spread, f"{name}_s") * MS for name in names}}


def _local(moment: datetime | None, zone: tzinfo) -> datetime | None:
    return None if moment is None else moment.astimezone(zone)
