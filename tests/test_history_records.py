"""What was before the first snapshot, what was booked when, and what was known at an instant: from the records."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import (
    KIND,
    Bookkeeper,
    as_rows,
    at_ms,
    bucket_start,
    cost_day,
    deal,
    fill,
    instant,
    record,
    recorded,
    settlement,
    writing,
)

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.history.wire import Counted
from pnl.journal import postings, steps_of
from pnl.ledger import Ledger, event_of, series_of
from pnl.records import MICRO, MONEY_FIELDS, ZERO, Batch, Mark, Result, State
from pnl.rows import micros, to_instant, to_ms
from pnl.simulator import RecordedAccount, Simulator
from pnl.simulator.demo import demo_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for many questions

NEW_YORK = ZoneInfo("America/New_York")
TODAY = date(2026, 11, 20)
FIRST = instant("2026-11-20 15:20:30.500")  # of the first snapshot
THAT_MINUTE = FIRST.replace(second=0, microsecond=0)
A, B, C = "KXA-26NOV-T1", "KXA-26NOV-T2", "KXB-26OCT-X"
A_MINUTE = timedelta(minutes=1)


def asking(path, **changes):
    return History(path, **{"kind": KIND, "zone": "America/New_York", "deadline_s": 60} | changes)


def mark(ticker, bid, ask):
    return Mark(ticker, Decimal(bid), Decimal(ask), FIRST)


def trading_before():
    """Fills and settlements over both sides of the autumn change, one position still open."""
    return Batch(
        fills=(
            fill("f-1", C, "yes", "10", "0.40", instant("2026-10-30 23:59:59.999999")),
            fill("f-2", C, "no", "4", "0.70", instant("2026-11-01 01:30:00.000001")),
            fill("f-3", A, "yes", "100", "0.2505", instant("2026-11-10 12:00"), fee="1.313900"),
            fill("f-4", A, "no", "30", "0.3101", instant("2026-11-20 09:00:10"), fee="0.45"),
            fill("f-5", B, "no", "7.77", "0.15", instant("2026-11-20 15:19:59"), fee="0.01"),
        ),
        settlements=(settlement(C, instant("2026-11-02 00:00:00"), Result.NO),),
        marks=(mark(A, "0.30", "0.32"), mark(B, "0.10", "0.14")),
    )


def costs_before():
    return Batch(
        cost_days=(
            cost_day(date(2026, 11, 1), "1.2378912", "0.0000004"),
            cost_day(date(2026, 11, 19), "3.5", "0.25"),
            cost_day(TODAY, "0.75", is_estimate=True),
            cost_day(TODAY + timedelta(days=1), "0.11", is_estimate=True),  # UTC is a day ahead in the evening
        )
    )


def deals_before():
    return Batch(deals=(deal("d-1", "1200.5", date(2026, 11, 3), fee="35.01"), deal("d-2", "80", TODAY)))


def begin(books):
    """Give the changes of a first start: three polls that bring all there is, and the first snapshot with the last."""
    return [
        books.without_snapshot(FIRST - timedelta(seconds=2), trading_before()),
        books.without_snapshot(FIRST - timedelta(seconds=1), costs_before(), "anthropic"),
        books.change(FIRST, deals_before(), "deals:x"),
    ]


def by_hand(batches, zone=NEW_YORK):
    """Give the steps of these records."""
    return steps_of(posted(batches, zone))


def posted(batches, zone=NEW_YORK):
    """Give what each of these records did to the P&L."""
    ledger = Ledger()
    for batch in batches:
        ledger.add(batch.fills, batch.settlements)
    costs = [day for batch in batches for day in batch.cost_days]
    return postings(ledger, costs, [each for batch in batches for each in batch.deals], zone)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first_start(tmp_path_factory):
    """Give what was shown first, and the history behind it."""
    books = Bookkeeper()
    changes = begin(books)
    path = await recorded(tmp_path_factory.mktemp("first"), *changes)
    async with asking(path) as history:
        yield changes[-1].snapshot, history


async def test_the_line_before_the_first_snapshot_is_rebuilt_from_the_records(first_start):
    """Marked so, minute by minute, each opening where the one before it closed; the change of clocks is no gap."""
    _, history = first_start
    steps = by_hand([trading_before(), costs_before(), deals_before()])
    last_minute = to_ms(FIRST) // 60_000 - 1
    states, net = {}, ZERO
    for step in steps:
        net += step.net_usd
        states[min(to_ms(step.at) // 60_000, last_minute) * 60_000] = net

    bars = await history.bars(bucket="1m")

    assert bars.rebuilt.tolist() == [True] * len(states) + [False]
    assert bars.start.tolist() == [*states, to_ms(FIRST) // 60_000 * 60_000]
    rounded = [bar - micros(usd) for bar, usd in zip(bars.close.tolist(), states.values(), strict=False)]
    assert all(abs(off) <= 3 for off in rounded)  # each part of a snapshot is rounded alone
    assert bars.open.tolist()[0] == 0
    assert bars.open.tolist()[1:-1] == bars.close.tolist()[:-2]


async def test_the_rebuilt_line_ends_where_the_snapshots_begin(first_start):
    """But for open P&L, of which nothing is known before, no money column jumps at the join."""
    shown, history = first_start
    assert shown.kalshi_unrealized != 0

    for column in MONEY_FIELDS:
        bars = await history.bars(bucket="1m", column=column)
        with_open_pnl = column in ("net_pnl", "kalshi_pnl", "kalshi_unrealized")
        open_micros = micros(shown.kalshi_unrealized) if with_open_pnl else 0
        assert bars.close.tolist()[-2] == bars.open.tolist()[-1] - open_micros
        assert bars.open.tolist()[-1] == micros(getattr(shown, column))


def told(bars):
    parts = ("start", "open", "high", "low", "close", "rebuilt", "count")
    return zip(*(getattr(bars, part).tolist() for part in parts), strict=True)


@pytest.mark.parametrize("bucket", ["1s", "10s", "5m", "15m", "1h", "4h", "12h", "1d", "1w", "1mo"])
async def test_coarser_rebuilt_bars_are_made_of_the_minutes(first_start, bucket):
    """Both parts of the line in one bar where they meet; it is marked, and its sums are of both."""
    _, history = first_start
    minutes = await history.bars(bucket="1m")
    expected = {}
    for start, opened, high, low, close, rebuilt, count in told(minutes):
        at = bucket_start(bucket, start if rebuilt else to_ms(FIRST), NEW_YORK)
        bar = expected.get(at, (at, opened, high, low, close, rebuilt, 0))
        expected[at] = (at, bar[1], max(bar[2], high), min(bar[3], low), close, bar[5] or rebuilt, bar[6] + count)

    bars = await history.bars(bucket=bucket)

    assert list(told(bars)) == list(expected.values())


@pytest.mark.parametrize("bucket", ["1s", "10s", "1m"])
async def test_ranges_that_touch_share_no_rebuilt_minute_and_miss_none(first_start, bucket):
    """Half-open there too: each range from one change to the next has that one alone."""
    _, history = first_start
    starts = [at_ms(ms) for ms in (await history.bars(bucket="1m")).start.tolist()]

    for start, end in pairwise(starts):
        bars = await history.bars(start, end, bucket=bucket)
        assert bars.start.tolist() == [to_ms(start)]
        assert bars.rebuilt.all()


async def test_days_and_months_sum_to_what_is_shown(first_start):
    """Booked, rebuilt and shown are one sum."""
    shown, history = first_start
    total_usd = shown.net_pnl - shown.kalshi_unrealized

    booked = await history.booked()

    assert booked.net_usd == total_usd
    assert (booked.trading_usd, booked.fees_usd) == (shown.kalshi_realized, shown.kalshi_fees)
    assert (booked.costs_usd, booked.revenue_usd) == (shown.total_costs, shown.total_revenue)
    assert (booked.open_before_usd, booked.open_after_usd) == (None, shown.kalshi_unrealized)
    for by in ("day", "month"):
        parts = await history.breakdown(by=by)
        assert abs(sum(part.net_usd for part in parts) - total_usd) < Decimal("0.000002")
        assert [part.name for part in parts] == sorted(part.name for part in parts)
    by_month = {part.name: part for part in parts}
    assert list(by_month) == ["2026-10-01", "2026-11-01"]
    assert by_month["2026-10-01"].net_usd == Decimal("-0.07")  # only the fee of the fill just before midnight


async def test_what_is_corrected_later_changes_the_past_and_not_what_was_shown(tmp_path):
    """A settlement, a day of costs, a deal: from their own days on as they are known now, but for the last minute."""
    books = Bookkeeper()
    corrections = [
        (Batch(settlements=(settlement(C, instant("2026-11-02 00:00:00.000001"), Result.YES),)), "kalshi", "6"),
        (Batch(cost_days=(cost_day(date(2026, 11, 19), "3.5", "0.75"),)), "anthropic", "-0.5"),
        (Batch(deals=(replace(deals_before().deals[0], status="refunded", updated_at=FIRST),)), "x", "-1200.5"),
    ]
    async with writing(tmp_path / "data") as store, asking(store.path) as history:
        await record(store, *begin(books))
        before, days_before = await history.bars(bucket="1m"), await history.bars(bucket="1d")
        moved_usd = ZERO
        for number, (batch, origin, usd) in enumerate(corrections, start=1):
            await record(store, books.change(FIRST + number * A_MINUTE, batch, origin))
            moved_usd += Decimal(usd)

            after, days = await history.bars(bucket="1m"), await history.bars(bucket="1d")

            assert [days.close[n] - days_before.close[n] for n in (0, -2)] == [0, micros(moved_usd)]
            assert as_rows(after)[: len(before)][-1] == as_rows(before)[-1]  # what was shown stays
            assert after.close[after.rebuilt].tolist()[-1] == before.close[before.rebuilt].tolist()[-1]
            assert (await history.booked()).net_usd == books.total_usd
        assert len(after) == len(before) + len(corrections)


async def test_what_comes_later_on_the_day_of_the_first_snapshot_is_no_step_before_it(tmp_path):
    """The line would not end where the snapshots begin; it shows when it was shown, and counts on its day."""
    books = Bookkeeper()
    async with writing(tmp_path / "data") as store, asking(store.path) as history:
        await record(store, *begin(books))
        before = await history.bars(bucket="1m")
        later = [
            (Batch(fills=(fill("f-6", A, "no", "70", "0.5", instant("2026-11-20 15:00")),)), "kalshi"),
            (Batch(cost_days=(cost_day(TODAY, "0.8", "9"),)), "anthropic"),  # the bill, in the place of the estimate
            (Batch(deals=(deal("d-3", "55", TODAY), deal("d-2", "80", TODAY, status="lost", updated_at=FIRST))), "x"),
        ]
        for number, (batch, origin) in enumerate(later, start=1):
            await record(store, books.change(FIRST + number * A_MINUTE, batch, origin))

        after = await history.bars(bucket="1m")

        length = int(before.rebuilt.sum())
        assert as_rows(after)[: length + 1] == as_rows(before)
        assert len(after) == len(before) + 3
        [today] = await history.breakdown(instant("2026-11-20"), instant("2026-11-21"), by="day")
        days_before = await history.booked(None, instant("2026-11-20"))
        ahead = await history.booked(instant("2026-11-21"))
        assert abs(today.net_usd + days_before.net_usd + ahead.net_usd - books.total_usd) < Decimal("0.000002")


async def test_without_a_snapshot_the_whole_line_is_rebuilt(tmp_path):
    """Records that came in before the first total are a past already."""
    books = Bookkeeper()
    change = books.without_snapshot(FIRST, deals_before())
    async with writing(tmp_path / "data") as store, asking(store.path) as history:
        await record(store, change)
        bars = await history.bars(bucket="1d")
        assert bars.rebuilt.tolist() == [True, True]
        assert bars.close.tolist() == [1_165_490_000, 1_245_490_000]
        assert (await history.drawdowns()).high_usd == Decimal("1245.49")

        await record(store, books.change(FIRST + A_MINUTE))

        bars = await history.bars(bucket="1m")
        assert bars.rebuilt.tolist() == [True, True, False]
        assert bars.close.tolist() == [1_165_490_000, 1_245_490_000, 1_245_490_000]


async def test_a_recorded_account_sums_to_its_known_total_in_every_breakdown(tmp_path, recorded_account):
    """A real account through the whole program: by day, month, market, event and series, and along the line."""
    total = Decimal("-9002.824700")
    async with Simulator(RecordedAccount(recorded_account)) as simulator:
        settings = demo_settings(load_settings(data_dir=tmp_path), simulator)
        async with Engine(settings) as engine:
            shown = await engine.sync()
            assert shown.net_pnl == total

            for by in ("day", "month", "weekday", "hour", "market", "event", "series", "source", "kind", "side"):
                parts = await engine.history.breakdown(by=by)
                assert sum(part.net_usd for part in parts) == total, by
                assert sum(part.trading_usd for part in parts) == Decimal("-2873.713070"), by
                assert sum(part.fees_usd for part in parts) == Decimal("6129.111630"), by
            for bucket in ("1m", "1h", "1d", "1mo"):
                bars = await engine.history.bars(bucket=bucket)
                assert bars.close.tolist()[-1] == micros(total)
                assert bars.rebuilt.any()
            minutes = await engine.history.bars(bucket="1m")
            assert minutes.close[minutes.rebuilt].tolist()[-1] == minutes.open[~minutes.rebuilt].tolist()[0]
            by_day = {part.name: part.net_usd for part in await engine.history.breakdown(by="day")}
            ledger = engine.model.ledger.by_day(settings.zone)
            assert by_day == {f"{day}": usd for day, usd in ledger.items() if f"{day}" in by_day}
            assert (await engine.history.booked()).net_usd == total


def a_year():
    """Records of every kind over a year, some a microsecond from midnight."""
    random = Random(7)  # noqa: S311 - no secret
    start = instant("2025-11-20")
    fills, costs, deals = [], [], []
    for n in range(300):
        at = (start + timedelta(seconds=random.randrange(364 * 86_400))).replace(microsecond=random.randrange(10**6))
        if n % 10 == 0:
            at = at.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(microseconds=n % 20 // 10)
        ticker = f"KX{n % 3}-26E{n % 7}-T{n % 11}"
        side, price = random.choice(["yes", "no"]), f"0.{random.randrange(1, 99):02}"
        fee = f"0.{random.randrange(10**6):06}"
        fills.append(fill(f"f-{n}", ticker, side, f"{random.randrange(1, 900) / 100}", price, at, fee=fee))
    tickers = sorted({each.ticker for each in fills})[::3]
    settled = [settlement(each, instant("2026-11-19 18:00"), random.choice(list(Result)[:2])) for each in tickers]
    for n in range(365):
        day = date(2025, 11, 21) + timedelta(days=n)
        usd = [f"{random.randrange(10**9)}e-10" for _ in range(random.randrange(1, 4))]
        costs.append(cost_day(day, *map(str, map(Decimal, usd)), is_estimate=n > 360))
        if n % 9 == 0:
            status = random.choice(["paid", "won", "refunded", "lost"])
            deals.append(deal(f"d-{n}", f"{random.randrange(10**5)}", day, status=status, fee="0.37"))
    return Batch(fills=tuple(fills), settlements=tuple(settled), cost_days=tuple(costs), deals=tuple(deals))


YEAR = a_year()
POSTINGS = posted([YEAR])
STEPS = steps_of(POSTINGS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def year(tmp_path_factory):
    """Give the history of that year."""
    path = await recorded(tmp_path_factory.mktemp("year"), Bookkeeper().change(FIRST, YEAR))
    async with asking(path) as history:
        yield history


def within(start, end):
    return [each for each in POSTINGS if (start is None or each.at >= start) and (end is None or each.at < end)]


KEYS = {
    "kind": lambda step: step.kind,
    "side": lambda step: step.side if step.kind == "fill" else None,
    "source": lambda step: step.source,
    "market": lambda step: step.key if step.source == "kalshi" else None,
    "event": lambda step: event_of(step.key) if step.source == "kalshi" else None,
    "series": lambda step: series_of(step.key) if step.source == "kalshi" else None,
    "item": lambda step: step.key if step.source == "anthropic" else None,
    "deal": lambda step: step.key if step.source == "john" else None,
    "day": lambda step: f"{step.at.astimezone(NEW_YORK).date()}",
    "month": lambda step: f"{step.at.astimezone(NEW_YORK).date().replace(day=1)}",
    "weekday": lambda step: f"{step.at.astimezone(NEW_YORK).isoweekday()}",
    "hour": lambda step: f"{step.at.astimezone(NEW_YORK).hour}",
}
MONEY = ("kalshi_realized", "kalshi_fees", "billed_costs", "estimated_costs", "total_revenue")
ends = st.one_of(
    st.none(),
    st.datetimes(datetime(2025, 11, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.dates(date(2025, 11, 19), date(2026, 11, 22)).map(lambda day: instant(f"{day}")),
    st.sampled_from([step.at for step in STEPS]),
).map(lambda at: None if at is None else at_ms(to_ms(at)))


def summed(steps):
    sums = dict.fromkeys(MONEY, ZERO)
    for step in steps:
        sums[step.component] += step.usd
    return sums


@given(ends, ends, st.sampled_from(sorted(KEYS)))
@settings(max_examples=120)
async def test_the_parts_of_any_range_are_those_of_its_steps_and_sum_to_the_whole(year, start, end, by):
    """By whatever it is broken down; what a breakdown does not speak of is a part without a name."""
    found = within(start, end)
    groups = {}
    for posting in found:
        groups.setdefault(KEYS[by](posting), []).append(posting)

    parts = await year.breakdown(start, end, by=by)
    booked = await year.booked(start, end)

    assert {part.name: part.postings for part in parts} == Counter(map(KEYS[by], found))
    for part in parts:
        sums = summed(steps_of(groups[part.name]))
        assert part.net_usd == sum(posting.net_usd for posting in groups[part.name])
        assert part.fills == sum(posting.kind == "fill" for posting in groups[part.name])
        assert (part.trading_usd, part.fees_usd) == (sums["kalshi_realized"], sums["kalshi_fees"])
        assert (part.costs_usd, part.revenue_usd) == (
            sums["billed_costs"] + sums["estimated_costs"],
            sums["total_revenue"],
        )
    assert booked.components == summed(steps_of(found))
    assert sum((part.net_usd for part in parts), ZERO) == sum((posting.net_usd for posting in found), ZERO)
    assert booked.net_usd == booked.trading_usd - booked.fees_usd - booked.costs_usd + booked.revenue_usd


@pytest.mark.parametrize("by", ["day", "month", "weekday", "hour"])
async def test_parts_of_time_come_in_the_order_of_time(year, by):
    """Nine o'clock is before ten."""
    names = [part.name for part in await year.breakdown(by=by)]

    assert names == sorted(names, key=lambda name: (len(name), name))
    assert len(names) > 6


