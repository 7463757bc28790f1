"""Stores as the writer makes them, for tests that ask about the past; and the answers in plain Python.

The process of the tests only writes: DuckDB, which answers, runs in the history's own.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from pnl.model import PnLModel
from pnl.records import EPOCH, MONEY_FIELDS, Batch, Cost, CostDay, Deal, Fill, Result, Settlement, Snapshot
from pnl.rows import to_ms
from pnl.store import Change, Store

KIND = "simulated"
NOON = datetime(2026, 11, 20, 17, tzinfo=UTC)  # in New York
MINUTE_MS = 60_000
LENGTHS_MS = {"1s": 1_000, "10s": 10_000, "1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000}
LENGTHS_MS |= {"4h": 14_400_000, "12h": 43_200_000}
CALENDAR = ("1d", "1w", "1mo")
PARTS = ("open", "high", "low", "close", "mean", "count")


def at_ms(ms):
    """The instant of milliseconds since the epoch."""
    return EPOCH + timedelta(milliseconds=ms)


def writing(folder):
    """A store that commits as fast as it can."""
    return Store(folder, kind=KIND, commit_ms=0, synchronous="NORMAL")


async def record(store, *changes):
    """Append changes and wait until they are on disk."""
    await asyncio.gather(*(asyncio.wrap_future(store.append(change)) for change in changes))


async def recorded(folder, *changes):
    """Write changes to a folder and close it; returns its file."""
    async with writing(folder) as store:
        await record(store, *changes)
    return store.path


def snapshot(ms, *micros):
    """A snapshot at an instant, of realized, unrealized, fees, billed, estimated and revenue in micro-dollars."""
    money = [Decimal(each).scaleb(-6) for each in (*micros, *[0] * (6 - len(micros)))]
    return Snapshot(at_ms(ms), *money, 0, 0, 0, sources=())


def figures(ms, *micros):
    """The same snapshot's money columns, worked out beside it."""
    realized, unrealized, fees, billed, estimated, revenue = (*micros, *[0] * (6 - len(micros)))
    kalshi, costs = realized + unrealized - fees, billed + estimated
    values = (kalshi - costs + revenue, kalshi, realized, unrealized, fees, costs, billed, estimated, revenue)
    return ms, dict(zip(MONEY_FIELDS, values, strict=True))


def bucket_start(bucket, ms, zone):
    """Where the bucket begins that an instant is in, in ms since the epoch."""
    if bucket in LENGTHS_MS:
        return ms // LENGTHS_MS[bucket] * LENGTHS_MS[bucket]
    day = at_ms(ms).astimezone(zone).date()
    first = {"1d": day, "1w": day - timedelta(days=day.weekday()), "1mo": day.replace(day=1)}[bucket]
    return to_ms(datetime(first.year, first.month, first.day, tzinfo=zone))


def aggregated(points, column, bucket, zone, start_ms=None, end_ms=None):  # noqa: PLR0917 - as the questions are asked
    """The bars of points in order of time, each `(ms, figures)`: start, open, high, low, close, mean and count."""
    if bucket not in ("1s", "10s"):  # minutes count whole
        start_ms = None if start_ms is None else start_ms // MINUTE_MS * MINUTE_MS
        end_ms = None if end_ms is None else -(-end_ms // MINUTE_MS) * MINUTE_MS
    buckets = {}
    for ms, values in points:
        if (start_ms is None or ms >= start_ms) and (end_ms is None or ms < end_ms):
            buckets.setdefault(bucket_start(bucket, ms, zone), []).append(values[column])
    return [
        (start, some[0], max(some), min(some), some[-1], sum(some) // len(some), len(some))
        for start, some in sorted(buckets.items())
    ]


def as_rows(bars):
    """Bars as `aggregated` gives them."""
    return list(zip(bars.start.tolist(), *(getattr(bars, part).tolist() for part in PARTS), strict=True))


def instant(text, zone="America/New_York"):
    """An instant by the wall clock of a time zone."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def fill(fill_id, ticker, side, count, price, filled_at, fee="0.07"):  # noqa: PLR0917 - as a venue tells it
    """A fill from texts."""
    return Fill(fill_id, ticker, side, Decimal(count), Decimal(price), Decimal(fee), is_taker=True, filled_at=filled_at)


def settlement(ticker, settled_at, result=Result.YES):
    """The end of a market of which only the result is known; its fills say what was held."""
    event = ticker.rpartition("-")[0]
    return Settlement(ticker, event, result, *map(Decimal, "000000"), None, settled_at)


def cost_day(day, *usd, is_estimate=False, source="anthropic"):
    """A day's costs, a line per amount."""
    lines = tuple(Cost(source, day, f"model {n} Ω", Decimal(each), is_estimate) for n, each in enumerate(usd))
    return CostDay(source, day, lines, is_estimate=is_estimate)


def deal(deal_id, usd, closed_on, *, status="paid", fee="0", updated_at=None, origin="deals:x"):
    """A deal; `updated_at` is when it closed unless told."""
    updated_at = updated_at or datetime.combine(closed_on, datetime.min.time(), UTC)
    return Deal(origin, deal_id, Decimal(usd), status, closed_on, updated_at, "", Decimal(fee))


def a_business():
    """A market that was won after fees, one that is open, two days of costs and a deal."""
    first, second = (
        fill(f"f{n}", ticker, "yes", "10", "0.40", NOON) for n, ticker in enumerate(("KXA-1-1", "KXB-1-1"))
    )
    return Batch(
        fills=(first, second),
        settlements=(settlement("KXA-1-1", NOON),),
        cost_days=(cost_day(date(2026, 11, 19), "1.25"), cost_day(date(2026, 11, 20), "0.0000005")),
        deals=(deal("everything else", "100", date(2026, 11, 20)),),
    )


class Bookkeeper:
    """The model without its sources: takes batches in and puts each together with the snapshot that includes it."""

    def __init__(self):
        self.now = EPOCH
        self.model = PnLModel(now=lambda: self.now)

    def change(self, now, batch=None, origin="kalshi"):
        """One poll's change at an instant, as the engine gives it to the store."""
        self.now = now
        batch = batch or Batch()
        self.model._take_in(batch, origin=origin)
        shown = self.model.put_together()
        return Change(shown, origin, batch, now, known_at=shown.taken_at)

    def without_snapshot(self, now, batch, origin="kalshi"):
        """The same, recorded before there was a snapshot that is worth it."""
        return replace(self.change(now, batch, origin), snapshot=None)

    @property
    def total_usd(self):
        """What has been booked, without open P&L."""
        shown = self.model.put_together()
        return shown.net_pnl - shown.kalshi_unrealized
