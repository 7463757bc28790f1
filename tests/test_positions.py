"""Positions at risk: each from the ledger and its mark, the sums those of the snapshot, and text that stays text."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnl.ledger import Ledger, Open, positions
from pnl.model import PnLModel
from pnl.records import MICRO, ZERO, Batch, Fill, Mark, Result, Settlement
from pnl.views import PositionsView
from pnl.views.lines import as_cells, as_lines
from pnl.views.positions import COLUMNS, MOST_ROWS, Positions, position_fields, positions_html, settles_in
from tests.test_model import Told, model_of

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\"'\tb\nc"
CELL = {name: place for place, name in enumerate(COLUMNS)}


def fill(ticker, side="yes", count="10", yes_price="0.40", number=1):
    count, price = Decimal(count), Decimal(yes_price)
    return Fill(f"{ticker}-{number}", ticker, side, count, price, Decimal("0.17"), is_taker=True, filled_at=NOW)


def mark(ticker, bid="0.50", ask="0.52", **changes):
    return replace(Mark(ticker, Decimal(bid), Decimal(ask), NOW), **changes)


def marked(*marks):
    return {each.ticker: each for each in marks}


async def told(*fills, marks=()):
    """A model that was told these fills and marks, and its texts at `NOW`."""
    model = model_of(Told("kalshi", Batch(fills=fills, marks=tuple(marks))), clock=lambda: NOW)
    await model.poll()
    return model, Positions(model, now=lambda: NOW)


def cells(texts):
    return as_cells(texts["positions"])


def test_a_position_is_what_is_held_of_a_side_and_what_it_cost():
    """NO costs one dollar less the YES price, and so does its mark."""
    ledger = Ledger()
    ledger.add([fill("KX-A"), fill("KX-B", "no", "20", "0.70"), fill("KX-C"), fill("KX-C", "no", number=2)])

    no, yes = positions(ledger, marked(mark("KX-A"), mark("KX-B", "0.60", "0.64")))

    assert (yes.ticker, yes.side, yes.count, yes.cost_usd, yes.average_price_usd) == (
        "KX-A",
        "yes",
        10,
        4,
        Decimal("0.4"),
    )
    assert (yes.price_usd, yes.value_usd, yes.unrealized_usd) == (Decimal("0.51"), Decimal("5.1"), Decimal("1.1"))
    assert (no.ticker, no.side, no.count, no.max_loss_usd) == ("KX-B", "no", 20, 6)
    assert (no.price_usd, no.value_usd, no.unrealized_usd) == (Decimal("0.38"), Decimal("7.6"), Decimal("1.6"))


def test_the_mark_may_be_what_a_position_could_be_sold_for_at_once():
    """The bid of the side that is held."""
    ledger = Ledger()
    ledger.add([fill("KX-A"), fill("KX-B", "no")])

    found = {each.ticker: each.price_usd for each in positions(ledger, marked(mark("KX-A"), mark("KX-B")), rule="bid")}

    assert found == {"KX-A": Decimal("0.50"), "KX-B": Decimal("0.48")}


def test_a_market_without_a_mark_has_a_cost_and_no_value():
    """Unknown is not zero, and what it cost can be lost all the same."""
    ledger = Ledger()
    ledger.add([fill("KX-A")])

    held = positions(ledger, {})

    assert held == [Open("KX-A", "yes", Decimal(10), Decimal("4.00"))]
    texts = position_fields(held, now=NOW)
    assert [texts[f"positions.{name}"] for name in ("cost", "value", "open")] == ["$4.00", "—", "—"]


trades = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["yes", "no"]), st.integers(1, 10_000), st.integers(1, 9_999)),
    max_size=12,
)


@settings(max_examples=30)
@given(trades=trades, priced=st.sets(st.sampled_from("ABC")), rule=st.sampled_from(["mid", "bid"]))
def test_the_open_pnl_of_all_rows_is_that_of_the_account(trades, priced, rule):
    """One definition: to the last digit, whatever was traded and whichever market has a mark."""
    ledger = Ledger()
    ledger.add([
        fill(ticker, side, Decimal(count) / 100, Decimal(price) / 10_000, number)
        for number, (ticker, side, count, price) in enumerate(trades)
    ])  # fmt: skip
    marks = marked(*(mark(ticker, "0.1234", "0.5679") for ticker in priced))

    held = positions(ledger, marks, rule=rule)

    totals = ledger.totals(marks, rule=rule)
    known = [each.unrealized_usd for each in held if each.unrealized_usd is not None]
    assert sum(known, ZERO) == totals.unrealized_usd
    assert tuple(sorted(each.ticker for each in held if each.mark is None)) == totals.unpriced
    assert [each.max_loss_usd for each in held] == sorted((each.max_loss_usd for each in held), reverse=True)
    assert ledger.cash_usd + sum((each.cost_usd for each in held), ZERO) == totals.realized_usd - totals.fees_usd


async def test_the_footer_is_the_snapshots_own_open_pnl():
    """As the strip above shows it, and all costs together are what is lost if all lose."""
    model, shown = await told(
        fill("KX-A", yes_price="0.4321"), fill("KX-B", "no", "7.77"), marks=[mark("KX-A"), mark("KX-B", "0.1", "0.2")]
    )

    texts = shown.texts()

    held = positions(model.ledger, model.marks)
    assert sum(each.unrealized_usd for each in held).quantize(MICRO) == model.snapshot.kalshi_unrealized
    assert texts["positions.open"] == "+$2.72"
    assert (texts["positions.cost"], texts["positions.lost"]) == ("$8.98", "-$8.98")
    assert texts["positions.value"] == "$11.70"
    assert texts["positions.count"] == "2"


async def test_a_row_says_what_is_at_risk_largest_first():
    """Exact, in words, the title where it is known."""
    ends = mark("KX-B", "0.30", "0.40", title="Rain", closes_at=NOW + timedelta(hours=5, minutes=9))
    _, shown = await told(fill("KX-A", count="1"), fill("KX-B", "no", "1500"), marks=[ends])

    first, second = cells(shown.texts())

    assert first == ["Rain", "KX-B", "NO", "1,500.00", "$0.6000", "$900.00", "$0.6500", "$975.00", "+$75.00", "5 h"]
    assert second == ["KX-A", "KX-A", "YES", "1.00", "$0.4000", "$0.40", "—", "—", "—", "—"]
    assert shown.texts()["positions.note"] == "1 without a price: not in the value and the open P&L."


async def test_a_mark_that_is_the_last_good_one_says_so():
    """The book is empty now."""
    empty = Batch(marks=(mark("KX-A", "0", "1"),))
    good = Batch(fills=(fill("KX-A"),), marks=(mark("KX-A"),))
    model = model_of(Told("kalshi", good, empty), clock=lambda: NOW)
    shown = Positions(model, now=lambda: NOW)
    await model.poll()
    assert cells(shown.texts())[0][CELL["Mark"]] == "$0.5100"

    await model.poll()

    assert cells(shown.texts())[0][CELL["Mark"]] == "$0.5100 last good"
    assert model.unquoted == {"KX-A"}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, "—"),
        (timedelta(minutes=-3), "due"),
        (timedelta(), "due"),
        (timedelta(seconds=20), "1 m"),
        (timedelta(minutes=59), "59 m"),
        (timedelta(hours=3), "3 h"),
        (timedelta(hours=47, minutes=59), "47 h"),
        (timedelta(days=40), "40 d"),
    ],
)
def test_how_long_until_it_settles(left, said):
    """In the unit that a person thinks in; unknown is a dash."""
    assert settles_in(None if left is None else NOW + left, NOW) == said


def test_none_and_unknown_are_not_the_same():
    """Nothing held costs nothing; of what was never heard of, nothing is known."""
    none, unknown = position_fields([], now=NOW), position_fields(None, now=NOW)

    sums = ("positions.count", "positions.cost", "positions.value", "positions.open", "positions.lost")
    assert [none[name] for name in sums] == ["0", "$0.00", "$0.00", "$0.00", "$0.00"]
    assert [unknown[name] for name in sums] == ["—"] * 5
    assert none["positions.note"] == "No position is open."


def test_where_no_position_is_known_it_is_said_why():
    """Not set up, or not heard of yet; and the names are there from the start."""
    model = PnLModel().read_from([], ["kalshi"])
    shown = Positions(model)
    before = shown.texts()
    model.show(model.put_together())

    after = shown.texts()

    assert before["positions.note"] == "Waiting for Kalshi's first answer."
    assert after["positions.note"] == "Kalshi is not set up."
    assert before["positions.count"] == after["positions.count"] == "—"
    assert before.keys() == after.keys() == position_fields([], now=NOW).keys()


async def test_many_positions_are_cut_and_all_of_them_are_in_the_sums():
    """The page stays small; the rest is counted."""
    many = [fill(f"KX-{number:03}") for number in range(MOST_ROWS + 34)]

    texts = (await told(*many))[1].texts()

    assert len(cells(texts)) == MOST_ROWS
    assert texts["positions.more"] == "and 34 more"
    assert texts["positions.cost"] == "$536.00"


async def test_texts_are_made_once_for_a_snapshot_and_a_minute():
    """They are asked for whenever anything is sent."""
    time = [NOW]
    batch = Batch(fills=(fill("KX-A"),), marks=(mark("KX-A", closes_at=NOW + timedelta(hours=1)),))
    model = model_of(Told("kalshi", batch), clock=lambda: NOW)
    shown = Positions(model, now=lambda: time[0])
    await model.poll()
    first = shown.texts()

    time[0] += timedelta(seconds=59)
    assert shown.texts() is first

    time[0] += timedelta(seconds=1)
    assert cells(shown.texts())[0][CELL["Settles in"]] == "59 m"
    await model.poll()
    assert shown.texts() is not first


async def test_a_market_that_settled_is_no_position_any_more():
    """Its row goes with the poll that brings the settlement."""
    settled = Settlement("KX-A", "KX", Result.YES, Decimal(10), Decimal(4), ZERO, ZERO, Decimal(10), ZERO, None, NOW)
    sources = Told("kalshi", Batch(fills=(fill("KX-A"),)), Batch(settlements=(settled,)))
    model = model_of(sources, clock=lambda: NOW)
    shown = Positions(model, now=lambda: NOW)
    await model.poll()
    assert shown.texts()["positions.count"] == "1"

    await model.poll()

    assert shown.texts()["positions.count"] == "0"
    assert shown.texts()["positions"] == ""


def test_rows_come_back_as_they_went_and_a_cell_stays_one_cell():
    """Tabs, line ends and what Unicode counts as such are blanks."""
    assert as_cells(as_lines([("a\tb", "c\nd\u2028e"), ("", "f")])) == [["a b", "c d e"], ["", "f"]]
    assert as_cells(as_lines([])) == []


async def test_a_title_that_attacks_is_text():
    """In one cell of one row."""
    _, shown = await told(fill("KX-A"), marks=[mark("KX-A", title=HOSTILE)])

    html = positions_html(shown.texts())

    assert "<img" not in html
    assert html.count("&lt;img") == 1
    assert html.count("<tr>") == 3
    assert [len(row) for row in cells(shown.texts())] == [len(COLUMNS)]


async def test_positions_in_a_cell_follow_their_model():
    """Without a server, a session or a script."""
    model = model_of(Told("kalshi", Batch(fills=(fill("KX-A"),))), clock=lambda: NOW)
    view = PositionsView(model)
    pane = view.__panel__()
    assert "Waiting for Kalshi" in pane.object

    await model.poll()

    assert "<td>KX-A</td>" in pane.object
    assert pane.get_root()