async def test_the_other_parts_come_with_the_largest_first(year):
    """By net."""
    nets = [part.net_usd for part in await year.breakdown(by="market")]

    assert nets == sorted(nets, reverse=True)


@given(st.lists(ends.filter(bool), min_size=1, max_size=6))
@settings(max_examples=40)
async def test_ranges_that_touch_add_up_to_the_whole(year, cuts):
    """Nothing is booked twice and nothing lost, wherever the year is cut; what was open before is what was after."""
    cuts = [None, *sorted(set(cuts)), None]
    found = [await year.booked(*pair) for pair in pairwise(cuts)]
    whole = await year.booked()

    for component in MONEY:
        assert sum(each.components[component] for each in found) == whole.components[component]
    for earlier, later in pairwise(found):
        assert earlier.open_after_usd == later.open_before_usd


async def test_days_add_up_to_their_month_and_a_market_to_its_event(year):
    """A breakdown of a part of a breakdown is that part."""
    for month in await year.breakdown(by="month"):
        start = instant(month.name)
        end = instant(f"{(start + timedelta(days=32)).date().replace(day=1)}")
        for by in ("day", "market", "item"):
            parts = await year.breakdown(start, end, by=by)
            assert sum(part.net_usd for part in parts) == month.net_usd
            assert sum(part.postings for part in parts) == month.postings
    events = {part.name: part.net_usd for part in await year.breakdown(by="event")}
    markets = {}
    for part in await year.breakdown(by="market"):
        name = None if part.name is None else event_of(part.name)
        markets[name] = markets.get(name, ZERO) + part.net_usd
    assert events == markets


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corrected(tmp_path_factory):
    """Give a store in which records were corrected twice, the batches by when they were known, and its history."""
    day = date(2026, 11, 18)
    polls = [
        (Batch(fills=(fill("f-1", A, "yes", "10", "0.40", FIRST), fill("f-2", B, "no", "5", "0.60", FIRST)),
               cost_days=(cost_day(day, "1", "2", "3"),)), "kalshi"),
        (Batch(settlements=(settlement(A, FIRST, Result.YES),)), "kalshi"),
        (Batch(settlements=(settlement(A, FIRST + A_MINUTE, Result.NO),)), "kalshi"),
        (Batch(cost_days=(cost_day(day, "1", "2.5", "3"),)), "anthropic"),
        (Batch(fills=(fill("f-2", B, "no", "5", "0.55", FIRST),)), "kalshi"),
        (Batch(), "kalshi"),
    ]  # fmt: skip
    books = Bookkeeper()
    path = tmp_path_factory.mktemp("corrected")
    shown = []
    async with writing(path) as store, asking(store.path) as history:
        for number, (batch, origin) in enumerate(polls):
            change = books.change(FIRST + number * 10 * A_MINUTE, batch, origin)
            await record(store, change)
            shown.append(change.snapshot)
        yield shown, polls, history


