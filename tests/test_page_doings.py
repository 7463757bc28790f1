"""What somebody does on the page beside looking: sources asked, notes pinned, files taken home; and how it looks."""

import csv
import io
import re
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio
from browsing import answered, served, settings_of, usd, visit
from playwright.async_api import expect

from pnl.simulator import RecordedAccount, Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<img src=x onerror=alert(1)>"
ARTEFACTS = Path(__file__).parent / "artefacts"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address(tmp_path_factory):
    """The demo, whose market stands still."""
    async with served(tmp_path_factory.mktemp("doings"), PNL_POLL_S="600", PNL_COST_BUDGET="1") as (_, address):
        yield address


def read(path):
    return Path(path).read_bytes().decode()


async def test_a_chip_opens_what_is_known_of_its_source_and_asks_it(browser, address):
    """By keyboard, too; its next try comes earlier than its turn."""
    async with visit(browser, address) as page:
        await answered(page)
        await page.locator(".chip").first.focus()

        await page.keyboard.press("Enter")

        drawer = page.locator("#health-kalshi")
        await expect(drawer).to_be_visible()
        await expect(drawer).to_contain_text("every 600 s")
        good = drawer.locator('[data-text="health.kalshi.good"]')
        before = await good.inner_text()
        await drawer.get_by_role("button", name="Sync now").click()
        await expect(good).not_to_have_text(before)
        await page.keyboard.press("Escape")
        await expect(drawer).not_to_be_visible()
        assert page.troubles == []


async def test_a_note_is_pinned_read_as_text_and_taken_away(browser, address):
    """By the form; it stands in the plot's own columns, too."""
    pinned = "() => Bokeh.documents[0].get_model_by_id('pnl-notes').data.text"
    async with visit(browser, address) as page:
        await answered(page)
        form = page.locator("[data-note]")

        await form.locator('[name="text"]').fill(HOSTILE)
        await form.get_by_role("button", name="Pin").click()

        row = page.locator('[data-rows="notes.rows"] tr', has_text=HOSTILE)
        await expect(row).to_be_visible()
        await page.wait_for_function(f"({pinned})().length === 1")
        assert await page.evaluate(pinned) == [HOSTILE]
        await row.get_by_role("button").click()
        await row.get_by_role("button").click()
        await expect(row).to_have_count(0)
        assert page.troubles == []


async def test_what_is_looked_at_is_taken_home_as_a_file(browser, address):
    """All rows of the filter, not those that are seen; they sum to what the page says."""
    async with visit(browser, f"{address}?source=kalshi&range=30d") as page:
        await answered(page)
        summed = usd(await page.locator('[data-text="ledger.sum"]').first.inner_text())

        async with page.expect_download(timeout=60_000) as taken:
            await page.keyboard.press("e")
        rows = list(csv.DictReader(io.StringIO(read(await (await taken.value).path()), newline="")))

        assert {row["source"] for row in rows} == {"kalshi"}
        assert len(rows) > 200
        assert sum(Decimal(row["net_usd"]) for row in rows).quantize(Decimal("0.01")) == summed


async def test_the_period_is_taken_home_as_a_report(browser, address):
    """Of the same range and filters."""
    async with visit(browser, f"{address}?source=kalshi&range=30d") as page:
        await answered(page)
        net = await page.locator('[data-text="past.net"]').inner_text()

        async with page.expect_download(timeout=60_000) as taken:
            await page.get_by_role("link", name="Report").click()
        html = read(await (await taken.value).path())

        assert net.removeprefix("+") in html
        assert "source = kalshi" in html


async def test_a_budget_that_is_spent_is_said_and_acknowledged(browser, address):
    """Calmly, beside how far it is; another visitor sees that it was seen."""
    async with visit(browser, address) as page:
        await answered(page)
        alert = page.locator(".alert", has_text="AI cost")
        await expect(alert).to_be_visible()
        await expect(page.locator(".budget")).to_contain_text("of $1.00")

        await alert.get_by_role("button", name=re.compile("Acknowledge")).click()

        await expect(alert).to_have_count(0)
    async with visit(browser, address) as page:
        await answered(page)
        await expect(page.locator(".alert", has_text="AI cost")).to_have_count(0)


async def test_a_recorded_account_is_on_the_page_to_the_last_digit(browser, tmp_path, recorded_account):
    """As in the command, the notebook and the report."""
    async with Simulator(RecordedAccount(recorded_account)) as simulator:
        ours = served(tmp_path, command=("pnl.cli", "serve"), **settings_of(simulator))
        async with ours as (_process, address), visit(browser, address) as page:
            await expect(page.locator(".net")).to_have_attribute("title", "-9002.824700 US dollars", timeout=60_000)
            await expect(page.locator('[data-text="ledger.sum"]').first).to_have_text("-$9,002.82", timeout=60_000)
            await page.wait_for_function("window.pnl.text('ledger.count') === '8267'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_the_whole_page_has_its_picture_taken(browser, address, scheme, width):
    """To be looked at; nothing of it is wider than the screen."""
    ARTEFACTS.mkdir(exist_ok=True)
    async with visit(browser, f"{address}?range=30d&compare=1", width=width, color_scheme=scheme) as page:
        await answered(page)
        await page.screenshot(path=ARTEFACTS / f"page-{width}-{scheme}.png", full_page=True)

        assert await page.evaluate("document.documentElement.scrollWidth") <= width
