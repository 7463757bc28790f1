"""The report says what the history says, to the last digit; text from outside is text, hidden amounts are nowhere."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from recording import KIND, Bookkeeper, cost_day, deal, fill, instant, recorded, settlement

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.history.dimensions import filters_of
from pnl.history.figures import Part
from pnl.history.periods import period
from pnl.history.ranges import parse_range
from pnl.ledger import series_of
from pnl.records import Batch, Mark, Reading, Result, State
from pnl.report import Asked, file_name, gather, render
from pnl.report.tables import tree
from pnl.report.words import HIDDEN, Words
from pnl.simulator import RecordedAccount, Simulator
from pnl.simulator.demo import demo_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for many questions

NEW_YORK = ZoneInfo("America/New_York")
NOW = instant("2026-11-20 15:20:30.500")
ATTACKS = (
    "</title></style></script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload='alert(1)'>",
    "\u202eevil\u2066 עברית {{ 7 * 7 }} &lt;b&gt;",
    "x" * 10_000,
)
OPEN, DONE = "KXA-26NOV-T1", "KXB-26OCT-X"
HARMLESS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "body",
    "main",
    "header",
    "section",
    "aside",
    "footer",
} | {
    *("h1", "h2", "h3", "p", "b", "i", "br", "small", "bdi", "span", "div", "ul", "li", "dl", "dt", "dd", "figure"),
    *("figcaption", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"),
    *("svg", "defs", "pattern", "rect", "line", "path", "text", "g"),
}
MONEY = re.compile(r"-?\+?\$[\d,]+(?:\.\d+)?")


def business():
    """Trading, costs and deals of a few weeks, with hostile texts wherever there are any."""
    fills = [
        fill("f-1", DONE, "yes", "10", "0.40", instant("2026-10-30 23:59:59")),
        fill("f-2", DONE, "no", "4", "0.70", instant("2026-11-01 01:30:00")),
        fill("f-3", OPEN, "yes", "1000", "0.2505", instant("2026-11-10 12:00"), fee="1.3139"),
        fill("f-4", OPEN, "no", "300", "0.3101", instant("2026-11-20 09:00:10"), fee="0.45"),
    ]
    marks, settled = [Mark(OPEN, Decimal("0.30"), Decimal("0.32"), NOW, ATTACKS[0])], []
    for number, title in enumerate(ATTACKS):
        ticker = f"KXC-26NOV{number}-T{number}"
        at = instant("2026-11-12 10:00") + timedelta(hours=number)
        fills.append(fill(f"h-{number}", ticker, "yes", "20", "0.30", at))
        settled.append(settlement(ticker, at + timedelta(hours=9), Result.YES if number % 2 else Result.NO))
        marks.append(Mark(ticker, Decimal("0.30"), Decimal("0.32"), NOW, title))
    settled.append(settlement(DONE, instant("2026-11-02 00:00:00"), Result.NO))
    days = [cost_day(date(2026, 11, day), "1.2378912", "0.0000004") for day in range(1, 19)]
    days.append(cost_day(date(2026, 11, 19), "0.75", is_estimate=True))
    deals = [deal("d-1", "1200.5", date(2026, 11, 3), fee="35.01"), deal("d-2", "80", date(2026, 11, 20))]
    deals += [deal(f"h-{n}", "12.34", date(2026, 11, 5 + n)) for n in range(len(ATTACKS))]
    described = zip(deals, ("paid by bank", "$80 in cash", *ATTACKS), strict=True)
    return (
        Batch(fills=tuple(fills), settlements=tuple(settled), marks=tuple(marks)),
        Batch(cost_days=tuple(days)),
        Batch(deals=tuple(replace(each, description=text) for each, text in described)),
    )


def begun():
    """Give the changes of a start with that business: three polls, and one snapshot."""
    books, (trading, costs, deals) = Bookkeeper(), business()
    return [
        books.without_snapshot(NOW - timedelta(seconds=2), trading),
        books.without_snapshot(NOW - timedelta(seconds=1), costs, "anthropic"),
        books.change(NOW, deals, "deals:x"),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(tmp_path_factory):
    """Give the history of that business."""
    path = await recorded(tmp_path_factory.mktemp("report"), *begun())
    async with History(path, kind=KIND, zone="America/New_York", deadline_s=120) as history:
        yield history


def asked(text="all", **changes):
    wanted = parse_range(text, zone=NEW_YORK, now=NOW)
    return Asked(**{"range": wanted, "zone": NEW_YORK, "written_at": NOW + timedelta(seconds=1)} | changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def facts(history):
    """Give what the report of the last 30 days says."""
    return await gather(history, asked("last 30d"))


class Reader(HTMLParser):
    """Takes a page apart as a browser does."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts, self.title = set(), [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