@pytest.mark.parametrize("after_ms", [0, 1, 599_999])
async def test_the_account_is_what_was_known_at_that_instant(corrected, after_ms):
    """From the instant of the snapshot that includes a correction on, and not a millisecond before."""
    shown, polls, history = corrected
    ledger = Ledger()
    for snapshot, (batch, _) in zip(shown, polls, strict=True):
        ledger.add(batch.fills, batch.settlements)

        known = await history.ledger_at(snapshot.taken_at + timedelta(milliseconds=after_ms))

        assert dict(known.books) == dict(ledger.books)
        totals = known.totals({})
        assert totals.realized_usd == snapshot.kalshi_realized
        assert totals.fees_usd == snapshot.kalshi_fees
        assert totals.fill_count == snapshot.trade_count
    assert not (await history.ledger_at(FIRST - timedelta(milliseconds=1))).books


@pytest.mark.parametrize("after_ms", [0, 1, 599_999])
async def test_a_snapshot_of_the_past_is_the_one_that_was_shown(corrected, after_ms):
    """The last one that was taken by then, figure by figure; none before the first."""
    shown, _, history = corrected

    for snapshot in shown:
        found = await history.snapshot_at(snapshot.taken_at + timedelta(milliseconds=after_ms), ("kalshi", "john"))

        assert [getattr(found, name) for name in MONEY_FIELDS] == [getattr(snapshot, name) for name in MONEY_FIELDS]
        assert (found.taken_at, found.trade_count) == (snapshot.taken_at, snapshot.trade_count)
        assert {reading.state for reading in found.sources} == {State.NOT_CONFIGURED}
    assert await history.snapshot_at(FIRST - timedelta(milliseconds=1), ()) is None


