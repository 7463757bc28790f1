"""The venue's own figures are held against the ledger: what is on its way is no alarm, what is missing is one."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pnl.ledger import Ledger, event_of
from pnl.reconcile import Baseline, Drift, compare, in_words, settled
from pnl.records import ZERO, Account, Agreement, Fill, Holding, Known, Refused, Result, Settlement
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.simulator.book import cash_events
from pnl.simulator.kalshi_rows import fill_row, position_row
from pnl.simulator.nouns import micros, moment
from pnl.sources.kalshi import Kalshi, Signer, load_private_key
from pnl.sources.transport import Paced

FILLS = "/trade-api/v2/portfolio/fills"
POSITIONS = "/trade-api/v2/portfolio/positions"
START = datetime(2026, 6, 1, tzinfo=UTC)
A, B = "KXA-1-1", "KXB-1-1"
DEPOSITED = Decimal(1000)
CENT = Decimal("0.01")


def fill(n, side="yes", count="10", price="0.40", fee="0.17", *, ticker=A):
    return Fill(
        f"f{n}", ticker, side, Decimal(count), Decimal(price), Decimal(fee), is_taker=True,
        filled_at=START + timedelta(seconds=n),
    )  # fmt: skip


def settlement(fills, result="yes", ticker=A):
    """The venue's row for a market with these fills, gross per side."""
    sides = {side: [f for f in fills if f.side == side and f.ticker == ticker] for side in ("yes", "no")}
    counts = {side: sum((f.count for f in some), ZERO) for side, some in sides.items()}
    costs = {side: sum((f.cost_usd for f in some), ZERO) for side, some in sides.items()}
    net = counts["yes"] - counts["no"]
    fees = sum((f.fee_usd for some in sides.values() for f in some), ZERO)
    return Settlement(
        ticker, event_of(ticker), Result(result), counts["yes"], costs["yes"], counts["no"], costs["no"],
        max(net if result == "yes" else -net, ZERO), fees, None, START + timedelta(days=1),
    )  # fmt: skip


def cash_of(fills, settlements=()):
    """What moved in the venue's cash, from the rules and not from the ledger: a pair is a dollar at once."""
    paid = sum((f.cost_usd + f.fee_usd for f in fills), ZERO)
    pairs = sum(
        min(sum((f.count for f in fills if (f.ticker, f.side) == (ticker, side)), ZERO) for side in ("yes", "no"))
        for ticker in {f.ticker for f in fills}
    )
    return pairs - paid + sum((row.revenue_usd for row in settlements), ZERO)


def account_of(fills, settlements=(), balance_of=None):
    """What a venue with these records says; `balance_of` are the fills that its balance knows, where they differ."""
    whole, settled = ledger_of(fills, settlements), {row.ticker for row in settlements}
    positions = {
        ticker: Holding(book.position.count, book.position.basis_usd, book.realized_usd, book.fees_usd)
        for ticker, book in whole.books.items()
        if ticker not in settled
    }
    return Account(DEPOSITED + cash_of(fills if balance_of is None else balance_of, settlements), positions)


def ledger_of(fills, settlements=()):
    ledger = Ledger()
    ledger.add(fills, settlements)
    return ledger


class Watch:
    """One poll after the other, two seconds apart."""

    def __init__(self, drift=None):
        self.drift = drift or Drift()
        self.now = START

    def poll(self, account, ledger, seconds=2):
        self.now += timedelta(seconds=seconds)
        self.drift = compare(account, ledger, self.drift, at=self.now)
        return self.drift

    def polls(self, *worlds):
        """Poll once for each (fills of the venue, fills of the ledger); returns the states."""
        return [self.poll(account_of(venue), ledger_of(ours)).state for venue, ours in worlds]


@pytest.fixture
def watch():
    """A watch that has its baseline: ten contracts and a quiet start."""
    watch = Watch()
    watch.polls(([fill(1)], [fill(1)]), ([fill(1)], [fill(1)]))
    assert watch.drift.baseline is not None
    return watch