# --- figures


async def test_the_equation_adds_up_to_what_the_history_booked(history, facts):
    """To the last digit, as it stands in the file."""
    booked = await history.booked(facts.asked.range.start, facts.asked.range.end)
    equation = render(facts).split('class="equation"')[1].split("</ul>")[0]
    trading, fees, costs, revenue, net = (
        Decimal(text.replace("$", "").replace(",", "")) for text in MONEY.findall(equation)
    )

    assert trading - fees - costs + revenue == net == booked.net_usd
    assert (trading, fees) == (booked.trading_usd, booked.fees_usd)
    assert facts.is_steady


async def test_every_breakdown_sums_to_the_total(facts):
    """And in the tree, series are their events and events their markets."""
    for by, parts in facts.parts.items():
        assert sum(part.net_usd for part in parts) == facts.booked.exact.net_usd, by
    lines = tree(facts.parts["market"])
    traded = [part for part in facts.parts["market"] if part.name is not None]

    assert sum(line.figures.net_usd for line in lines if line.level == 0) == sum(part.net_usd for part in traded)


def account(series, events, markets):
    """Give parts of a breakdown by market, no two alike."""
    return [
        Part(
            name=f"KX{s}-E{e}-T{m}",
            components={"kalshi_realized": Decimal((-1) ** m * (100 * s + 10 * e + m))},
            postings=1,
        )
        for s in range(series)
        for e in range(events)
        for m in range(markets)
    ]


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 5), (2, 9, 1), (12, 7, 5)])
async def test_the_tree_shows_the_largest_and_everything_else(size):
    """Each level sums to the one above it, and the table stays short."""
    parts = account(*size)
    lines = tree(parts)

    assert len(lines) < 100
    assert sum(line.figures.net_usd for line in lines if line.level == 0) == sum(part.net_usd for part in parts)
    assert sum(line.figures.postings for line in lines if line.level == 0) == len(parts)
    for number, line in enumerate(lines):
        below = []
        for other in lines[number + 1 :]:
            if other.level <= line.level:
                break
            below += [other.figures.net_usd] if other.level == line.level + 1 else []
        assert not below or sum(below) == line.figures.net_usd, line.name


async def test_a_recorded_account_is_the_same_in_the_report_and_everywhere(tmp_path, recorded_account):
    """To the last digit, in a file that is small."""
    async with Simulator(RecordedAccount(recorded_account)) as simulator:
        settings = demo_settings(load_settings(data_dir=tmp_path), simulator)
        async with Engine(settings) as engine:
            shown = await engine.sync()
            every = asked("all", written_at=datetime.now(UTC))
            made = await period(engine.history, every.range)
            html = render(await gather(engine.history, every))

    assert shown.net_pnl == made.booked.net_usd == Decimal("-9002.824700")
    equation = Reader(html.split('class="equation"')[1].split("</ul>")[0]).text
    assert equation.startswith("> -$2,873.71307 trading − $6,129.11163 fees")
    assert equation.endswith("= -$9,002.8247")
    assert "-$9,002.82" in html
    assert len(html.encode()) < 500_000


# --- what is not known


async def test_what_is_not_known_is_a_dash(history):
    """Not zero: of a year before the first record nothing is known."""
    html = render(await gather(history, asked("2020")))

    assert '<p class="net flat">' in html
    assert "Nothing is recorded of this period" in html
    assert not MONEY.search(Reader(html.split('class="equation"')[1].split("</ul>")[0]).text)


async def test_a_total_that_lacks_a_part_says_so_in_plain_words(facts):
    """With what is missing, and without a folder of this machine."""
    reading = Reading("john", State.STALE, as_of=NOW, error="/home/me/secret plans/deals.csv cannot be read")
    late = replace(facts.snapshot, sources=(reading,), missing=("2 positions without a price",))
    text = Reader(render(replace(facts, snapshot=late))).text

    assert "partial" in text
    assert "2 positions without a price" in text
    assert "deals.csv cannot be read" in text
    assert "/home" not in text