async def test_a_day_of_costs_of_which_one_line_changed_counts_each_line_once(corrected):
    """The lines beside it stay the ones that they were, now and in the rebuilt past."""
    shown, _, history = corrected

    booked = await history.booked()
    items = {part.name: part.costs_usd for part in await history.breakdown(by="item") if part.name}

    assert booked.costs_usd == shown[-1].total_costs == Decimal("6.5")
    assert items == {"model 0 Ω": Decimal(1), "model 1 Ω": Decimal("2.5"), "model 2 Ω": Decimal(3)}
    assert (await history.bars(column="total_costs", bucket="1d")).close.tolist()[0] == 6_500_000


async def test_a_correction_that_was_taken_back_is_known_for_that_while(tmp_path):
    """Also if nobody asked in between: the records are the same as before, what was known meanwhile is not."""
    books = Bookkeeper()
    right, wrong = (fill("f-1", A, "yes", "10", price, FIRST) for price in ("0.40", "0.41"))
    async with writing(tmp_path / "data") as store, asking(store.path) as history:
        await record(store, books.change(FIRST, Batch(fills=(right,))))
        await history.booked()

        await record(store, books.change(FIRST + A_MINUTE, Batch(fills=(wrong,))))
        await record(store, books.change(FIRST + 2 * A_MINUTE, Batch(fills=(right,))))

        known = [await history.ledger_at(FIRST + n * A_MINUTE) for n in range(3)]
        assert [ledger.fills() for ledger in known] == [[right], [wrong], [right]]


