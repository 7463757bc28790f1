"""The journal sums to the P&L that is shown, whatever the records; its minutes join without a gap."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pnl import journal
from pnl.journal import COMPONENTS, Step, not_known_yet, postings
from pnl.journal import steps_of as steps_of_postings
from pnl.ledger import Ledger
from pnl.model import PnLModel
from pnl.records import MONEY_FIELDS, Batch, Cost, CostDay, Deal, Fill, Result, Settlement
from pnl.rows import micros, to_instant, to_us
from pnl.schema import BAR_PARTS

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TODAY = NOW.date()
TICKERS = ("KXA-26NOV22-T1", "KXA-26NOV22-T2", "KXB-26NOV-X")

counts = st.integers(1, 10_000).map(lambda centis: Decimal(centis).scaleb(-2))
prices = st.integers(1, 999_999).map(lambda each: Decimal(each).scaleb(-6))
small = st.integers(0, 10_000_000).map(lambda each: Decimal(each).scaleb(-6))
fine = st.integers(-(10**10), 10**13).map(lambda each: Decimal(each).scaleb(-10))  # finer than what is shown
instants = st.integers(0, 90 * 86_400_000_000).map(lambda us: NOW - timedelta(microseconds=us))
days = st.integers(-3, 90).map(lambda ago: TODAY - timedelta(days=ago))


@st.composite
def fills(draw):
    made = draw(st.lists(st.tuples(st.sampled_from(TICKERS), st.sampled_from(["yes", "no"])), max_size=12))
    return tuple(
        Fill(f"f-{n}", *each, draw(counts), draw(prices), draw(small), is_taker=True, filled_at=draw(instants))
        for n, each in enumerate(made)
    )


@st.composite
def settlements(draw):
    tickers = draw(st.lists(st.sampled_from((*TICKERS, "KXC-ALONE")), unique=True))
    return tuple(
        Settlement(
            *(ticker, ticker.rpartition("-")[0], draw(st.sampled_from(Result)), draw(counts), draw(small)),
            *(draw(counts), draw(small), draw(small), draw(small), draw(st.none() | prices), draw(instants)),
        )
        for ticker in tickers
    )


@st.composite
def cost_days(draw):
    keys = draw(st.lists(st.tuples(st.sampled_from(["anthropic", "other"]), days), unique=True, max_size=5))
    found = []
    for source, day in keys:
        is_estimate = draw(st.booleans())
        usd = draw(st.lists(fine, min_size=1, max_size=4))
        lines = tuple(Cost(source, day, f"item {n}", each, is_estimate) for n, each in enumerate(usd))
        found.append(CostDay(source, day, lines, is_estimate=is_estimate))
    return tuple(found)


@st.composite
def deals(draw):
    statuses = draw(st.lists(st.sampled_from(["won", "paid", "lost", "refunded", "invoiced"]), max_size=5))
    return tuple(
        Deal("deals:x", f"d-{n}", draw(small), status, draw(days), draw(instants), "", draw(small))
        for n, status in enumerate(statuses)
    )


batches = st.builds(
    Batch, fills=fills(), settlements=settlements(), cost_days=cost_days(), deals=deals()
)  # everything that changes the P&L
zones = st.sampled_from([NEW_YORK, UTC, ZoneInfo("Asia/Kolkata"), ZoneInfo("Pacific/Apia")])


def steps_of(batch, zone=NEW_YORK):
    ledger = Ledger()
    ledger.add(batch.fills, batch.settlements)
    return steps_of_postings(postings(ledger, batch.cost_days, batch.deals, zone))


def minutes(steps, **how):
    """Give the minutes one by one: which it is, how many instants changed it, and per column its bar."""
    found = journal.minutes(steps, **how)
    bars = [zip(*(found[f"{name}_{part}"].tolist() for part in BAR_PARTS), strict=True) for name in MONEY_FIELDS]
    rows = zip(found["minute"].tolist(), found["snapshots"].tolist(), *bars, strict=True)
    return [(minute, count, dict(zip(MONEY_FIELDS, bar, strict=True))) for minute, count, *bar in rows]


def shown(batch):
    """Give what a page shows of these records, by money column in micro-dollars; no price is known."""
    model = PnLModel(now=lambda: NOW)
    model._take_in(batch, origin="")
    snapshot = model.put_together()
    return {name: micros(getattr(snapshot, name)) for name in MONEY_FIELDS}


@settings(max_examples=40)
@given(batches, zones)
def test_the_last_minute_closes_at_what_is_shown(batch, zone):
    """Every money column, rounded once as a whole and not step by step."""
    made = minutes(steps_of(batch, zone))

    closes = {name: made[-1][2][name][3] if made else 0 for name in MONEY_FIELDS}

    assert closes == shown(batch)


@settings(max_examples=40)
@given(batches, zones, st.none() | st.integers(-100 * 1440, 5 * 1440))
def test_a_minute_opens_where_the_one_before_it_closed(batch, zone, ago):
    """From zero on; the low and the high hold open and close between them, the sum is of that many states."""
    last = None if ago is None else to_us(NOW) // 60_000_000 + ago
    made = minutes(steps_of(batch, zone), last=last)
    closed = dict.fromkeys(MONEY_FIELDS, 0)

    for _, count, bars in made:
        for name, (opened, high, low, close, total) in bars.items():
            assert opened == closed[name]
            assert low <= min(opened, close)
            assert max(opened, close) <= high
            assert low * count <= total <= high * count
            closed[name] = close
    assert [minute for minute, _, _ in made] == sorted({minute for minute, _, _ in made})


@settings(max_examples=40)
@given(batches, zones, st.integers(-100 * 1440, 5 * 1440))
def test_what_is_dated_later_is_put_into_the_last_minute(batch, zone, ago):
    """Nothing is behind it, what was before stays as it is, and it closes at the same."""
    last = to_us(NOW) // 60_000_000 + ago
    steps = steps_of(batch, zone)
    free, clamped = minutes(steps), minutes(steps, last=last)

    assert [bar for bar in clamped if bar[0] < last] == [bar for bar in free if bar[0] < last]
    assert all(minute <= last for minute, _, _ in clamped)
    assert [bars["net_pnl"][3] for _, _, bars in clamped[-1:]] == [bars["net_pnl"][3] for _, _, bars in free[-1:]]
    assert sum(count for _, count, _ in clamped) == sum(count for _, count, _ in free)


@settings(max_examples=40)
@given(batches)
def test_every_column_of_every_state_is_the_sum_of_its_parts(batch):
    """As a snapshot's are."""
    for _, _, bars in minutes(steps_of(batch)):
        close = {name: bar[3] for name, bar in bars.items()}
        assert close["kalshi_unrealized"] == 0
        assert close["kalshi_pnl"] == close["kalshi_realized"] - close["kalshi_fees"]
        assert close["total_costs"] == close["billed_costs"] + close["estimated_costs"]
        assert close["net_pnl"] == close["kalshi_pnl"] - close["total_costs"] + close["total_revenue"]


