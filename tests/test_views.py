"""Viewers by themselves: what they show, and that text from outside stays text."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource

from pnl.errors import HistoryDown, HistoryError
from pnl.history.buckets import BUCKETS
from pnl.history.client import Bars, Underwater
from pnl.history.figures import Booked, Drawdowns
from pnl.history.monitor import QueryMonitor
from pnl.model import PnLModel
from pnl.records import Fill, Mark, Reading, Snapshot, State
from pnl.stream import Hub, fields_of
from pnl.stream.present import day_columns
from pnl.views import DaysView, FillsView, HistoryView, LineView, VerdictView
from pnl.views.beside import COLUMNS, empty
from pnl.views.breakdown import BreakdownPanel
from pnl.views.drawing import Drawing
from pnl.views.equity import Edges, equity_columns, moment_of
from pnl.views.fills import fills_frame
from pnl.views.history import instant_html, period_html
from pnl.views.past import Past
from pnl.views.period import PeriodPanel
from pnl.views.verdict import verdict_html
from pnl.views.wish import Wish

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


def line_view():
    sources = {name: ColumnDataSource(empty(name)) for name in COLUMNS}
    return LineView(ColumnDataSource({"t": [], "net": [], "t0": []}), sources, "UTC")


def days_view():
    return DaysView(ColumnDataSource(dict(day_columns({}))))


@pytest.mark.parametrize("kind", ["line", "days"])
def test_ranges_stay_in_the_browser(kind):
    """A range that syncs makes every browser answer every point."""
    plots = [(view := line_view()).figure, view.strip] if kind == "line" else [days_view().figure]

    assert not any(plot.x_range.syncable or plot.y_range.syncable for plot in plots)


def test_each_view_shows_itself():
    """In a notebook cell or an app of one's own."""
    views = (line_view(), days_view(), FillsView(fills_frame([], {}, UTC)), HistoryView(Oracle(bars_of(1)), zone="UTC"))

    assert all(view.__panel__().get_root() for view in views)


def test_counts_of_a_source_that_never_answered_are_unknown():
    """Not zero."""
    model = PnLModel().read_from([], ["kalshi", "anthropic", "john"])

    fields = fields_of(model.put_together())

    assert {fields[name] for name in ("trades", "open_trades", "settled")} == {"—"}


def document_of(drawing):
    """What a session's document holds, without a server."""
    document = Document()
    live = Hub(PnLModel(), UTC, ("kalshi",)).live()
    for root in (*live.sources, *past_of(Oracle(bars_of())).models, *drawing.roots()):
        document.add_root(root)
    return document


def test_plots_that_were_drawn_once_follow_the_sources_of_each_session():
    """They are read as if they had been built for it, and what a browser does to them stays there."""
    drawing = Drawing("UTC")

    for read in (Document.from_json(document_of(drawing).to_json(deferred=False)) for _ in range(2)):
        by_name = {(type(root).__name__, root.name): root for root in read.roots}
        equity = by_name["figure", "equity"]
        sources = {renderer.name: renderer.data_source for renderer in equity.renderers}
        assert sources["live"] is by_name["ColumnDataSource", "line"]
        assert by_name["ColumnDataSource", "steps"] in [renderer.data_source for renderer in equity.renderers]
        assert {name for _, name in by_name} >= {"fields", "days", "past", "asked", "under", "daily", *COLUMNS}
        assert by_name["figure", "under"].x_range is equity.x_range
        assert not any(model.syncable for model in equity.references() if model.name in {"equity", "live"})


MINUTE = 60_000
NIGHT = 1_795_305_600_000  # 2026-11-22T00:00Z


def bars_of(*closes, bucket="1m", first=NIGHT, skipped=(), rebuilt=0):
    """Bars of whole dollars one after another; the first so many are rebuilt, and some are left out."""
    length = BUCKETS[bucket].length_ms
    kept = [number for number in range(len(closes)) if number not in skipped]
    micros = np.array([closes[number] * 1_000_000 for number in kept], np.int64)
    start = np.array([first + number * length for number in kept], np.int64)
    return Bars(
        bucket=bucket,
        start=start,
        open=micros,
        high=micros + 500_000,
        low=micros - 500_000,
        close=micros,
        mean=micros,
        count=np.ones(len(kept), np.int64),
        rebuilt=np.array([number < rebuilt for number in kept], np.bool_),
    )


