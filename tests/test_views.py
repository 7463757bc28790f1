"""Viewers by themselves: what they show, and that text from outside stays text."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from pnl.model import PnLModel
from pnl.records import Fill, Mark, Reading, Snapshot, State
from pnl.stream import Hub, fields_of
from pnl.views import DaysView, FillsView, LineView, VerdictView
from pnl.views.fills import fills_frame
from pnl.views.verdict import verdict_html

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\"'"


def snapshot_of(**changes):
    nothing = Decimal(0)
    whole = Snapshot(
        taken_at=NOW,
        kalshi_realized=Decimal("12.5"),
        kalshi_unrealized=nothing,
        kalshi_fees=nothing,
        billed_costs=nothing,
        estimated_costs=nothing,
        total_revenue=nothing,
        trade_count=1,
        open_trade_count=0,
        settled_market_count=1,
        sources=(Reading("kalshi", State.FRESH, as_of=NOW),),
        sequence=1,
    )
    return replace(whole, **changes)


def fill_of(side="no", price="0.36"):
    return Fill("f", "KXA-1-1", side, Decimal("38.10"), Decimal(price), Decimal("0.616"), is_taker=True, filled_at=NOW)


def test_every_text_of_the_verdict_is_escaped():
    """An error text, a name of a source and a note may come from anywhere."""
    hostile = Reading(HOSTILE, State.STALE, as_of=NOW, error=HOSTILE)
    snapshot = snapshot_of(sources=(hostile,), missing=(HOSTILE,), notes=(HOSTILE,))

    html = verdict_html(fields_of(snapshot), [HOSTILE])

    assert "<img" not in html
    assert html.count("&lt;img") >= 4


def test_the_verdict_in_a_cell_follows_its_model():
    """Without a server, a session or a script."""
    model = PnLModel()
    view = VerdictView(model)
    pane = view.__panel__()
    assert "Waiting for the first answers" in pane.object

    model.show(snapshot_of())

    assert "$12.50" in pane.object


def test_fills_are_written_exactly_and_in_local_time():
    """The price is of the side that was acquired; the title stands beside the ticker where it is known."""
    titled = {"KXA-1-1": Mark("KXA-1-1", Decimal("0.1"), Decimal("0.2"), NOW, title=HOSTILE)}

    rows = fills_frame([fill_of(), fill_of("yes")], titled, ZoneInfo("America/New_York"))

    assert list(rows.loc[0]) == ["2026-11-22 09:00:00", f"{HOSTILE} · KXA-1-1", "NO", "38.10", "$0.6400", "$0.6160"]
    assert rows["Price"][1] == "$0.3600"
    assert fills_frame([fill_of()], {}, UTC)["Market"][0] == "KXA-1-1"


def test_no_fills_is_an_empty_table_with_its_columns():
    """The first look of a new user."""
    assert list(fills_frame([], {}, UTC).columns) == ["Time", "Market", "Side", "Contracts", "Price", "Fee"]


@pytest.mark.parametrize("kind", ["line", "days"])
def test_ranges_stay_in_the_browser(kind):
    """A range that syncs makes every browser answer every point."""
    live = Hub(PnLModel(), UTC, ("kalshi",)).live(on_records=lambda: None)
    plots = [LineView(live.line, "UTC").figure] if kind == "line" else [
        (view := DaysView(live.days)).total, view.bars
    ]  # fmt: skip

    assert not any(plot.x_range.syncable or plot.y_range.syncable for plot in plots)


def test_each_view_shows_itself():
    """In a notebook cell or an app of one's own."""
    live = Hub(PnLModel(), UTC, ("kalshi",)).live(on_records=lambda: None)
    views = (LineView(live.line, "UTC"), DaysView(live.days), FillsView(fills_frame([], {}, UTC)))

    assert all(view.__panel__().get_root() for view in views)


def test_counts_of_a_source_that_never_answered_are_unknown():
    """Not zero."""
    model = PnLModel().read_from([], ["kalshi", "anthropic", "john"])

    fields = fields_of(model.put_together())

    assert {fields[name] for name in ("trades", "open_trades", "settled")} == {"—"}
