"""Each viewer by itself in a plain Panel page, as in a notebook cell: handed what it shows, nothing else around it."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, timedelta
from decimal import Decimal

import panel as pn
import pytest
from bokeh.models import ColumnDataSource
from browsing import visit
from playwright.async_api import expect
from recording import KIND, NOON, Bookkeeper, deal, fill, recorded, settlement

from pnl.history.client import History
from pnl.model import PnLModel
from pnl.records import Batch, Mark, Reading, State
from pnl.stream.present import day_columns
from pnl.views import DaysView, FillsView, HistoryView, LineView, VerdictView
from pnl.views.beside import COLUMNS, empty
from pnl.views.fills import fills_frame

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.hurt=1">'
COLUMN = """(column) => [...Bokeh.documents[0].all_models]
    .filter((model) => model.type === "ColumnDataSource" && model.data[column] !== undefined)
    .map((model) => [...model.data[column]])"""


@asynccontextmanager
async def shown(browser, view):
    """A page with this view and nothing else, in a browser."""
    server = pn.io.server.get_server(lambda: view, port=0, start=True, show=False, address="127.0.0.1")
    try:
        async with visit(browser, f"http://localhost:{server.port}/") as page:
            yield page
            assert page.troubles == []
            assert await page.evaluate("window.hurt") is None
    finally:
        server.stop()


@pytest.fixture
def books():
    """A model that knows a market that was won after fees."""
    books = Bookkeeper()
    won = fill("f", "KXA-1-1", "yes", "10", "0.40", NOON)
    books.model.readings["kalshi"] = Reading("kalshi", State.FRESH, as_of=NOON)
    books.first = books.change(NOON, Batch(fills=(won,), settlements=(settlement("KXA-1-1", NOON),)))
    books.model.marks["KXA-1-1"] = Mark("KXA-1-1", Decimal("0.1"), Decimal("0.2"), NOON, title=HOSTILE)
    return books


async def test_the_verdict_follows_its_model(browser, books):
    """As soon as there is a newer snapshot, without a hub or an engine."""
    model = books.model
    async with shown(browser, VerdictView(model)) as page:
        net = page.locator('.net [data-text="net"]')
        await expect(net).to_have_text("—")

        model.show(books.first.snapshot)
        await expect(net).to_have_text("$5.93")

        model.show(replace(books.first.snapshot, sequence=99, total_revenue=Decimal(100), notes=(HOSTILE,)))
        await expect(net).to_have_text("$105.93")
        await expect(page.get_by_text(HOSTILE)).to_be_visible()


async def test_the_equity_of_a_range_is_read_from_a_history(browser, books, folder):
    """What was recorded when it was loaded."""
    later = NOON + timedelta(hours=3)
    path = await recorded(folder, books.first, books.change(later, Batch(deals=(deal("d", "100", later.date()),))))
    async with History(path, kind=KIND, zone="UTC", deadline_s=60) as history:
        view = HistoryView(history, zone="UTC", sources=["kalshi"])
        await view.load()

    async with shown(browser, view) as page:
        await expect(page.locator("canvas").first).to_be_visible()
        assert 105.93 in [usd for column in await page.evaluate(COLUMN, "net") for usd in column]


async def test_the_line_shows_the_columns_that_it_is_handed(browser):
    """The live ones beside the steps before them."""
    live = ColumnDataSource({"t": [1.0e12, 1.1e12], "net": [5.0, 7.0], "t0": [0.0, 0.0]})
    beside = {name: ColumnDataSource(empty(name)) for name in COLUMNS}
    async with shown(browser, LineView(live, beside, "UTC")) as page:
        await expect(page.locator("canvas").first).to_be_visible()

        assert await page.evaluate(COLUMN, "t0") == [[0, 0]]
        assert [5, 7] in await page.evaluate(COLUMN, "net")


async def test_the_days_are_those_of_a_model(browser, books):
    """The total and the days from one source."""
    columns = day_columns(books.model.day_totals(UTC))
    async with shown(browser, DaysView(ColumnDataSource(columns))) as page:
        await expect(page.locator("canvas").first).to_be_visible()

        assert await page.evaluate(COLUMN, "day") == [list(columns["day"])]
        assert await page.evaluate(COLUMN, "net") == [[5.93]]


async def test_the_fills_are_a_table_in_which_a_title_stays_text(browser, books):
    """Written exactly, newest first."""
    frame = fills_frame(books.model.ledger.fills(), books.model.marks, UTC)
    async with shown(browser, FillsView(frame)) as page:
        cell = page.locator(".tabulator-cell")

        await expect(cell.filter(has_text=HOSTILE)).to_be_visible()
        await expect(cell.filter(has_text="$0.4000")).to_be_visible()


async def test_a_model_that_knows_nothing_is_shown_all_the_same(browser):
    """A first look is no error."""
    model = PnLModel()
    views = pn.Column(VerdictView(model), FillsView(fills_frame(model.ledger.fills(), model.marks, UTC)))
    async with shown(browser, views) as page:
        await expect(page.get_by_text("Waiting for the first answers.")).to_be_visible()