def points(columns, name="net"):
    """The steps as (minutes since the night, US dollars), None for a gap."""
    pairs = zip(columns["t"], columns[name], strict=True)
    return [((t - NIGHT) / MINUTE, None if math.isnan(usd) else usd) for t, usd in pairs]


def test_the_last_bar_is_a_step_too():
    """It is drawn to where it ends."""
    assert points(equity_columns(bars_of(1, 2), UTC)) == [(0, 1), (1, 2), (2, 2)]


def test_time_without_a_snapshot_is_a_gap_and_one_missing_minute_is_none():
    """Polls are up to a minute apart; what is silent for longer than 90 seconds was not running."""
    one = points(equity_columns(bars_of(1, 2, 3, skipped=[1]), UTC))
    two = points(equity_columns(bars_of(1, 2, 3, 4, skipped=[1, 2]), UTC))

    assert one == [(0, 1), (2, 3), (3, 3)]
    assert two == [(0, 1), (1, 1), (1, None), (3, 4), (4, 4)]


def test_what_is_rebuilt_is_known_between_its_changes_and_until_the_first_snapshot():
    """Records have no gaps."""
    columns = equity_columns(bars_of(1, 2, 3, 4, 5, 6, skipped=[1, 2, 3], rebuilt=1), UTC)

    assert points(columns, "rebuilt") == [(0, 1), (4, 1), (5, None), (6, None)]
    assert points(columns) == [(0, None), (4, 5), (5, 6), (6, 6)]


def test_what_was_known_before_the_first_bar_is_carried_into_the_plot():
    """A window in which nothing happened shows the same as before."""
    edges = Edges(carried=(NIGHT, 7_000_000), held_until=NIGHT + 60 * MINUTE)
    none = equity_columns(bars_of(), UTC, edges)
    some = equity_columns(bars_of(8, first=NIGHT + 10 * MINUTE, rebuilt=1), UTC, edges)

    assert points(none, "rebuilt") == [(0, 7), (60, 7)]
    assert points(some, "rebuilt") == [(0, 7), (10, 8), (60, 8)]


def test_history_and_live_line_meet_in_one_point():
    """The last bar is still growing: it gives way to the points themselves."""
    columns = equity_columns(bars_of(1, 2, 3), UTC, Edges(live=(NIGHT + 2.5 * MINUTE, 9.0)))

    assert points(columns) == [(0, 1), (1, 2), (2, 3), (2.5, 9)]


def test_a_plot_shows_the_wall_clock_of_its_zone_on_both_sides_of_a_change():
    """In New York clocks went back on 2026-11-01 at 06:00 UTC."""
    zone = ZoneInfo("America/New_York")
    before = datetime(2026, 11, 1, 5, tzinfo=UTC)

    columns = equity_columns(bars_of(1, 2, 3, bucket="1h", first=int(before.timestamp() * 1000)), zone)

    hours = [datetime.fromtimestamp(t / 1000, UTC).hour for t in columns["t"]]
    assert hours == [1, 1, 2, 3]
    assert moment_of(columns["t"][2], zone) == before + timedelta(hours=2)


@pytest.mark.parametrize("far", [-1e300, 1e300, float(-(2**53)), float("inf")])
def test_a_plot_dragged_to_the_end_of_time_is_a_moment_all_the_same(far):
    """A browser may send any number."""
    assert 1970 <= moment_of(far, UTC).year <= 2200


class Oracle:
    """A history that answers what it is told to, or fails."""

    def __init__(self, bars):
        self.answer = bars
        self.error = None
        self.marks = 0
        self.queries = QueryMonitor()

    async def _said(self, answer):
        if self.error is not None:
            raise self.error
        return answer

    async def bars(self, _start=None, _end=None, **_how):
        return await self._said(self.answer)

    async def breakdown(self, _start=None, _end=None, **_how):
        return await self._said(())

    async def booked(self, _start=None, _end=None, **_how):
        return await self._said(Booked(components={"kalshi_realized": Decimal(5)}))

    async def underwater(self, _start=None, _end=None, **_how):
        self.marks += 1
        bars = await self._said(self.answer)
        return Underwater(bars.bucket, bars.start, np.maximum.accumulate(bars.close), bars.close * 0)

    async def drawdowns(self, _start=None, _end=None, **_how):
        return await self._said(Drawdowns(None, None, None, ()))

    async def snapshot_at(self, _moment, _sources):
        return await self._said(None)


