"""The arithmetic: the recorded cases to the last digit, and what must hold for any history."""

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnl.ledger import Ledger, Position, acquire, event_of, fold, mark_price, payout, series_of, unrealized
from pnl.records import ZERO, Fill, Mark, Result, Settlement

VECTORS = Path(__file__).parents[2] / "shared" / "reference" / "pnl_vectors.json"
START = datetime(2026, 6, 1, tzinfo=UTC)


def fills_of(*trades, ticker="KXTEST-A-B"):
    """Each trade is (side, count, YES price) or (side, count, YES price, fee), a minute apart."""
    return [
        Fill(f"f{n}", ticker, side, Decimal(count), Decimal(price), Decimal(fee[0] if fee else 0), is_taker=True,
             filled_at=START + timedelta(minutes=n))
        for n, (side, count, price, *fee) in enumerate(trades)
    ]  # fmt: skip


def settlement_of(result, *, yes=("0", "0"), no=("0", "0"), revenue="0", fee="0", value=None, ticker="KXTEST-A-B"):
    return Settlement(
        ticker, event_of(ticker), Result(result), Decimal(yes[0]), Decimal(yes[1]), Decimal(no[0]), Decimal(no[1]),
        Decimal(revenue), Decimal(fee), None if value is None else Decimal(value), START + timedelta(days=1)
    )  # fmt: skip


def mark_of(bid, ask, ticker="KXTEST-A-B"):
    return Mark(ticker, Decimal(bid), Decimal(ask), START)


def vectors(kind):
    """The recorded cases; without the file, one skipped case that says so."""
    if not VECTORS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="the recorded cases are not beside this checkout"))]
    return [
        pytest.param(case, id=case.get("name", str(n))) for n, case in enumerate(json.loads(VECTORS.read_text())[kind])
    ]


def row_of(raw, revenue_key):
    return settlement_of(
        raw["market_result"],
        yes=(raw["yes_count_fp"], raw["yes_total_cost_dollars"]),
        no=(raw["no_count_fp"], raw["no_total_cost_dollars"]),
        revenue=Decimal(raw[revenue_key]) / 100,
        fee=raw["fee_cost"],
    )


@pytest.mark.parametrize("case", vectors("fills_vectors"))
def test_each_recorded_case_comes_out_exact(case):
    """Position, average price, realized, fees and cash of every case, to the last digit."""
    side = {"bid": "yes", "ask": "no"}
    trades = [(side[f["book_side"]], f["count_fp"], f["yes_price_dollars"], f["fee_cost"]) for f in case["fills"]]
    row = row_of(case["settlement"], "revenue_cents") if "settlement" in case else None
    if case["name"].startswith("P15"):
        row = settlement_of("void", yes=("10", "4.5"))

    book = fold("KXTEST-A-B", fills_of(*trades), row)

    assert book.position.count == Decimal(case["position_fp"])
    assert book.realized_usd == Decimal(case["realized_gross"])
    assert book.fees_usd == Decimal(case["fees"])
    assert book.oddity is None
    average = book.position.average_yes_price_usd
    assert (average and f"{average:.6f}") == case["avg_yes_price"]
    assert book.realized_usd - book.fees_usd - book.position.basis_usd == Decimal(case["cash_change"])


@pytest.mark.parametrize("case", vectors("settlement_row_vectors"))
def test_a_settlement_without_its_fills_counts_from_its_row(case):
    """Lifetime P&L of rows that are gross per side, fractional contracts included."""
    book = fold("KXTEST-A-B", [], row_of(case, "revenue"))

    assert book.realized_usd - book.fees_usd == Decimal(case["lifetime_pnl"])


def test_unrealized_is_at_the_middle_of_the_book_or_at_what_it_could_be_sold_for():
    """YES sells at the bid; NO sells at one dollar less the ask."""
    yes, no = Position(Decimal(60), Decimal(18)), Position(Decimal(-20), Decimal(13))

    assert unrealized(yes, mark_of("0.33", "0.35"), rule="bid") == Decimal("1.80")
    assert unrealized(no, mark_of("0.28", "0.30"), rule="bid") == Decimal("1.00")
    assert unrealized(yes, mark_of("0.33", "0.35")) == Decimal("2.40")


def test_a_settlement_whose_revenue_contradicts_its_result_is_computed_and_named():
    """Some accounts get zero revenue in every row; the result decides."""
    row = settlement_of("yes", yes=("10", "4"), revenue="0")

    book = fold("KXTEST-A-B", fills_of(("yes", "10", "0.40")), row)

    assert book.realized_usd == 6
    assert "revenue 0" in book.oddity


