"""The texts of the page: what a reader sees of a snapshot."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pnl.records import Reading, Snapshot, State, money
from pnl.stream.texts import changed, fields_of

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
SOURCES = ("kalshi", "anthropic", "john")


def snapshot_at(seconds=0, **changes):
    """A snapshot with three fresh sources, some seconds after the first."""
    at = NOW + timedelta(seconds=seconds)
    whole = Snapshot(
        taken_at=at,
        kalshi_realized=Decimal("30.10"),
        kalshi_unrealized=Decimal("8.20"),
        kalshi_fees=Decimal("2.11"),
        billed_costs=Decimal(40),
        estimated_costs=Decimal("0.39"),
        total_revenue=Decimal(0),
        trade_count=12,
        open_trade_count=2,
        settled_market_count=3,
        sources=tuple(Reading(name, State.FRESH, as_of=NOW) for name in SOURCES),
        sequence=seconds + 1,
    )
    return replace(whole, **changes)


def test_every_text_is_there_from_the_start():
    """A text that came later would have no place in the pages that are open."""
    assert fields_of(None, SOURCES).keys() == fields_of(snapshot_at()).keys()


def test_a_stale_source_freezes_the_instant_that_the_numbers_stand_for():
    """The age comes from the data, never from the clock that draws it."""
    old = NOW - timedelta(minutes=14)
    sources = (Reading("kalshi", State.STALE, as_of=old, error="kalshi: timed out"), *snapshot_at().sources[1:])

    fields = fields_of(snapshot_at(2, sources=sources))

    assert fields["as_of"] == "2026-11-22T13:46:00.000Z"
    assert fields["state"] == "partial"
    assert "kalshi: timed out" in fields["warning"]


def test_terms_that_round_to_another_sum_say_so():
    """A reader who adds up the cents is told why they differ."""
    thirds = {"kalshi_realized": Decimal("0.004"), "kalshi_unrealized": Decimal(0), "kalshi_fees": Decimal(0),
              "billed_costs": Decimal("-0.004"), "estimated_costs": Decimal(0)}  # fmt: skip

    assert fields_of(snapshot_at())["equals"] == "="
    assert fields_of(snapshot_at(**thirds))["equals"] == "≈"


def test_what_is_not_recorded_says_so():
    """A number that is live and not on disk is marked."""
    assert "Not recorded" in fields_of(snapshot_at(is_recorded=False))["warning"]


def test_money_is_written_as_people_read_it():
    """The sign stands before the dollar, and nothing is minus zero."""
    assert [money(Decimal(usd)) for usd in ("-12.4", "1234567.895", "-0.004", "0")] == [
        "-$12.40", "$1,234,567.90", "$0.00", "$0.00",
    ]  # fmt: skip
    assert money(Decimal("8.2"), signed=True) == "+$8.20"
    assert money(None) == "—"


def test_changed_names_only_what_differs():
    """Field by field."""
    assert changed({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == {"b": "3", "c": "4"}