def test_figures_that_are_the_same_are_no_drift(watch):
    """0.00 is what a person sees while all agrees."""
    fills = [fill(1), fill(2, "no", "4", "0.45"), fill(3, ticker=B)]

    drift = watch.poll(account_of(fills), ledger_of(fills))

    assert (drift.state, drift.drift_usd, drift.cash_usd, drift.realized_usd) == (Agreement.AGREES, 0, 0, 0)
    assert in_words(drift) == []


def test_a_fill_between_two_reads_settles(watch):
    """Positions are read beside the fills: either may be the newer one, and the next poll has both."""
    one, two, three = [fill(1)], [fill(1), fill(2)], [fill(1), fill(2), fill(3, "no")]

    states = watch.polls((two, one), (two, two), (two, three), (three, three))

    assert states == ["settling", "agrees", "settling", "agrees"]


def test_fills_of_one_size_that_keep_coming_between_the_reads_settle(watch):
    """The same amount differs at every poll, each time another fill: an order that is filled in equal parts."""
    fills = [fill(n) for n in range(1, 12)]

    states = watch.polls(*((fills[: n + 1], fills[:n]) for n in range(1, 10)))

    assert set(states) == {"settling"}


@pytest.mark.parametrize("only_the_balance", [True, False])
def test_a_round_trip_that_moves_no_figure_is_news_all_the_same(watch, only_the_balance):
    """Bought and sold at one price without a fee: both sides look as before, and yet the ledger is not the same."""
    fills = [fill(1), *(fill(n, side, "2", "0.40", "0") for n, side in ((2, "yes"), (3, "no"), (4, "yes")))]

    states = [
        watch.poll(
            account_of(fills[:ours] if only_the_balance else fills[:venue], balance_of=fills[:venue]), ledger
        ).state
        for venue, ours in ((2, 1), (4, 3), (4, 4))
        for ledger in [ledger_of(fills[:ours])]
    ]

    assert states == ["settling", "settling", "agrees"]


def test_a_settlement_between_two_reads_settles(watch):
    """The venue lists the market no more and has paid, and its row comes with the next poll."""
    fills = [fill(1)]
    paid = account_of(fills, [settlement(fills)])

    before = watch.poll(paid, ledger_of(fills))
    after = watch.poll(paid, ledger_of(fills, [settlement(fills)]))

    assert (before.state, after.state, after.drift_usd) == ("settling", "agrees", 0)


@st.composite
def happenings(draw):
    """Fills of three markets, each at its own price; one that rested for a while settles, and another follows it."""
    happened, traded = [], {"A": [], "B": [], "C": []}
    for n in range(draw(st.integers(1, 25))):
        name = draw(st.sampled_from(sorted(traded)))
        if traded[name] and not set(traded[name]) & set(happened[-7:]):
            row = settlement(traded[name], draw(st.sampled_from(["yes", "no"])), ticker=traded[name][0].ticker)
            happened.append(row)
            traded[name] = []
            continue
        ticker = traded[name][0].ticker if traded[name] else f"KX{name}-{n}-1"
        side, count, fee = draw(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from("12"), st.sampled_from("01")))
        traded[name].append(fill(n, side, count, Decimal(400 + n).scaleb(-3), fee, ticker=ticker))
        happened.append(traded[name][-1])
    return happened


def known_of(happened):
    return [each for each in happened if isinstance(each, Fill)], [
        each for each in happened if isinstance(each, Settlement)
    ]


@given(happenings(), st.data())
@settings(max_examples=100)
def test_whatever_happens_between_the_reads_of_a_poll_is_no_alarm(happened, data):
    """Fills, settlements, positions and balance are each read at a moment of their own within the poll."""
    watch, begun, states = Watch(), 0, []
    while begun < len(happened):
        moments = data.draw(st.tuples(*[st.integers(begun, min(begun + 3, len(happened)))] * 4))
        fills, settlements, positions, balance = (known_of(happened[:moment]) for moment in moments)
        account = replace(account_of(*positions), balance_usd=DEPOSITED + cash_of(*balance))
        states.append(watch.poll(account, ledger_of(fills[0], settlements[1])).state)
        begun = max(moments) if max(moments) > begun else begun + 1
    last = [watch.poll(account_of(*known_of(happened)), ledger_of(*known_of(happened))) for _ in range(2)][-1]

    assert Agreement.DRIFTS not in states
    assert (last.state, last.drift_usd, last.cash_usd) == (Agreement.AGREES, 0, 0)