def test_contracts_that_no_fill_shows_are_taken_from_the_settlement_once():
    """Traded before the oldest fill: the row counts, and what the fills show is not counted twice."""
    row = settlement_of("no", yes=("30", "12"), no=("10", "5.5"), fee="0.9")

    book = fold("KXTEST-A-B", fills_of(("yes", "10", "0.40", "0.17"), ("no", "10", "0.45", "0.17")), row)

    assert book.realized_usd == 10 - 12 - Decimal("5.5")
    assert book.fees_usd == Decimal("0.9")
    assert "no fill shows" in book.oddity


def test_an_archived_market_settles_by_its_result_with_what_the_fills_hold():
    """Its row has no counts; the position of the fills is paid."""
    book = fold("KXTEST-A-B", fills_of(("no", "20", "0.65")), settlement_of("scalar", value="0.37"))

    assert book.realized_usd == 20 * Decimal("0.63") - 7


def test_a_scalar_payout_is_what_the_venue_paid_in_whole_cents():
    """3.93 contracts at 37 cents are 145.41 cents; 145 were paid."""
    row = settlement_of("scalar", yes=("3.93", "1"), revenue="1.45", value="0.37")

    assert payout(row, Decimal("3.93"), Decimal(1)) == (Decimal("1.45"), None)


def test_the_same_record_twice_changes_nothing_and_a_correction_replaces():
    """Totals are of what is known now, however often and in whatever order it came."""
    ledger = Ledger()
    fills = fills_of(("yes", "10", "0.40", "0.1"), ("no", "4", "0.45", "0.1"))
    ledger.add(fills)
    once = ledger.totals({})

    assert ledger.add(reversed(fills)) == ((), ())
    assert ledger.totals({}) == once

    corrected = fills_of(("yes", "10", "0.50", "0.2"))[0]
    assert ledger.add([corrected]) == ((corrected,), ())
    assert ledger.totals({}).fees_usd == Decimal("0.3")
    assert ledger.totals({}).realized_usd == Decimal("-0.20")


def test_a_market_without_a_price_is_named_and_left_out():
    """Unknown is not zero."""
    ledger = Ledger()
    ledger.add(fills_of(("yes", "1", "0.5"), ticker="KXA-1-1") + fills_of(("yes", "1", "0.5"), ticker="KXB-1-1"))

    totals = ledger.totals({"KXA-1-1": mark_of("0.6", "0.6", "KXA-1-1")})

    assert totals.unrealized_usd == Decimal("0.1")
    assert totals.unpriced == ("KXB-1-1",)
    assert ledger.open_tickers == {"KXA-1-1", "KXB-1-1"}


trades = st.tuples(
    st.sampled_from(["yes", "no"]),
    st.integers(1, 100_000).map(lambda n: Decimal(n).scaleb(-2)),
    st.integers(1, 9_999).map(lambda n: Decimal(n).scaleb(-4)),
    st.integers(-1_000, 90_000).map(lambda n: Decimal(n).scaleb(-6)),
)
prices = st.integers(1, 9_999).map(lambda n: Decimal(n).scaleb(-4))


def cash_of(fill):
    return -fill.cost_usd - fill.fee_usd


@given(st.lists(trades, max_size=40), prices)
@settings(max_examples=300)
def test_realized_and_unrealized_less_fees_are_the_cash_and_what_is_held(history, price):
    """Conservation: P&L = cash flow + value at mark, exactly, for any history of fills."""
    fills = fills_of(*history)
    pairs = min(sum((f.count for f in fills if f.side == side), ZERO) for side in ("yes", "no"))

    book = fold("KXTEST-A-B", fills)

    open_usd = unrealized(book.position, mark_of(price, price)) if book.position.count else ZERO
    value_usd = book.position.value_usd(price)
    assert book.realized_usd + open_usd - book.fees_usd == sum(map(cash_of, fills), ZERO) + pairs + value_usd


@given(st.lists(trades, min_size=1, max_size=30), st.sampled_from(["yes", "no"]), st.booleans())
@settings(max_examples=200)
def test_a_settled_market_is_worth_the_same_from_its_fills_and_from_its_row(history, result, with_fills):
    """The row formula and the fills agree to the last digit, whichever of them is at hand."""
    fills = fills_of(*history)
    sides = {side: [f for f in fills if f.side == side] for side in ("yes", "no")}
    gross = {
        side: (sum((f.count for f in some), ZERO), sum((f.cost_usd for f in some), ZERO))
        for side, some in sides.items()
    }
    net = gross["yes"][0] - gross["no"][0]
    row = settlement_of(
        result,
        **gross,
        revenue=max(net if result == "yes" else -net, ZERO),
        fee=sum((f.fee_usd for f in fills), ZERO),
    )

    book = fold("KXTEST-A-B", fills if with_fills else [], row)

    lifetime = row.revenue_usd + min(row.yes_count, row.no_count) - row.yes_cost_usd - row.no_cost_usd - row.fee_usd
    assert book.realized_usd - book.fees_usd == lifetime
    assert book.oddity is None


