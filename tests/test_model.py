"""The current truth: what a source says is taken in once, what it corrects is replaced, what it lacks is said."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from pnl.errors import SourceError
from pnl.journal import COMPONENTS
from pnl.model import PnLModel, as_json
from pnl.records import MONEY_FIELDS, Batch, Cost, CostDay, Deal, Fill, Mark, Refused, Result, Settlement, State
from pnl.store import Recorded

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
TODAY = NOW.date()


class Told:
    """A source that answers what it is told to, then goes on with its last answer."""

    poll_s = 2.0

    def __init__(self, name, *answers):
        self.name = self.origin = name
        self._answers = list(answers)

    @classmethod
    def from_settings(cls, settings, transport):
        raise NotImplementedError

    async def poll(self, known):
        self.known = known
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    """Time that moves only when it is told to."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def advance(self, **span):
        self.now += timedelta(**span)


@pytest.fixture
def clock():
    return Clock()


def fill(price="0.40", *, count="10", side="yes", number=1):
    return Fill(f"f{number}", "KXA-1-1", side, Decimal(count), Decimal(price), Decimal("0.17"), is_taker=True,
                filled_at=NOW - timedelta(hours=1, seconds=-number))  # fmt: skip


def deal(status="won", *, amount="100", updated=NOW, number=1, origin="john"):
    return Deal(origin, f"d{number}", Decimal(amount), status, TODAY, updated)


def cost_day(usd, *, is_estimate=False, day=TODAY):
    return CostDay("anthropic", day, (Cost("anthropic", day, "tokens", Decimal(usd), is_estimate),), is_estimate)


def model_of(*sources, clock, others=()):
    return PnLModel(now=clock).read_from(sources, others)


async def test_the_parts_make_the_whole(clock):
    """Net = realized + open − fees − billed − estimated + revenue, and every sum is of what stands beside it."""
    kalshi = Told("kalshi", Batch(fills=(fill(),), marks=(Mark("KXA-1-1", Decimal("0.5"), Decimal("0.52"), NOW),)))
    anthropic = Told(
        "anthropic",
        Batch(cost_days=(cost_day("2.0000004", day=TODAY - timedelta(days=1)), cost_day("0.5", is_estimate=True))),
    )
    john = Told("john", Batch(deals=(deal(), deal("lost", number=2), deal("invoiced", amount="20.5", number=3))))

    snapshot = await model_of(kalshi, anthropic, john, clock=clock).poll()

    assert snapshot.kalshi_unrealized == Decimal("1.10")
    assert snapshot.kalshi_pnl == Decimal("0.93")
    assert (snapshot.billed_costs, snapshot.estimated_costs) == (Decimal("2.000000"), Decimal("0.500000"))
    assert snapshot.total_revenue == Decimal("120.5")
    assert snapshot.net_pnl == Decimal("118.93")
    assert snapshot.complete


async def test_a_refunded_deal_reverses_and_the_latest_word_on_it_wins(clock):
    """An older answer about the same deal changes nothing."""
    refunded = deal("refunded", updated=NOW + timedelta(minutes=5))
    john = Told("john", Batch(deals=(deal(),)), Batch(deals=(refunded,)), Batch(deals=(deal(),)))
    model = model_of(john, clock=clock)

    revenue = [(await model.poll()).total_revenue for _ in range(3)]

    assert revenue == [100, 0, 0]


async def test_a_deal_that_is_gone_from_a_whole_list_is_gone(clock):
    """A line deleted from the file is no revenue; the store is told to replace the list."""
    john = Told(
        "john",
        Batch(deals=(deal(), deal(number=2)), holds_all_deals=True),
        Batch(deals=(deal(),), holds_all_deals=True),
    )
    model = model_of(john, clock=clock)
    await model.pull("john")

    change = await model.pull("john")

    assert change.snapshot.total_revenue == 100
    assert change.batch.holds_all_deals
    assert change.batch.deals == (deal(),)