def test_a_missing_fill_is_shown_at_once_and_named_at_the_second_poll(watch):
    """With what it cost and its fee, and in contracts."""
    venue, ours = [fill(1), fill(2, "yes", "2", "0.30", "0.03")], [fill(1)]

    states = watch.polls((venue, ours), (venue, ours), (venue, ours))

    assert states == ["settling", "drifts", "drifts"]
    assert watch.drift.drift_usd == Decimal("0.63")
    assert watch.drift.cash_usd == 0
    assert in_words(watch.drift) == [
        f"{A}: Kalshi says 12.00 YES, the records here make 10.00 YES",
        f"{A}: Kalshi says fees of $0.20, the records here make $0.17",
    ]


def test_a_fill_that_was_missing_before_the_first_poll_is_found_too():
    """The cash cannot show it, for it was gone before the baseline; the positions do."""
    watch = Watch()
    venue, ours = [fill(1), fill(2, "no", "4", "0.45", "0.05")], [fill(1)]

    watch.polls((venue, ours), (venue, ours))

    assert watch.drift.state is Agreement.DRIFTS
    assert watch.drift.drift_usd == 4 - 4 * Decimal("0.55") - Decimal("0.05")
    assert (watch.drift.cash_usd, watch.drift.realized_usd) == (0, 4 * (1 - Decimal("0.40") - Decimal("0.55")))


def test_a_fill_that_is_read_after_all_ends_the_drift(watch):
    """Nothing of it stays behind in the cash."""
    venue, ours = [fill(1), fill(2)], [fill(1)]

    states = watch.polls((venue, ours), (venue, ours), (venue, venue))

    assert states[1:] == ["drifts", "agrees"]
    assert watch.drift.drift_usd == 0


def test_a_round_trip_that_is_missing_shows_while_the_market_is_flat(watch):
    """No contract differs; what the venue realized and charged does."""
    venue, ours = [fill(1), fill(2, ticker=B), fill(3, "no", price="0.45", ticker=B)], [fill(1)]

    watch.polls((venue, ours), (venue, ours))

    assert watch.drift.state is Agreement.DRIFTS
    assert watch.drift.differences[0].count == 0
    assert watch.drift.drift_usd == Decimal("0.16")
    assert in_words(watch.drift) == [
        f"{B}: Kalshi says realized P&L of $0.50, the records here make $0.00",
        f"{B}: Kalshi says fees of $0.34, the records here make $0.00",
    ]


def test_a_drift_goes_on_while_other_trades_come_in(watch):
    """An alarm does not blink with every fill, in this market or in another, nor with one that is on its way."""
    lost, traded = fill(2, ticker=B), [fill(3), fill(4, ticker=B), fill(5), fill(6, ticker=B)]
    watch.polls(([fill(1), lost], [fill(1)]), ([fill(1), lost], [fill(1)]))

    states = watch.polls(*(([fill(1), lost, *traded[:n]], [fill(1), *traded[:n]]) for n in range(5)))
    ahead = watch.polls(([fill(1), lost, *traded, fill(7)], [fill(1), *traded]))

    assert {*states, *ahead} == {"drifts"}
    assert watch.drift.drift_usd == 2 * Decimal("4.17")


def test_cash_that_is_off_goes_on_while_other_trades_come_in(watch):
    """The same holds for the balance, which every fill moves."""
    worlds = [[fill(1), *(fill(n) for n in range(3, 3 + some))] for some in (0, 0, 1, 2, 3)]

    states = [
        watch.poll(replace(account, balance_usd=account.balance_usd - 5), ledger_of(fills)).state
        for fills in worlds
        for account in [account_of(fills)]
    ]

    assert states == ["settling", "unexplained", "unexplained", "unexplained", "unexplained"]
    assert (watch.drift.drift_usd, watch.drift.cash_usd) == (5, -5)


def test_two_polls_that_follow_at_once_are_not_enough(watch):
    """The venue's reads lag: what differs for less than that is no drift, however often it is asked for."""
    account, ledger = account_of([fill(1), fill(2)]), ledger_of([fill(1)])

    states = [watch.poll(account, ledger, seconds=0.3).state for _ in range(6)]

    assert states == ["settling"] * 5 + ["drifts"]