async def test_only_the_records_of_configured_sources_count(tmp_path):
    """Of what is not configured any more nothing is in any sum; a deal also has to be of a configured place."""
    other = deal("d-9", "1000000", date(2026, 11, 3), origin="csv:y")
    path = await recorded(tmp_path / "data", *begin(Bookkeeper()), Bookkeeper().change(FIRST, Batch(deals=(other,))))
    john = "total_revenue"
    cases = [
        (Counted(), {"kalshi", "anthropic", "john"}, Decimal("1001280.5")),
        (Counted(frozenset({"kalshi"})), {"kalshi"}, 0),
        (Counted(frozenset({"john"}), frozenset({"deals:x"})), {"john"}, Decimal("1280.5")),
        (Counted(frozenset({"kalshi", "john"}), frozenset({"csv:y"})), {"kalshi", "john"}, Decimal(1000000)),
    ]

    async def check(counted, sources, revenue_usd):
        async with asking(path, counted=counted) as history:
            assert {part.name for part in await history.breakdown(by="source")} == sources
            assert (await history.booked()).components[john] == revenue_usd
            bars = await history.bars(None, THAT_MINUTE - A_MINUTE, bucket="1mo", column=john)
            assert bars.close.tolist()[-1] == micros(Decimal(revenue_usd))
            assert bool((await history.ledger_at(FIRST)).books) == ("kalshi" in sources)

    await asyncio.gather(*(check(*case) for case in cases))