async def test_a_part_of_the_account_is_told_as_one(history):
    """Filters are printed, what they leave out is a dash, and its total is the ledger's."""
    filters = filters_of(["series=KXC"])
    found = await gather(history, asked("last 30d", filters=filters))
    html = render(found)

    rows = await history.ledger(found.asked.range.start, found.asked.range.end, filters=filters)
    assert found.booked.net_usd == rows.amount_usd
    assert "series = KXC" in Reader(html).text
    assert Reader(html.split('class="equation"')[1].split("</ul>")[0]).text.count("—") == 2
    assert {series_of(part.name) for part in found.parts["market"]} == {"KXC"}


async def test_a_filter_that_is_none_is_refused():
    """With one that is."""
    assert filters_of(["weekday=1", "series="]) == (("weekday", "1"), ("series", None))
    with pytest.raises(HistoryError, match="series=KXBTCD"):
        filters_of(["KXBTCD"])


async def test_what_makes_two_reports_comparable_is_printed(facts):
    """Period, comparison, filters, as-of, time zone and version."""
    told = replace(facts, asked=replace(facts.asked, title="July for the accountant", kind="simulated"))
    text = Reader(render(told)).text

    for printed in ("July for the accountant", "America/New_York", "none: everything counts", "pnl 0.", "SIMULATED"):
        assert printed in text
    assert "Figures as of 2026-11-20 15:20:30" in text


# --- what must not be in it


async def test_text_from_outside_is_text(facts):
    """No tag, no attribute and no script of a title; long ones are cut, and nothing turns the page around."""
    html = render(replace(facts, asked=replace(facts.asked, title=ATTACKS[0])))
    page = Reader(html)

    assert page.tags <= HARMLESS
    assert not [
        name for name, _ in page.attributes if name.startswith("on") or (name in ("href", "src") and _ != "data:,")
    ]
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "x" * 200 not in html
    assert "\u202e" not in html
    assert "\u2066" not in html
    assert "default-src 'none'" in html
    assert "://" not in html


async def test_hidden_amounts_are_nowhere(facts):
    """Neither in words nor in pictures, tooltips or what a person wrote; shapes and percentages are the same."""
    plain = render(facts)
    hidden = render(replace(facts, asked=replace(facts.asked, hides=True)))
    amounts = {text.lstrip("+-$") for text in MONEY.findall(plain)} - {"0", "0.00"}

    assert len(amounts) > 50
    assert HIDDEN in hidden
    assert "$" not in hidden.replace("These numbers", "")
    shown = Reader(re.sub(r"<style>.*?</style>", "", hidden, flags=re.DOTALL))
    said = {*re.findall(r"[\d,]+\.\d+", shown.text)} | {
        found for name, text in shown.attributes if name == "aria-label" for found in re.findall(r"[\d,]+\.\d+", text)
    }
    assert not said & {amount for amount in amounts if "." in amount}
    assert re.findall(r"[\d.]+ %", plain) == re.findall(r"[\d.]+ %", hidden)
    assert re.findall(r' d="[^"]+"', plain) == re.findall(r' d="[^"]+"', hidden)
    assert re.findall(r"<rect[^>]+>", plain) == re.findall(r"<rect[^>]+>", hidden)


@pytest.mark.parametrize("text", ["$5", "-$12.40", "+ $1,200.50", "€ 30", "£1.5", "−$2"])
async def test_an_amount_in_somebody_elses_words_is_hidden_too(text):
    """Also where a person wrote it into a description."""
    assert Words(NEW_YORK, hides=True).said(f"paid {text} at once") == f"paid {HIDDEN} at once"
    assert Words(NEW_YORK).said(f"paid {text} at once") == f"paid {text} at once"


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("-9002.8247", "-$9,002.8247"),
        ("12.4", "$12.40"),
        ("-0.0000001", "$0.00"),
        ("0.000001", "$0.000001"),
        (None, "—"),
    ],
)
async def test_exact_amounts_have_all_digits_and_cents_at_least(usd, shown):
    """A term of the equation."""
    assert Words(NEW_YORK).exact(None if usd is None else Decimal(usd)) == shown


async def test_a_file_is_called_by_its_period_and_instant():
    """In letters that every system takes."""
    wanted = parse_range("2026-07..2026-08-03T10:00", zone=NEW_YORK, now=NOW)

    assert file_name(wanted, NOW, NEW_YORK) == "pnl-report-2026-07-2026-08-03t10-00-2026-11-20-1520.html"