def test_a_clock_that_is_set_back_hides_nothing(watch):
    """A drift is a drift, also when the second poll seems to come before the first."""
    account, ledger = account_of([fill(1), fill(2)]), ledger_of([fill(1)])
    watch.poll(account, ledger)

    assert watch.poll(account, ledger, seconds=-7200).state is Agreement.DRIFTS


def test_a_deposit_is_cash_that_no_record_explains(watch):
    """It is never P&L; the line says what it may be and since when."""
    account = replace(account_of([fill(1)]), balance_usd=account_of([fill(1)]).balance_usd + 400)

    watch.poll(account, ledger_of([fill(1)]))
    drift = watch.poll(account, ledger_of([fill(1)]))

    assert (drift.state, drift.cash_usd, drift.drift_usd, drift.differences) == (Agreement.UNEXPLAINED, 400, 400, ())
    (line,) = in_words(drift)
    assert line == (
        "Kalshi's balance is $400.00 more than the records explain since 2026-06-01 00:00 UTC: "
        "a deposit, a withdrawal, an order that rests, or a record that is missing"
    )


def test_cash_that_differs_alone_for_a_day_was_a_transfer(watch):
    """From then on it belongs to what was there before; contracts that differ are never taken for that."""
    account = replace(account_of([fill(1)]), balance_usd=account_of([fill(1)]).balance_usd + 400)
    watch.poll(account, ledger_of([fill(1)]))
    watch.poll(account, ledger_of([fill(1)]))

    watch.poll(account, ledger_of([fill(1)]), seconds=86_400)

    assert watch.poll(account, ledger_of([fill(1)])).state is Agreement.AGREES
    assert watch.drift.cash_usd == 0


def test_a_baseline_is_recorded_without_losing_a_digit():
    """A restart goes on comparing with it."""
    baseline = Baseline(Decimal("-12.3456789012"), START)

    assert Baseline.parse(str(baseline)) == baseline


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"count": Decimal("10.01")}, "drifts"),
        ({"realized_usd": Decimal("0.0099")}, "agrees"),
        ({"realized_usd": Decimal("0.01")}, "drifts"),
        ({"fees_usd": Decimal("0.1799")}, "agrees"),
        ({"fees_usd": Decimal("0.18")}, "drifts"),
        ({"cost_usd": Decimal("3.90")}, "agrees"),
    ],
)
def test_a_cent_or_a_hundredth_of_a_contract_is_a_drift(watch, change, state):
    """Less is rounding, and so is what the venue says the contracts cost."""
    account = account_of([fill(1)])
    changed = replace(account, positions={A: replace(account.positions[A], **change)})

    watch.poll(changed, ledger_of([fill(1)]))
    drift = watch.poll(changed, ledger_of([fill(1)]))

    assert drift.state == state
    assert (drift.drift_usd > 0) == (state == "drifts")


@pytest.mark.parametrize(("off", "state"), [("0.0099", "agrees"), ("0.01", "unexplained"), ("-0.01", "unexplained")])
def test_a_cent_of_the_balance_is_a_drift(watch, off, state):
    """Balances have four decimals, fees six."""
    account = account_of([fill(1)])
    changed = replace(account, balance_usd=account.balance_usd + Decimal(off))

    watch.poll(changed, ledger_of([fill(1)]))

    assert watch.poll(changed, ledger_of([fill(1)])).state == state


def test_contracts_that_differ_alone_are_worth_what_they_cost(watch):
    """The venue's money agrees and its count does not: no dollar differs, and 0.00 would say that all is well."""
    account = account_of([fill(1)])
    changed = replace(account, positions={A: replace(account.positions[A], count=Decimal("-2.5"))})

    drift = watch.poll(changed, ledger_of([fill(1)]))

    assert drift.drift_usd == Decimal("12.5") * Decimal("0.40")
    assert in_words(drift) == [f"{A}: Kalshi says 2.50 NO, the records here make 10.00 YES"]