async def test_a_deal_that_was_moved_to_another_day_counts_once(tmp_path):
    """Before the first snapshot's day and on it: the later version of it."""
    books = Bookkeeper()
    moved = deal("d-2", "80", date(2026, 11, 4), updated_at=FIRST + A_MINUTE)
    async with writing(tmp_path / "data") as store, asking(store.path) as history:
        await record(store, *begin(books))
        await record(store, books.change(FIRST + A_MINUTE, replace(deals_before(), deals=(moved,)), "deals:x"))

        bars = await history.bars(None, THAT_MINUTE, bucket="1d", column="total_revenue")

        assert bars.close.tolist()[-1] == 1_280_500_000
        assert max(bars.high.tolist()) == 1_280_500_000


TERMS = {
    "net": lambda posting: posting.net_usd,
    "trading": lambda posting: posting.usd.get("kalshi_realized", ZERO),
    "fees": lambda posting: -posting.usd.get("kalshi_fees", ZERO),
    "billed": lambda posting: -posting.usd.get("billed_costs", ZERO),
    "estimated": lambda posting: -posting.usd.get("estimated_costs", ZERO),
    "revenue": lambda posting: posting.usd.get("total_revenue", ZERO),
    "costs": lambda posting: TERMS["billed"](posting) + TERMS["estimated"](posting),
}