async def test_a_bill_replaces_its_days_estimate(clock):
    """The estimate never stands beside the bill of the same day."""
    anthropic = Told(
        "anthropic", Batch(cost_days=(cost_day("3", is_estimate=True),)), Batch(cost_days=(cost_day("2.5"),))
    )
    model = model_of(anthropic, clock=clock)
    await model.poll()

    snapshot = await model.poll()

    assert (snapshot.billed_costs, snapshot.estimated_costs) == (Decimal("2.5"), 0)


async def test_what_comes_twice_is_no_news_for_the_store(clock):
    """A repeated poll writes nothing but where it got to."""
    batch = Batch(fills=(fill(),), cost_days=(cost_day("1"),), deals=(deal(),), cursors={"fills": "x"})
    model = model_of(Told("kalshi", batch), clock=clock)
    await model.pull("kalshi")

    again = await model.pull("kalshi")

    assert (again.batch.fills, again.batch.cost_days, again.batch.deals) == ((), (), ())
    assert again.batch.cursors == {"fills": "x"}


async def test_a_correction_is_news_although_every_sum_stays_and_a_price_is_none(clock):
    """What shows records reads them anew for the one, and not for the other."""
    lost = Settlement("KXA-1-1", "KXA-1", Result.NO, Decimal(10), Decimal(4), *[Decimal(0)] * 4, None, NOW)
    won = replace(lost, result=Result.YES, revenue_usd=Decimal(10))
    other_day = replace(deal(updated=NOW + timedelta(hours=1)), closed_on=date(2026, 11, 3))
    price = Mark("KXA-1-1", Decimal("0.40"), Decimal("0.42"), NOW)
    model = model_of(Told("kalshi"), Told("john"), clock=clock)

    seen = [
        model.accept(name, batch).snapshot.records
        for name, batch in (
            ("kalshi", Batch(fills=(fill(),), settlements=(lost,))),
            ("kalshi", Batch(marks=(price,))),
            ("kalshi", Batch(settlements=(won,))),
            ("john", Batch(deals=(deal(),))),
            ("john", Batch(deals=(other_day,))),
            ("john", Batch(deals=(other_day,))),
        )
    ]

    assert [after != before for before, after in pairwise(seen)] == [False, True, True, True, False]


async def test_a_source_is_told_its_cursors_and_the_open_markets(clock):
    """It keeps nothing between polls itself."""
    kalshi = Told(
        "kalshi",
        Batch(fills=(fill(),), cursors={"fills": "here", "archived_to": "x"}),
        Batch(cursors={"fills": "there"}),
        Batch(),
    )
    model = model_of(kalshi, clock=clock)
    for _ in range(3):
        await model.pull("kalshi")

    assert kalshi.known.cursors == {"fills": "there", "archived_to": "x"}
    assert kalshi.known.open_tickers == {"KXA-1-1"}


async def test_a_failing_source_keeps_its_last_value_stale_then_down(clock):
    """Unknown is not zero, and the others are not touched."""
    failing = Told("john", Batch(deals=(deal(),)), SourceError("john: no answer"))
    model = model_of(failing, Told("kalshi", Batch(fills=(fill(),))), clock=clock)
    states = []
    for _ in range(6):
        clock.advance(seconds=2)
        snapshot = await model.poll()
        states.append({reading.source: reading.state for reading in snapshot.sources}["john"])

    assert states == [State.FRESH, *[State.STALE] * 3, State.DOWN, State.DOWN]
    assert snapshot.total_revenue == 100
    assert not snapshot.complete
    assert snapshot.as_of == NOW + timedelta(seconds=2)
    assert model.readings["kalshi"].state is State.FRESH


async def test_a_source_that_breaks_in_itself_stops_nobody(clock, caplog):
    """A third party's bug is logged with its traceback and shown as a failure."""
    model = model_of(Told("other", ZeroDivisionError("boom")), Told("john", Batch(deals=(deal(),))), clock=clock)

    snapshot = await model.poll()

    assert snapshot.total_revenue == 100
    assert model.readings["other"].state is State.DOWN
    assert "boom" in caplog.text