def test_a_market_that_the_venue_lists_no_more_may_lack_its_settlement(watch):
    """What it cost is shown, and beside it the payout that the balance holds already."""
    fills = [fill(1)]
    paid = account_of(fills, [settlement(fills)])

    watch.poll(paid, ledger_of(fills))
    drift = watch.poll(paid, ledger_of(fills))

    assert (drift.state, drift.differences[0].usd, drift.cash_usd) == (Agreement.DRIFTS, 4, 10)
    assert in_words(drift)[1] == (
        f"{A}: Kalshi lists it no more, the records here make 10.00 YES; its settlement may be missing"
    )


def test_a_position_that_cannot_be_read_is_not_taken_for_none(watch):
    """A garbled row may be of any market that seems to be missing; it is said, and nothing else."""
    account = replace(account_of([fill(1)]), positions={}, unread=(Refused("position", A, "position_fp is 'NaN'"),))

    watch.poll(account, ledger_of([fill(1)]))
    drift = watch.poll(account, ledger_of([fill(1)]))

    assert (drift.state, drift.drift_usd) == (Agreement.AGREES, 0)
    assert in_words(drift) == [f"position {A}: position_fp is 'NaN'; it is not compared"]


def test_figures_that_the_venue_leaves_out_are_not_compared(watch):
    """The contracts still are."""
    bare = Account(None, {A: Holding(Decimal(10), None, None, None), B: Holding(Decimal(-3), None, None, None)})

    watch.poll(bare, ledger_of([fill(1)]))
    drift = watch.poll(bare, ledger_of([fill(1)]))

    assert [each.ticker for each in drift.differences] == [B]
    assert (drift.drift_usd, drift.cash_usd) == (3, None)
    assert in_words(drift) == [
        f"{B}: Kalshi says 3.00 NO, the records here make none",
        "Kalshi gave no balance; it is not compared",
        f"{A}: Kalshi gave no realized P&L, fees or cost; it is not compared",
        f"{B}: Kalshi gave no realized P&L, fees or cost; it is not compared",
    ]


@pytest.mark.parametrize("account", [None, Account(), Account(balance_usd=DEPOSITED)])
def test_a_poll_that_failed_compares_nothing_and_forgets_nothing(watch, account):
    """No answer is not zero; what differed before it and after it is a drift."""
    baseline = watch.drift.baseline
    worlds = [fill(1), fill(2)], [fill(1)]

    states = [*watch.polls(worlds), watch.poll(account, ledger_of([])).state]
    unknown = watch.drift
    states += watch.polls(worlds)

    assert states == ["settling", "unknown", "drifts"]
    assert (unknown.drift_usd, watch.drift.baseline) == (None, baseline)
    assert in_words(unknown) == ["Kalshi's own figures are not known at the moment, so nothing is compared with them"]


def test_nothing_is_known_before_the_first_poll():
    """Unknown is not zero."""
    assert (Drift().state, Drift().drift_usd, Drift().cash_usd) == (Agreement.UNKNOWN, None, None)


def test_the_baseline_waits_until_nothing_is_on_its_way():
    """Set while the balance is a fill ahead, it would be wrong for good."""
    watch, fills = Watch(), [fill(n) for n in range(1, 5)]

    for known in (1, 2):
        watch.poll(account_of(fills[:known], balance_of=fills[: known + 1]), ledger_of(fills[:known]))
    too_early = watch.drift
    watch.polls((fills[:3], fills[:3]), (fills[:3], fills[:3]))

    assert (too_early.baseline, too_early.cash_usd) == (None, None)
    assert watch.drift.baseline.gap_usd == DEPOSITED
    assert watch.polls((fills, fills)) == ["agrees"]


def test_the_baseline_waits_for_a_settlement_that_is_missing():
    """Its payout is in the balance and in no record: a baseline with it would make its arrival a drift."""
    watch, fills = Watch(), [fill(1)]
    paid, row = account_of(fills, [settlement(fills)]), settlement(fills)

    watch.poll(paid, ledger_of(fills))
    watch.poll(paid, ledger_of(fills))
    missing = watch.drift
    states = [watch.poll(paid, ledger_of(fills, [row])).state for _ in range(3)]

    assert (missing.state, missing.baseline) == (Agreement.DRIFTS, None)
    assert states == ["agrees"] * 3
    assert watch.drift.cash_usd == 0