def in_order(found):
    return sorted(found, key=lambda each: (each.at, each.kind, each.source, each.record))


@given(ends, ends, st.sampled_from(sorted(TERMS)), st.booleans())
@settings(max_examples=80)
async def test_the_rows_of_a_term_are_exactly_those_that_sum_to_it(year, start, end, term, descending):
    """None more, none less; and each row says what all rows up to it sum to."""
    expected = [each for each in in_order(within(start, end)) if term == "net" or TERMS[term](each)]

    found = await year.ledger(start, end, term=term, descending=descending, count=10_000)

    rows = found.rows[::-1] if descending else found.rows
    assert [(row.kind, row.record, row.amount_usd) for row in rows] == [
        (each.kind, each.record, TERMS[term](each)) for each in expected
    ]
    assert [row.running_usd for row in rows] == list(accumulate(map(TERMS[term], expected)))
    assert found.amount_usd == sum(map(TERMS[term], expected), ZERO)
    assert found.count == len(expected)
    assert found.figures.components == summed(steps_of(expected))


async def test_the_ledger_comes_a_page_at_a_time_in_any_order(year):
    """Pages neither overlap nor leave a row out, also where many rows are equal."""
    whole = await year.ledger(order="amount", count=10_000)

    pages = [await year.ledger(order="amount", first=first, count=7) for first in range(0, whole.count, 7)]

    assert [row for page in pages for row in page.rows] == list(whole.rows)
    amounts = [row.amount_usd for row in whole.rows]
    assert amounts == sorted(amounts, reverse=True)


