"""Only what changed is sent: counted in the events of a real document."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnsPatchedEvent, ColumnsStreamedEvent

from pnl.model import PnLModel
from pnl.records import Reading, Snapshot, State, money
from pnl.stream import Hub, changed, day_columns, fields_of

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
SOURCES = ("kalshi", "anthropic", "john")
ZONE = ZoneInfo("America/New_York")


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


@pytest.fixture
def session():
    """A hub that knows a first snapshot, and one page that follows it, with its document's events."""
    model = PnLModel()
    hub = Hub(model, ZONE, SOURCES)
    model.show(snapshot_at())
    live = hub.live(on_records=lambda: None)
    document = Document()
    for source in (live.fields, live.line, live.days):
        document.add_root(source)
    events = []
    document.on_change(events.append)
    hub.join(document, live)
    events.clear()
    return model, hub, live, document, events


def shown(live):
    return dict(zip(live.fields.data["name"], live.fields.data["text"], strict=True))


def test_a_new_price_patches_only_the_texts_that_changed_and_adds_one_point(session):
    """One patch and one point; nothing is drawn anew."""
    model, _hub, live, _document, events = session

    model.show(snapshot_at(2, kalshi_unrealized=Decimal("9.20")))

    patched = [event for event in events if isinstance(event, ColumnsPatchedEvent)]
    streamed = [event for event in events if isinstance(event, ColumnsStreamedEvent)]
    assert (len(patched), len(streamed), len(events)) == (1, 1, 2)
    names = [live.fields.data["name"][index] for index, _text in patched[0].patches["text"]]
    assert set(names) == {"net", "trading", "unrealized", "exact", "as_of"}
    assert streamed[0].data["net"] == [-3.20]
    assert shown(live)["net"] == "-$3.20"


def test_an_equal_snapshot_changes_only_its_time(session):
    """What is equal is not sent."""
    model, _hub, live, _document, events = session

    model.show(snapshot_at(2))

    patched = next(event for event in events if isinstance(event, ColumnsPatchedEvent))
    assert [live.fields.data["name"][index] for index, _ in patched.patches["text"]] == ["as_of"]


def test_a_session_that_joins_late_is_brought_to_the_present(session):
    """What was published while its page was loading is there once, texts and points."""
    model, hub, _live, _document, _events = session
    late = hub.live(on_records=lambda: None)
    document = Document()
    for source in (late.fields, late.line, late.days):
        document.add_root(source)
    model.show(snapshot_at(2, total_revenue=Decimal(100)))

    hub.join(document, late)

    assert shown(late)["net"] == "$95.80"
    assert late.line.data["net"] == [-4.20, 95.80]
    assert late.line.data["t0"][0] <= late.line.data["t0"][1]


def test_a_session_that_left_is_not_written_to(session):
    """Nor kept."""
    model, hub, live, document, events = session

    hub.leave(document)
    model.show(snapshot_at(2, total_revenue=Decimal(100)))

    assert hub.session_count == 0
    assert events == []
    assert shown(live)["net"] == "-$4.20"


def test_a_pause_is_a_gap_in_the_line():
    """Time that nothing was recorded in is not drawn over."""
    hub = Hub(PnLModel(), UTC, SOURCES)

    hub.recall([(1_000_000, 5_000_000), (1_002_000, 6_000_000), (2_000_000, 7_000_000)])

    net = hub.live(on_records=lambda: None).line.data["net"]
    assert [usd if usd == usd else "gap" for usd in net] == [5.0, 6.0, "gap", 7.0]  # noqa: PLR0124 - NaN is not itself


def test_points_stand_at_the_wall_clock_of_the_reporting_zone():
    """Plots have no time zones: nine in the morning in New York is drawn at nine."""
    hub = Hub(PnLModel(), ZONE, SOURCES)

    hub.recall([(int(NOW.timestamp() * 1000), 0)])

    drawn = hub.live(on_records=lambda: None).line.data["t"][0]
    assert datetime.fromtimestamp(drawn / 1000, UTC).hour == 9


def test_every_text_is_there_from_the_start():
    """A text that came later would have no place in the pages that are open."""
    assert fields_of(None, SOURCES).keys() == fields_of(snapshot_at()).keys()


def test_a_snapshot_that_still_waits_for_a_source_is_shown_but_is_no_point(session):
    """A total on its way is no step in the line."""
    model, _hub, live, _document, _events = session
    waiting = (Reading("kalshi", State.DOWN), *snapshot_at().sources[1:])

    model.show(snapshot_at(2, sources=waiting))

    assert len(live.line.data["net"]) == 1
    assert shown(live)["kalshi.state"] == "waiting"
    assert shown(live)["state"] == "partial"


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


def test_the_older_of_two_snapshots_never_replaces_the_newer(session):
    """A commit that took long may end after the next one."""
    model, _hub, live, _document, _events = session

    model.show(snapshot_at(4, total_revenue=Decimal(9)))
    model.show(snapshot_at(2, total_revenue=Decimal(1)))

    assert shown(live)["net"] == "$4.80"


def test_days_run_up_to_their_total():
    """The last running total is the sum of the days."""
    days = {NOW.date(): Decimal("1.5"), NOW.date() + timedelta(days=1): Decimal(-4)}

    columns = day_columns(days)

    assert columns["net"] == [1.5, -4.0]
    assert columns["total"] == [1.5, -2.5]


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


def test_a_session_that_breaks_is_let_go_and_the_others_follow_on(session, caplog):
    """One broken page never stops the stream."""
    model, hub, live, _document, _events = session
    broken = hub.live(on_records=lambda: None)
    other = Document()
    other.add_root(broken.line)
    hub.join(other, broken)
    broken.fields.data = {"name": [], "text": []}

    model.show(snapshot_at(2, total_revenue=Decimal(100)))

    assert shown(live)["net"] == "$95.80"
    assert hub.session_count == 1
    assert "let go" in caplog.text


class Away:
    """A session's context once its page is closed: Bokeh keeps it for a while, and nobody listens."""

    def __init__(self):
        self.session = self
        self.connection_count = 0


def test_a_page_that_is_closed_is_written_to_no_longer(session):
    """Writing to it would keep its session in memory for ever."""
    model, hub, _live, _document, _events = session
    closed, context = Document(), Away()
    live = hub.live(on_records=lambda: None)
    closed.add_root(live.line)
    hub.join(closed, live)
    closed._session_context = lambda: context

    model.show(snapshot_at(2, total_revenue=Decimal(100)))

    assert hub.session_count == 1
    assert shown(live)["net"] != "$95.80"


class Busy(Away):
    """A session's context whose lock can be held, as Bokeh holds it while a callback runs in another thread."""

    def __init__(self):
        super().__init__()
        self.connection_count = 1
        self._lock = asyncio.Lock()


async def test_a_session_that_another_thread_works_on_is_brought_to_the_present_behind_it(session):
    """Two threads at one document would mix up their patches."""
    model, _hub, live, document, _events = session
    context = Busy()
    document._session_context = lambda: context
    async with context._lock:
        model.show(snapshot_at(2, total_revenue=Decimal(100)))
        model.show(snapshot_at(4, total_revenue=Decimal(200)))
        assert shown(live)["net"] == "-$4.20"

    async with asyncio.timeout(5):
        while shown(live)["net"] == "-$4.20":  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)

    assert shown(live)["net"] == "$195.80"
    assert live.line.data["net"] == pytest.approx([-4.2, 95.8, 195.8])