def test_a_recorded_baseline_shows_what_went_missing_while_the_program_was_off(watch):
    """A restart does not take the drift of the night for its new beginning."""
    again = Watch(Drift(baseline=watch.drift.baseline))
    account = replace(account_of([fill(1)]), balance_usd=account_of([fill(1)]).balance_usd - 3)

    again.poll(account, ledger_of([fill(1)]))
    drift = again.poll(account, ledger_of([fill(1)]))

    assert (drift.state, drift.cash_usd, drift.baseline) == (Agreement.UNEXPLAINED, -3, watch.drift.baseline)


def test_a_market_known_in_part_leaves_no_cash_behind_when_its_settlement_tells_the_rest():
    """Bought before the oldest fill, and before the baseline: the payout is new cash, the price is not."""
    watch, fills = Watch(), [fill(1), fill(2, "no", "3", "0.45")]
    row = settlement(fills)

    partly = watch.polls((fills, fills[1:]), (fills, fills[1:]))
    settled = [watch.poll(account_of(fills, [row]), ledger_of(fills[1:], [row])).state for _ in range(2)]

    assert (partly[-1], settled) == ("drifts", ["agrees", "agrees"])
    assert watch.drift.cash_usd == 0


def test_a_fill_that_never_came_leaves_no_cash_behind_when_its_settlement_tells_the_rest(watch):
    """Bought after the baseline: both the price and the payout are new cash."""
    fills = [fill(1), fill(2)]
    row = settlement(fills)

    partly = watch.polls((fills, fills[:1]), (fills, fills[:1]))
    settled = [watch.poll(account_of(fills, [row]), ledger_of(fills[:1], [row])).state for _ in range(2)]

    assert (partly[-1], settled) == ("drifts", ["agrees", "agrees"])
    assert watch.drift.cash_usd == 0


trades = st.tuples(
    st.sampled_from(["yes", "no"]),
    st.integers(1, 100_000).map(lambda n: Decimal(n).scaleb(-2)),
    st.integers(1, 9_999).map(lambda n: Decimal(n).scaleb(-4)),
    st.integers(-1_000, 90_000).map(lambda n: Decimal(n).scaleb(-6)),
    st.sampled_from([A, B]),
)


@given(st.lists(trades, max_size=40), st.sampled_from(["yes", "no", None]))
@settings(max_examples=200)
def test_the_cash_of_a_ledger_is_every_price_fee_pair_and_payout(history, result):
    """Exactly, for any history: rounding of average costs never leaks into it."""
    fills = [fill(n, *trade, ticker=ticker) for n, (*trade, ticker) in enumerate(history)]
    rows = [settlement(fills, result)] if result and any(f.ticker == A for f in fills) else []

    assert ledger_of(fills, rows).cash_usd == cash_of(fills, rows)


class TickingClock:
    """Moves on at every look, so that the answers of one poll are of different moments."""

    def __init__(self, now, tick=timedelta(seconds=1)):
        self.now, self._tick = now, tick

    def __call__(self):
        self.now += self._tick
        return self.now

    def timestamp(self):
        return self.now.timestamp()


class Polls:
    """A Kalshi source read poll by poll, its records in a ledger, and the account compared each time."""

    def __init__(self, sim, transport, clock):
        signer = Signer(sim.key_id, load_private_key(sim.private_key_path), clock=clock.timestamp)
        self.kalshi = Kalshi(sim.kalshi_url, signer, transport, clock=clock.timestamp, now=lambda: clock.now)
        self.kalshi._pace = Paced(per_second=10_000, burst=10_000)
        self.ledger, self.known, self.drift, self.clock = Ledger(), Known(), Drift(), clock

    async def poll(self):
        batch = await self.kalshi.poll(self.known)
        self.ledger.add(batch.fills, batch.settlements)
        self.known = Known({**self.known.cursors, **batch.cursors}, self.ledger.open_tickers)
        self.drift = compare(batch.account if batch.error is None else None, self.ledger, self.drift, at=self.clock.now)
        return self.drift

    async def day(self, every):
        """Poll through a day; returns every state that was seen."""
        states, end = set(), self.clock.now + timedelta(days=1)
        while self.clock.now < end:
            states.add((await self.poll()).state)
            self.clock.now += every
        return states

    async def quiet(self):
        """Poll until nothing is on its way."""
        for _ in range(5):
            self.clock.now += timedelta(seconds=10)
            if (await self.poll()).state is Agreement.AGREES and self.drift.baseline:
                break
        return self.drift