@pytest.mark.parametrize("by", sorted(KEYS))
async def test_a_filter_is_one_part_of_a_breakdown(year, by):
    """In every figure, in the ledger, and in the line that they make up to the newest."""
    for part in await year.breakdown(by=by):
        one = [(by, part.name)]
        booked = await year.booked(filters=one)
        rows = await year.ledger(filters=one)
        line = await year.bars(filters=one, bucket="1d")

        assert booked.exact.components == part.components
        assert (booked.fills, booked.wins, booked.losses) == (part.fills, part.wins, part.losses)
        assert rows.amount_usd == part.net_usd
        assert line.close[-1] == int(part.net_usd.quantize(MICRO).scaleb(6))


async def test_filters_narrow_each_other_and_a_text_searches(year):
    """All of them have to be passed; capital letters do not matter."""
    [market, *_] = [part.name for part in await year.breakdown(by="market") if part.name]

    both = await year.ledger(filters=[("market", market), ("kind", "fill")])
    none = await year.ledger(filters=[("market", market), ("source", "anthropic")])
    searched = await year.ledger(search=market.lower())

    assert {(row.key, row.kind) for row in both.rows} == {(market, "fill")}
    assert (none.count, none.amount_usd) == (0, ZERO)
    assert {row.key for row in searched.rows} == {market}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"term": "luck"}, "no term 'luck'; choose one of net, trading"),
        ({"order": "luck"}, "ordered by 'luck'; choose one of time"),
        ({"filters": [("luck", "x")]}, "no breakdown by 'luck'"),
    ],
)
async def test_rows_that_cannot_be_found_are_refused_by_name(year, asked, said):
    """With what can be asked for."""
    with pytest.raises(HistoryError, match=said):
        await year.ledger(**asked)


@pytest.mark.parametrize("text", ["'; DROP TABLE postings; --", '" OR 1=1', "%", "\\"])
async def test_what_is_searched_for_is_a_text_and_nothing_else(year, text):
    """Nothing is found, and nothing harmed."""
    assert (await year.ledger(search=text)).count == 0
    assert (await year.ledger(filters=[("market", text)])).count == 0
    assert (await year.ledger()).count == len(POSTINGS)


async def test_each_row_leads_to_the_record_behind_it(year):
    """Column by column, as the store has it."""
    for row in (await year.ledger(count=10_000)).rows:
        [version] = await year.record(row.kind, row.record)

        values = dict(version.values)
        assert row.record in (" ".join((values.get("day", ""), values.get("line", ""))), *values.values()) or (
            row.record == f"{values.get('origin')} {values.get('deal_id')}"
        )
        assert version.until is None


async def test_a_record_that_there_is_not_has_no_version(year):
    """And a kind of record that there is not is refused."""
    assert await year.record("fill", "nobody") == ()
    with pytest.raises(HistoryError, match="no records of the kind 'luck'"):
        await year.record("luck", "x")


async def test_underwater_is_as_deep_as_the_deepest_fall_and_ends_where_the_line_does(year):
    """One definition of a drawdown, as a strip and as a figure, for all of it and for one market."""
    [market, *_] = [part.name for part in await year.breakdown(by="market") if part.name]
    for filters in ((), [("market", market)]):
        strip = await year.underwater(filters=filters)
        drawdowns = await year.drawdowns(filters=filters)

        deepest = max((fall.depth_usd for fall in drawdowns.falls), default=ZERO)
        assert -int(strip.under.min()) == int(deepest.scaleb(6))
        assert int(strip.high[-1]) == int(drawdowns.high_usd.scaleb(6))
        assert (strip.under <= 0).all()
        assert len(strip) <= 1000


async def test_the_mark_over_a_part_of_a_range_is_the_one_of_the_range(year):
    """Whoever looks closer at a part of it sees no other depth."""
    whole = await year.underwater()
    middle = len(whole) // 2
    first, then = (to_instant(int(whole.start[number]) * 1000) for number in (0, middle))

    part = await year.underwater(then, since=first)

    assert part.high[0] >= whole.high[:middle].max()
    assert part.high[-1] == whole.high[-1]
    assert part.under.min() == whole.under[middle:].min()