def past_of(oracle, line=None, **wish):
    columns = line or {"t": [], "net": []}
    return Past(oracle, lambda: columns, zone="UTC", sources=["kalshi"], panels=[PeriodPanel()], wish=Wish(**wish))


async def test_a_history_that_is_down_is_said_and_what_is_shown_stays():
    """Figures of another range do not: they would be taken for this one's."""
    oracle = Oracle(bars_of(1, 2))
    past = past_of(oracle)
    await past.load()
    oracle.error = HistoryDown("no answer")
    await past.load()
    assert past.fields["past.error"] == "no answer"
    assert past.fields["past.trading"] == "+$5.00"
    assert points(past.drawn["steps"].data) == [(0, 1), (1, 2), (2, 2)]

    past.hear('{"turn": 1, "range": "7d"}')
    await past._loading
    assert past.fields["past.trading"] == "—"
    assert points(past.drawn["steps"].data) == [(0, 1), (1, 2), (2, 2)]

    oracle.error = None
    await past.load()
    assert past.fields["past.error"] == ""
    assert past.fields["past.trading"] == "+$5.00"


async def test_what_a_browser_could_not_have_written_is_not_heard():
    """Neither what is no JSON nor a wish of another shape."""
    past = past_of(Oracle(bars_of(1)))

    for said in ("", "{", "[]", '{"range": 7}', '{"window": [1]}', '{"window": ["a", "b"]}', '{"else": 1}'):
        past.hear(said)

    assert past._loading is None
    assert past.fields["past.turn"] == "0"


async def test_a_part_whose_source_is_not_set_up_is_unknown():
    """Not zero; and the period before is a dash where nothing is known of it."""
    past = past_of(Oracle(bars_of()), range="7d")

    await past.load()

    assert past.fields["past.costs"] == past.fields["past.revenue"] == "—"
    assert past.fields["past.fees"] == "$0.00"
    assert past.fields["past.trading.delta"] == "—"


def test_every_text_about_the_past_is_escaped():
    """They come from the address."""
    past = past_of(Oracle(bars_of()), range=HOSTILE, at=HOSTILE)

    html = period_html(past.fields) + instant_html(past.fields)

    assert past.fields["past.range"] == "all"
    assert "<img" not in html
    assert html.count("&lt;img") == 2


async def test_a_range_in_a_notebook_cell():
    """What is wrong with it is raised: there is no page to say it."""
    view = HistoryView(Oracle(bars_of(1, 2)), zone="UTC", sources=["kalshi"])

    await view.load()

    assert points(view.line.sources["steps"].data) == [(0, 1), (1, 2), (2, 2)]
    with pytest.raises(HistoryError, match="nonsense"):
        await HistoryView(Oracle(bars_of()), zone="UTC", range_="nonsense").load()


async def test_an_instant_that_is_looked_at_is_marked_in_the_plot():
    """Until it no longer is."""
    past = past_of(Oracle(bars_of(1)), at="2026-11-22 10:00")

    await past.load()
    assert past.drawn["instant"].data == {"t": [NIGHT + 10 * 60 * MINUTE]}

    past.hear('{"turn": 1}')
    await past._loading
    assert past.drawn["instant"].data == {"t": []}


async def test_a_page_that_draws_nothing_new_asks_for_no_marks():
    """Most answers add nothing to what the live line has shown meanwhile."""
    oracle = Oracle(bars_of(1, 2))
    past = past_of(oracle, range="2026-11-22T00:00..2026-11-22T01:00")
    await past.load()

    await past.load()

    assert oracle.marks == 1


async def test_the_live_line_goes_on_where_the_steps_end():
    """From the point that the last bar gave way to; before it, the browser leaves the time to the steps."""
    line = {"t": [NIGHT - MINUTE, NIGHT + 1.5 * MINUTE, NIGHT + 2 * MINUTE], "net": [7.0, 8.0, 9.0]}
    past = past_of(Oracle(bars_of(1, 2)), line)
    assert past.fields["past.live"] == "0"

    await past.load()

    assert points(past.drawn["steps"].data) == [(0, 1), (1, 2), (1.5, 8)]
    assert float(past.fields["past.live"]) == NIGHT + 1.5 * MINUTE


