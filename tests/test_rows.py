"""Rows from outside become records, or are set aside and named: nothing else ever comes of them."""

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from math import isfinite

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire import DEAL, SETTLEMENT, SONNET
from wire import FILL as WHOLE_FILL

from pnl.errors import BadRow
from pnl.sources import anthropic, john, kalshi, rows
from pnl.sources.transport import _decode

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
FILL = WHOLE_FILL | {"count_fp": "2.50", "created_time": "2026-06-11T06:29:30.164956Z"}
USAGE = SONNET | {
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "server_tool_use": {"web_search_requests": 10},
}
MARKET = {
    "ticker": "KXTEST-26DEC31-A",
    "event_ticker": "KXTEST-26DEC31",
    "yes_sub_title": "A",
    "yes_bid_dollars": "0.6000",
    "yes_ask_dollars": "0.6200",
    "last_price_dollars": "0.6100",
    "result": "scalar",
    "settlement_value_dollars": "0.3700",
    "settlement_ts": "2026-11-17T11:06:40Z",
    "close_time": "2026-11-17T11:00:00Z",
}
POSITION = {"ticker": "KXTEST-26DEC31-A", "position_fp": "-22.50"}
BILL = {"amount": "123.78912", "currency": "USD", "cost_type": "tokens", "description": "Claude Sonnet 5.5 Usage"}
TRANSACTION = {
    "id": "txn_1",
    "amount": 10_000,
    "fee": 320,
    "currency": "usd",
    "type": "charge",
    "created": 1_795_000_000,
    "description": None,
}
MAKERS = {
    "fill": (kalshi.fill, FILL),
    "settlement": (kalshi.settlement, SETTLEMENT),
    "archived settlement": (kalshi.archived_settlement, MARKET),
    "mark": (partial(kalshi.mark, as_of=NOW), MARKET),
    "position": (kalshi.position, POSITION),
    "bill": (partial(anthropic._cost_line, day=NOW.date()), BILL),
    "usage": (partial(anthropic._usage_line, day=NOW.date()), USAGE),
    "deal": (partial(john.deal, origin="deals"), DEAL),
    "transaction": (partial(john.balance_transaction, origin="stripe"), TRANSACTION),
}
HOSTILE = (
    *("NaN", "-Infinity", "sNaN", "1e308", "1e-999999", "1e999999999999999999999", "1_0", "٣", "0.001", "-0", ""),
    *("\ud800", "\0", "A" * 10_000, "yes", "bid", "void", "USD", "0001-01-01T00:00:00+23:59", "9999-12-31", "20260101"),
    *(10**4000, 2**63, -1, 0, True, None, [], {}, ["yes"], {"a": {}}, float("nan"), float("inf"), 1e308),
)


def on_the_wire(value):
    """The value as the transport hands it over."""
    return _decode("here", json.dumps(value).encode(), {})


def values(record):
    """Every number and text in a record, however deep."""
    parts = [getattr(record, field.name) for field in fields(record)] if is_dataclass(record) else record
    for part in parts if isinstance(parts, list | tuple) else ():
        yield part
        yield from values(part)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_good_row_becomes_a_record(kind):
    """The rows that the other tests damage are good ones."""
    make, row = MAKERS[kind]

    made, refused = rows.convert([on_the_wire(row)], make, what=kind, key="id")

    assert len(made) == 1
    assert refused == []


def assert_believed_or_set_aside(make, row):
    made, refused = rows.convert([on_the_wire(row)], make, what="row", key="ticker")

    assert len(made) + len(refused) == 1
    found = list(values([made, refused]))
    assert all(isfinite(value) for value in found if isinstance(value, Decimal | float))
    "".join(value for value in found if isinstance(value, str)).encode()  # what UTF-8 cannot hold, no file can


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:20])
def test_a_hostile_value_in_any_field_is_believed_or_set_aside(kind, value):
    """The values that broke parsers before: none raises anything but `BadRow`, or makes a number that is no number."""
    make, row = MAKERS[kind]

    for field in row:
        assert_believed_or_set_aside(make, {**row, field: value})