@asynccontextmanager
async def simulated(world, transport, clock):
    async with Simulator(world, now=clock, key_type="ed25519", limited=False) as sim:
        yield sim, Polls(sim, transport, clock)


YOUNG = datetime(2026, 12, 4, 12, tzinfo=UTC)
"""The living market begins a day and a half before: a busy one stays small."""


async def test_a_busy_day_of_the_living_market_is_free_of_alarms(transport):
    """A fill every three minutes, and reads seconds apart: some polls see one on its way, none sees a drift."""
    world = LivingMarket(seed=5, days=1, fills_per_day=450)
    async with simulated(world, transport, TickingClock(YOUNG)) as (_, polls):
        before = await polls.quiet()
        states = await polls.day(every=timedelta(minutes=10))
        drift = await polls.quiet()

    assert states == {Agreement.AGREES, Agreement.SETTLING}
    assert (drift.state, drift.drift_usd, drift.baseline) == (Agreement.AGREES, 0, before.baseline)
    assert abs(drift.cash_usd) < CENT
    assert polls.ledger.fill_count > 700


async def test_a_day_of_a_recorded_account_is_free_of_alarms(recorded_account, transport):
    """Fractional counts, fees of six decimals, settlements of markets that no fill shows: all of it explained."""
    clock = TickingClock(YOUNG)
    async with simulated(RecordedAccount(recorded_account, speed=1), transport, clock) as (_, polls):
        states = await polls.day(every=timedelta(minutes=12))
        drift = await polls.quiet()

    assert Agreement.AGREES in states <= {Agreement.AGREES, Agreement.SETTLING}
    assert (drift.state, drift.drift_usd) == (Agreement.AGREES, 0)
    assert abs(drift.cash_usd) < CENT
    assert polls.ledger.totals({}).settled_market_count > 1000


async def test_a_whole_recorded_account_agrees_at_once(recorded_account, transport):
    """2,938 settled markets and nothing open."""
    async with simulated(RecordedAccount(recorded_account), transport, TickingClock(YOUNG)) as (_, polls):
        drift = await polls.quiet()

    assert (drift.state, drift.drift_usd, drift.cash_usd, drift.differences) == (Agreement.AGREES, 0, 0, ())


async def test_a_deposit_of_the_living_market_is_the_only_cash_without_a_record(transport):
    """400 dollars in the middle of a day of trading, to the cent."""
    world = LivingMarket(seed=5, days=1, fills_per_day=40)
    async with simulated(world, transport, TickingClock(datetime(2027, 1, 2, 20, tzinfo=UTC))) as (_, polls):
        before = await polls.quiet()
        await polls.day(every=timedelta(minutes=30))
        after = await polls.quiet()

    assert before.cash_usd == 0
    assert (after.state, after.differences, after.cash_usd.quantize(CENT)) == (Agreement.UNEXPLAINED, (), 400)


def rows_of(field, rows):
    return lambda _: web.json_response({field: list(rows()), "cursor": ""})


@pytest.fixture
async def quiet_account(transport):
    """An account of some open markets, its clock, and the polls that have found it in order."""
    clock, world = TickingClock(YOUNG), LivingMarket(seed=5, days=1, fills_per_day=200)
    async with simulated(world, transport, clock) as (sim, polls):
        await polls.quiet()
        yield world, clock, sim, polls


def alone(world, clock):
    """The next fill whose market has no other for the two polls that follow: a minute at most."""
    fills = [fill for fill in world.fills(clock.now + timedelta(days=1)) if fill.at > micros(clock.now)]
    minute = timedelta(minutes=1) // timedelta(microseconds=1)
    return next(
        fill
        for fill in fills
        if not any(o.ticker == fill.ticker and 0 <= o.at - fill.at < minute and o != fill for o in fills)
    )