class Leaving(Oracle):
    """Answers while the page is closed: Bokeh empties its models."""

    async def bars(self, *asked, **how):
        self.past.leave()
        self.past.texts.data = {}
        return await super().bars(*asked, **how)


async def test_a_page_that_is_closed_while_it_waits_is_not_written_to(caplog):
    """Nor is that an error."""
    oracle = Leaving(bars_of(1))
    oracle.past = past = past_of(oracle)

    past.refresh()
    await past._loading

    assert past.fields["past.net"] == "—"
    assert caplog.text == ""


class Stumbling(Oracle):
    """Fails so many times for no reason that anybody foresaw."""

    def __init__(self, bars, failures):
        super().__init__(bars)
        self.failures = failures

    async def bars(self, _start=None, _end=None, **_how):
        self.failures -= 1
        if self.failures >= 0:
            raise RuntimeError("_pending_writes should be non-None")
        return self.answer


@pytest.mark.parametrize(("failures", "said", "trading"), [(2, 2, "+$5.00"), (100, 4, "—")])
async def test_what_fails_unforeseen_is_tried_again_a_few_times(monkeypatch, caplog, failures, said, trading):
    """Whoever has chosen something does not wait for the next record; nor does it go on for ever."""
    monkeypatch.setattr("pnl.views.past.REST_S", 0)
    past = past_of(Stumbling(bars_of(1), failures))

    past.hear('{"turn": 1, "range": "7d"}')
    await past._loading

    assert past.fields["past.trading"] == trading
    assert caplog.text.count("could not be shown\n") == said


class Growing(Oracle):
    """A record comes while the first answer is on its way."""

    count = 0

    async def booked(self, _start=None, _end=None, **_how):
        self.count += 1
        answer = Booked(components={"kalshi_realized": Decimal(self.count)})
        if self.count == 1:
            self.past.refresh()
        return await self._said(answer)


async def test_a_record_that_comes_while_the_page_is_filled_for_the_first_time_is_in_it():
    """The answer was of before."""
    oracle = Growing(bars_of(1))
    oracle.past = past = past_of(oracle)

    past.refresh()
    await past._loading

    assert past.fields["past.trading"] == "+$2.00"


class Overtaken(Oracle):
    """While the first question is on its way, somebody chooses a tab, and then another one."""

    def __init__(self, bars):
        super().__init__(bars)
        self.asked = []

    async def bars(self, _start=None, _end=None, **_how):
        self.asked.append("bars")
        if len(self.asked) == 1:
            self.past.hear('{"turn": 1, "by": "series"}')
        return await self._said(self.answer)

    async def booked(self, _start=None, _end=None, **_how):
        self.asked.append("booked")
        return await super().booked()

    async def breakdown(self, _start=None, _end=None, **how):
        self.asked.append(how["by"])
        if how["by"] == "series":
            self.past.refresh()
            self.past.hear('{"turn": 2, "by": "market"}')
        return await self._said(())


async def test_what_somebody_chooses_comes_before_what_is_read_anew():
    """Nobody waits for panels that nobody asked for, nor gets what was asked for before."""
    oracle = Overtaken(bars_of(1))
    panels = [PeriodPanel(), BreakdownPanel()]
    oracle.past = past = Past(oracle, lambda: {"t": [], "net": []}, zone="UTC", sources=["kalshi"], panels=panels)

    past.refresh()
    await past._loading

    assert past.fields["parts.by"] == "market"
    assert [name for name in oracle.asked if name in ("series", "market", "source")] == ["series", "market"]
    after = oracle.asked[oracle.asked.index("series") + 1 :]
    assert after[0] == "market"
    assert set(after) >= {"bars", "booked"}


async def test_a_range_that_is_over_has_no_live_line():
    """Its plot ends where it ends."""
    past = past_of(Oracle(bars_of(1, 2)), range="2026-07")

    await past.load()

    assert past.fields["past.live"] == ""