@settings(max_examples=40)
@given(batches, zones)
def test_steps_are_in_order_of_time_and_none_is_zero(batch, zone):
    """Their net is what the exact totals are, not only the rounded ones."""
    steps = steps_of(batch, zone)

    assert steps == sorted(steps, key=lambda step: step.at)
    assert all(step.usd for step in steps)
    costs = sum(day.total_usd for day in batch.cost_days) + sum(deal.fee_usd for deal in batch.deals)
    revenue = sum(deal.revenue_usd for deal in batch.deals)
    ledger = Ledger()
    ledger.add(batch.fills, batch.settlements)
    assert sum(step.net_usd for step in steps) == ledger.totals({}).pnl_usd - costs + revenue


@settings(max_examples=40)
@given(batches, batches)
@example(
    Batch(cost_days=(CostDay("other", TODAY, (Cost("other", TODAY, "a", Decimal("1.5e-6")),)),)),
    Batch(cost_days=(CostDay("other", TODAY, (Cost("other", TODAY, "a", Decimal("1e-6")),)),)),
)
def test_the_line_meets_what_was_shown_whatever_was_corrected_since(known_now, known_then):
    """All that is not the snapshot's is taken back at its instant; from nothing nothing is, and what fits stays."""
    then = shown(known_then)
    components = {name: Decimal(then[name]).scaleb(-6) for name in COMPONENTS}
    steps = steps_of(known_now)

    back = not_known_yet(steps, components, NOW)

    made = minutes([*steps, *back], last=to_us(NOW) // 60_000_000 - 1)
    assert {step.at for step in back} <= {NOW}
    if steps and any(shown(known_now)[name] for name in COMPONENTS):
        assert {name: made[-1][2][name][3] for name in MONEY_FIELDS} == then | {"kalshi_unrealized": 0}
    assert not_known_yet(steps_of(known_then), components, NOW) == []
    assert not_known_yet([], components, NOW) == []


@settings(max_examples=40)
@given(fills(), settlements(), zones)
def test_days_of_trading_are_those_of_the_ledger(fills, settlements, zone):
    """One definition of a day, told twice."""
    ledger = Ledger()
    ledger.add(fills, settlements)
    by_day = {}

    for step in steps_of_postings(postings(ledger, (), (), zone)):
        day = step.at.astimezone(zone).date()
        by_day[day] = by_day.get(day, 0) + step.net_usd

    expected = {day: usd for day, usd in ledger.by_day(zone).items() if usd}
    assert {day: usd for day, usd in by_day.items() if usd} == expected


def test_a_cost_and_a_deal_change_the_pnl_at_the_first_local_minute_of_their_day():
    """Also on a day that the clocks change; a deal's revenue and what its payment cost are two steps."""
    day = date(2026, 3, 8)
    cost = CostDay("anthropic", day, (Cost("anthropic", day, "a", Decimal("1.5"), is_estimate=True),), is_estimate=True)
    deal = Deal("deals:x", "d-1", Decimal(10), "paid", date(2026, 11, 1), NOW, "", Decimal("0.3"))
    refunded = replace(deal, deal_id="d-2", status="refunded", fee_usd=Decimal(0))

    steps = steps_of_postings(postings(Ledger(), [cost], [deal, refunded], NEW_YORK))

    midnights = [datetime(2026, 3, 8, 5, tzinfo=UTC), datetime(2026, 11, 1, 4, tzinfo=UTC)]
    assert steps == [
        Step(midnights[0], "estimated_costs", Decimal("1.5"), "anthropic", "a"),
        Step(midnights[1], "total_revenue", Decimal(10), "john", "d-1"),
        Step(midnights[1], "billed_costs", Decimal("0.3"), "john", "d-1"),
    ]
    assert [step.net_usd for step in steps] == [Decimal("-1.5"), Decimal(10), Decimal("-0.3")]


def test_steps_of_one_instant_are_one_state():
    """A fill that realizes and costs a fee never shows the one without the other."""
    at = NOW.replace(second=5)
    steps = [
        Step(at, "kalshi_realized", Decimal(5), "kalshi", "KX"),
        Step(at, "kalshi_fees", Decimal(2), "kalshi", "KX"),
        Step(at + timedelta(microseconds=1), "kalshi_fees", Decimal(1), "kalshi", "KX"),
    ]

    [(minute, count, bars)] = minutes(steps)

    assert (minute, count) == (to_us(NOW) // 60_000_000, 2)
    assert bars["net_pnl"] == (0, 3_000_000, 0, 2_000_000, 5_000_000)


def test_instants_are_exact_to_the_microsecond():
    """Before 1970 too."""
    for moment in (NOW.replace(microsecond=1), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)):
        assert to_instant(to_us(moment)) == moment