@given(st.lists(st.tuples(trades, st.sampled_from(["KXA-1-1", "KXA-1-2", "KXB-1-1"])), max_size=30))
@settings(max_examples=100)
def test_parts_sum_to_the_whole_by_market_event_series_and_day(history):
    """The same total everywhere."""
    ledger = Ledger()
    for n, (trade, ticker) in enumerate(history):
        fill = fills_of(*[trade] * (n + 1), ticker=ticker)[n]
        ledger.add([fill])

    totals = ledger.totals({})

    for parts in (
        ledger.by_market(),
        ledger.by_event(),
        ledger.by_series(),
        ledger.by_day(ZoneInfo("America/New_York")),
    ):
        assert sum(parts.values(), ZERO) == totals.realized_usd - totals.fees_usd


def test_a_late_evening_in_new_york_is_that_day_and_not_the_next_utc_one():
    """A day begins in the reporting time zone, also across a change of the clock."""
    ledger = Ledger()
    late = datetime(2026, 11, 1, 3, 30, tzinfo=UTC)
    ledger.add(
        [Fill("a", "KXA-1-1", "yes", Decimal(1), Decimal("0.5"), Decimal("0.02"), is_taker=True, filled_at=late)]
    )

    assert {f"{day}" for day in ledger.by_day(ZoneInfo("America/New_York"))} == {"2026-10-31"}
    assert {f"{day}" for day in ledger.by_day(UTC)} == {"2026-11-01"}


def test_tickers_name_their_event_and_series():
    """From the ticker alone, as the venue builds it."""
    assert event_of("KXBTCD-26MAY2504-T77299.99") == "KXBTCD-26MAY2504"
    assert series_of("KXBTCD-26MAY2504-T77299.99") == "KXBTCD"
    assert event_of("ODD") == series_of("ODD") == "ODD"


def test_closing_part_of_a_position_moves_its_average_cost():
    """Three contracts for two dollars: one of them leaves a third of the cost, rounded to 1e-8, and nothing leaks."""
    held = Position(Decimal(3), Decimal(2))
    fill = fills_of(("no", "1", "0.5"))[0]

    after, realized_usd = acquire(held, fill)

    assert after == Position(Decimal(2), Decimal("1.33333333"))
    assert realized_usd == 1 - Decimal("0.66666667") - Decimal("0.5")
    assert mark_price(mark_of("0.40", "0.44"), is_yes=False, rule="bid") == Decimal("0.44")


def read_csv(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_recorded_account_comes_out_exact(recorded_account):
    """Realized, fees and P&L of a real account to the last digit, whole and in every breakdown."""
    rows = read_csv(recorded_account / "fills.csv")
    fills = [
        Fill(
            fill_id=r["fill_id"],
            ticker=r["ticker"],
            side=r["outcome_side"],
            count=Decimal(r["count_fp"]),
            yes_price_usd=Decimal(r["yes_price_dollars"]),
            fee_usd=Decimal(r["fee_cost"]),
            is_taker=r["is_taker"] == "true",
            filled_at=datetime.fromisoformat(r["created_time"]),
        )
        for r in rows
    ]
    settlements = [
        Settlement(
            r["ticker"], r["event_ticker"], Result(r["market_result"]), Decimal(r["yes_count_fp"]),
            Decimal(r["yes_total_cost_dollars"]), Decimal(r["no_count_fp"]), Decimal(r["no_total_cost_dollars"]),
            Decimal(r["revenue"]) / 100, Decimal(r["fee_cost"]), Decimal(r["value"]) / 100 if r["value"] else None,
            datetime.fromisoformat(r["settled_time"]),
        )
        for r in read_csv(recorded_account / "settlements.csv")
    ]  # fmt: skip
    ledger = Ledger()

    ledger.add(fills, settlements)

    totals = ledger.totals({})
    assert totals.realized_usd == Decimal("-2873.713070")
    assert totals.fees_usd == Decimal("6129.111630")
    assert totals.pnl_usd == Decimal("-9002.824700")
    assert (totals.fill_count, totals.open_fill_count, totals.settled_market_count) == (5329, 0, 2938)
    assert totals.oddities == totals.unpriced == ()
    for parts in (
        ledger.by_market(),
        ledger.by_event(),
        ledger.by_series(),
        ledger.by_day(ZoneInfo("America/New_York")),
    ):
        assert sum(parts.values(), ZERO) == Decimal("-9002.824700")
    traded = {fill.ticker for fill in fills}
    assert sum((usd for ticker, usd in ledger.by_market().items() if ticker in traded), ZERO) == Decimal("-2711.734700")