async def test_a_part_that_could_not_be_read_leaves_the_rest_and_says_so(clock):
    """The good records of a poll count; the source is not fresh."""
    half = Batch(fills=(fill(),), error="kalshi: settlements timed out")
    model = model_of(Told("kalshi", Batch(), half), clock=clock)
    await model.poll()
    clock.advance(seconds=2)

    snapshot = await model.poll()

    assert snapshot.trade_count == 1
    assert snapshot.as_of == NOW
    assert model.readings["kalshi"].state is State.STALE


async def test_rows_that_were_set_aside_make_the_total_incomplete(clock):
    """And are named, the first few of them."""
    refused = tuple(Refused("fill", f"f{n}", "count_fp is 'NaN'") for n in range(5))
    model = model_of(Told("kalshi", Batch(fills=(fill(),), refused=refused)), clock=clock)

    snapshot = await model.poll()

    assert not snapshot.complete
    assert "fill f0: count_fp is 'NaN'" in snapshot.missing
    assert "and 2 more rows set aside" in snapshot.missing


async def test_a_row_stays_set_aside_until_it_is_read_again_and_good(clock):
    """A poll that reads only what is new says nothing of an older row, and one that fails nothing at all."""
    bad = Refused("fill", "f9", "count_fp is 'NaN'")
    only_new, all_again = Batch(), Batch(reread=frozenset({"fill"}))
    model = model_of(Told("kalshi", Batch(refused=(bad,)), only_new, SourceError("down"), all_again), clock=clock)

    missing = [(await model.poll()).missing for _ in range(4)]

    assert missing == [("fill f9: count_fp is 'NaN'",)] * 3 + [()]


async def test_a_day_that_lacks_a_line_does_not_replace_one_that_is_known(clock):
    """The last good value stands; where there is none, what is good of it counts."""
    day = date(2026, 11, 20)
    whole, cut = (
        CostDay("anthropic", day, (Cost("anthropic", day, "a", Decimal(usd)),), is_cut=is_cut)
        for usd, is_cut in (("5", False), ("2", True))
    )
    costs = [
        (await model_of(Told("anthropic", *map(days_of, days)), clock=clock).poll()).total_costs
        for days in ([cut], [whole])
    ]
    model = model_of(Told("anthropic", days_of(whole), days_of(cut)), clock=clock)
    await model.poll()

    assert costs == [2, 5]
    assert (await model.poll()).total_costs == 5


def days_of(day):
    return Batch(cost_days=(day,))


async def test_an_empty_book_keeps_the_last_good_price(clock):
    """Zero and one are no quote."""
    good, empty = (Mark("KXA-1-1", Decimal(bid), Decimal(ask), NOW) for bid, ask in (("0.5", "0.5"), ("0", "1")))
    model = model_of(Told("kalshi", Batch(fills=(fill(),), marks=(good,)), Batch(marks=(empty,))), clock=clock)
    await model.poll()

    snapshot = await model.poll()

    assert snapshot.kalshi_unrealized == 1
    assert snapshot.complete
    assert snapshot.notes == ("KXA-1-1 has no quotes now and is valued at its last price",)


async def test_a_market_that_ends_at_another_time_is_news(clock):
    """Also while its price stands still."""
    mark = Mark("KXA-1-1", Decimal("0.5"), Decimal("0.5"), NOW)
    later = replace(mark, closes_at=NOW + timedelta(days=1))
    model = model_of(Told("kalshi", Batch(marks=(mark,)), Batch(marks=(later,)), Batch(marks=(later,))), clock=clock)
    await model.pull("kalshi")

    changes = [await model.pull("kalshi") for _ in range(2)]

    assert [change.batch.marks for change in changes] == [(later,), ()]
    assert model.marks["KXA-1-1"].closes_at == NOW + timedelta(days=1)