@given(kind=st.sampled_from(sorted(MAKERS)), field=st.integers(0, 20), value=any_json)
@example(kind="usage", field=4, value={"ephemeral_5m_input_tokens": "1e-999999"})
@settings(max_examples=400)
def test_any_json_in_any_field_is_believed_or_set_aside(kind, field, value):
    """Whatever a server answers, a row is a record or a refusal."""
    make, row = MAKERS[kind]
    name = sorted(row)[field % len(row)]

    assert_believed_or_set_aside(make, {**row, name: value})


@given(any_json)
@settings(max_examples=100)
def test_any_json_in_place_of_a_row_is_set_aside(value):
    """What is no object, or has none of the fields, is no fill."""
    made, refused = rows.convert([on_the_wire(value)], kalshi.fill, what="fill", key="fill_id")

    assert (len(made), len(refused)) == (0, 1)


def test_a_refused_row_is_named_and_its_neighbours_count():
    """One bad row costs one row: by its id where it has one, else by its place."""
    found = [
        FILL,
        {**FILL, "fill_id": "f-2", "fee_cost": "NaN"},
        7,
        {**FILL, "fill_id": ""},
        {**FILL, "fill_id": "f-5"},
    ]

    made, refused = rows.convert(found, kalshi.fill, what="fill", key="fill_id")

    assert [fill.fill_id for fill in made] == ["f-1", "f-5"]
    assert [str(row) for row in refused] == [
        "fill f-2: fee_cost is 'NaN', should be a finite number of at most 1,000,000,000",
        "fill number 3: is not an object",
        "fill number 4: fill_id is '', should be a text",
    ]
    assert [json.loads(row.raw) for row in refused] == found[1:4]


def test_a_number_finer_than_is_recorded_is_refused_and_not_rounded():
    """A count has 2 decimals and money 6; more digits mean that something is not understood."""
    assert rows.amount({"n": "0.120000"}, "n", unit=rows.CENTI) == Decimal("0.12")
    with pytest.raises(BadRow, match=r"finer than 0\.01"):
        rows.amount({"n": "0.125"}, "n", unit=rows.CENTI)
    with pytest.raises(BadRow, match="finer than"):
        rows.amount({"n": "0.0000001"}, "n")


@pytest.mark.parametrize("value", [True, 0.5, [], {}, None, "", "12,50", "half"])
def test_what_is_no_number_is_not_made_one(value):
    """True is not 1, and a binary float is never exact: the transport decodes into Decimal."""
    with pytest.raises(BadRow, match=r"n is .*, should be a number"):
        rows.amount({"n": value}, "n")


def test_cents_become_dollars_to_the_last_digit():
    """Bills hold fractions of a cent: nothing of them is rounded away."""
    assert rows.cents({"amount": "123.78912"}, "amount") == Decimal("1.2378912")
    assert rows.cents({"amount": "0.30000000000000004"}, "amount") == Decimal("0.0030000000000000004")


def test_a_day_is_the_utc_day_of_an_instant_or_the_date_itself():
    """A time without a zone is taken as UTC."""
    assert rows.day({"d": "2026-11-22"}, "d") == date(2026, 11, 22)
    assert rows.day({"d": "2026-11-22T23:30:00-05:00"}, "d") == date(2026, 11, 23)


def test_a_year_that_no_page_can_show_is_refused():
    """A frame of pandas ends in 2262, and a cursor far ahead would hide every later row."""
    with pytest.raises(BadRow, match="year 9999"):
        rows.instant({"t": "9999-12-31T00:00:00Z"}, "t")
    with pytest.raises(BadRow):
        rows.unix_instant({"t": 10**12}, "t")


def test_a_title_is_cut_and_stays_as_hostile_as_it_is():
    """Escaping is the page's work; here a title only becomes short and storable."""
    assert rows.label("<b>x</b>") == "<b>x</b>"
    assert rows.label("x" * 1000) == "x" * rows.LONGEST_TEXT
    assert rows.label("half \ud800 a pair") == "half ? a pair"
    assert rows.label("no\0thing") == "no?thing"
    assert rows.label(12) == ""