async def test_a_fill_that_the_venue_does_not_show_is_seen_within_two_polls(quiet_account):
    """With what it cost and its fee, to the micro-dollar; once it is read, all agrees again."""
    world, clock, sim, polls = quiet_account
    lost = alone(world, clock)
    sim.answers[FILLS] = rows_of("fills", lambda: map(fill_row, (f for f in world.fills(clock.now) if f != lost)))
    clock.now = moment(lost.at)

    first, second = [await polls.poll() for _ in range(2)]
    del sim.answers[FILLS]
    healed = await polls.quiet()

    (difference,) = second.differences
    moved = dict(cash_events(world.market(clock.now, lost.ticker)))[lost.at]
    assert (first.state, second.state) == (Agreement.SETTLING, Agreement.DRIFTS)
    assert difference.ticker == lost.ticker
    assert difference.count == Decimal(lost.count if lost.is_yes else -lost.count) / 100
    assert difference.cash_usd == Decimal(moved).scaleb(-6)
    assert first.drift_usd == second.drift_usd == abs(difference.cash_usd)
    assert (healed.state, healed.drift_usd) == (Agreement.AGREES, 0)


async def test_a_position_that_the_venue_changes_is_seen_within_two_polls(quiet_account):
    """By as many contracts, in that market alone."""
    world, clock, sim, polls = quiet_account
    ticker = next(p.market.ticker for p in world.open_positions(clock.now) if p.count > 0)

    def rows():
        for position in world.open_positions(clock.now):
            row = position_row(position)
            extra = 2 if position.market.ticker == ticker else 0
            yield row | {"position_fp": str(Decimal(row["position_fp"]) + extra)}

    sim.answers[POSITIONS] = rows_of("market_positions", rows)

    first, second = [await polls.poll() for _ in range(2)]

    assert (first.state, second.state) == (Agreement.SETTLING, Agreement.DRIFTS)
    assert [(each.ticker, each.count) for each in second.differences] == [(ticker, 2)]
    assert second.drift_usd > 0


async def test_a_position_row_that_makes_no_sense_is_said_and_not_compared(quiet_account):
    """It costs no figure and is no drift."""
    world, clock, sim, polls = quiet_account
    sim.answers[POSITIONS] = rows_of(
        "market_positions", lambda: [position_row(p) | {"position_fp": "NaN"} for p in world.open_positions(clock.now)]
    )

    first, second = [await polls.poll() for _ in range(2)]

    assert first.state == second.state == Agreement.AGREES
    assert len(second.uncompared) == len(world.open_positions(clock.now))
    assert "position_fp is 'NaN'" in in_words(second)[0]


async def test_a_poll_of_which_a_part_failed_is_not_compared(quiet_account):
    """Its fills may be older than its positions."""
    *_, sim, polls = quiet_account
    sim.answers[FILLS] = lambda _: web.Response(status=500)

    assert (await polls.poll()).state is Agreement.UNKNOWN


@pytest.mark.parametrize(("kept", "gap"), [(2, "0"), (1, "6.17")])
def test_a_settlement_and_the_fills_of_its_market_make_the_same_or_there_is_a_gap(kept, gap):
    """Each alone is folded to a P&L after fees; of a fill that is missing, its loss and its fee are the gap."""
    fills = [fill(1), fill(2, price="0.60", fee="0.17")]
    ledger = Ledger()
    ledger.add(fills[:kept], [settlement(fills, result="no")])

    [told] = settled(ledger)

    assert told.gap_usd == -Decimal(gap)
    assert told.by_row.fees_usd == Decimal("0.34")
    assert told.by_fills.fees_usd == Decimal("0.17") * kept
    assert told.book.fees_usd == Decimal("0.34")


def test_what_tells_nothing_of_a_settled_market_leaves_no_gap():
    """A settlement without counts holds the result alone, and fills may be older than the venue gives."""
    bare = replace(settlement([fill(1)]), yes_count=ZERO, yes_cost_usd=ZERO, fee_usd=ZERO)
    before = settlement([fill(2, ticker=B)], ticker=B)
    ledger = Ledger()
    ledger.add([fill(1)], [bare, before])

    by_fills, by_row = settled(ledger)

    assert (by_fills.by_row, by_fills.by_fills.realized_usd, by_fills.gap_usd) == (None, Decimal(6), None)
    assert (by_row.by_row.realized_usd, by_row.by_fills, by_row.gap_usd) == (Decimal(6), None, None)