async def test_a_market_that_never_had_quotes_is_valued_at_its_last_trade(clock):
    """And said to be; one that never traded either is left out and named."""
    traded = Mark("KXA-1-1", Decimal(0), Decimal(1), NOW, last_trade_usd=Decimal("0.45"))
    untraded = replace(traded, last_trade_usd=None)

    with_trade = await model_of(Told("kalshi", Batch(fills=(fill(),), marks=(traded,))), clock=clock).poll()
    without = await model_of(Told("kalshi", Batch(fills=(fill(),), marks=(untraded,))), clock=clock).poll()

    assert with_trade.kalshi_unrealized == Decimal("0.5")
    assert (with_trade.complete, without.complete) == (True, False)
    assert "no quotes" in with_trade.notes[0]
    assert "KXA-1-1 has no price yet" in without.missing[0]


async def test_sources_that_are_not_set_up_are_left_out_and_named(clock):
    """They do not make the total incomplete."""
    snapshot = await model_of(Told("john", Batch(deals=(deal(),))), clock=clock, others=["kalshi"]).poll()

    assert snapshot.complete
    assert as_json(snapshot, NOW)["sources"]["kalshi"] == {"state": "not_configured", "age_s": None, "error": None}


async def test_two_snapshots_never_share_a_millisecond(clock):
    """The instant is their key."""
    model = model_of(Told("john", Batch()), clock=clock)

    instants = [model.put_together().taken_at for _ in range(3)]

    assert instants == [NOW, NOW + timedelta(milliseconds=1), NOW + timedelta(milliseconds=2)]


async def test_a_clock_that_is_set_back_does_not_stop_the_numbers(clock):
    """What comes later is newer, whatever the clock says."""
    model = model_of(Told("john", Batch(), Batch(deals=(deal(),))), clock=clock)
    await model.poll()
    clock.advance(hours=-2)

    await model.poll()

    assert model.snapshot.total_revenue == 100
    assert model.snapshot.taken_at < NOW


def test_what_was_recorded_stands_before_the_first_poll_stale_and_with_its_age(clock):
    """Only what the configured sources brought counts."""
    one, none = Decimal(1), Decimal(0)
    settlement = Settlement("KXB-1-1", "KXB-1", Result.YES, one, Decimal("0.4"), none, none, one, none, one, NOW)
    recorded = Recorded(
        fills=(fill(),), settlements=(settlement,), marks=(), cost_days=(cost_day("5"),),
        deals=(deal(), deal(origin="elsewhere", number=2)), sources={},
    )  # fmt: skip
    model = model_of(Told("kalshi", Batch()), Told("john", Batch()), clock=clock)

    model.restore(recorded)

    snapshot = model.put_together()
    assert (snapshot.trade_count, snapshot.settled_market_count) == (1, 1)
    assert (snapshot.total_revenue, snapshot.total_costs) == (100, 0)


async def test_the_json_object_has_the_promised_keys(clock):
    """Money is decimal text in US dollars; the parts sum to the whole in it."""
    said = as_json(await model_of(Told("john", Batch(deals=(deal(amount="1.5"),))), clock=clock).poll(), NOW)

    assert {
        *MONEY_FIELDS,
        "as_of",
        "trade_count",
        "open_trade_count",
        "settled_market_count",
        "complete",
        "sources",
    } <= said.keys()
    assert said["net_pnl"] == said["total_revenue"] == "1.500000"
    assert Decimal(said["net_pnl"]) == Decimal(said["kalshi_pnl"]) - Decimal(said["total_costs"]) + Decimal(
        said["total_revenue"]
    )


async def test_days_sum_to_the_realized_whole(clock):
    """Costs on their UTC day, deals when closed, trading on its local day; each part by itself."""
    model = model_of(
        Told("kalshi", Batch(fills=(fill(), fill("0.45", side="no", number=2)))),
        Told("anthropic", Batch(cost_days=(cost_day("2", day=date(2026, 11, 20)),))),
        Told("john", Batch(deals=(deal(),))),
        clock=clock,
    )
    snapshot = await model.poll()

    days = model.day_totals(ZoneInfo("America/New_York"))

    whole = {name: sum(day[name] for day in days.values()) for name in COMPONENTS}
    assert whole == {name: getattr(snapshot, name) for name in COMPONENTS}
    assert days[date(2026, 11, 20)]["billed_costs"] == 2
    assert list(days) == sorted(days)
