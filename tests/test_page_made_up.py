"""The page of a made-up business, event by event: what is put into the sources stands in every panel, to the cent."""

import re
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio
from browsing import complaint, opened, served, until
from made_up import MadeUp
from playwright.async_api import expect

from pnl.simulator import Simulator
from pnl.simulator.faults import FAULTS
from pnl.simulator.front import Front
from pnl.store import FILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.hurt=1">'
OTHER_WAY = "\u202eother way\u202c متجر"
ROWS = "[data-ledger] tr:not(.space)"
ALL_THAT_IS_SAID = """() => [
    document.body.innerText, ...[...document.querySelectorAll("[title]")].map((el) => el.title)
]"""
WRONG = ("refused", "hang", "not_a_number", "html_with_200", "truncated_json", "huge_float")
HELD = '[data-slots="positions"] tr'


class Business:
    """A world, the doors before it, and the page of the dashboard that reads them."""

    def __init__(self, world, front, page, address, said):
        self.world, self.front, self.page, self.address, self.said = world, front, page, address, said

    def text(self, name):
        return self.page.locator(f'[data-text="{name}"]').first

    async def says(self, **texts):
        """These texts of the page become so."""
        for name, text in texts.items():
            await expect(self.text(name.replace("__", "."))).to_have_text(text)

    async def has_rows(self, count):
        await expect(self.page.locator(ROWS)).to_have_count(count)

    def chip(self, source):
        return self.page.locator(f'.chip[data-says="{source}.state"]')

    async def is_well(self):
        """Nothing broke in the server or the page, nothing of a title ran, and it is not wider than the screen."""
        assert complaint(self.said) == ""
        assert self.page.troubles == []
        assert await self.page.evaluate("window.hurt") is None
        assert await self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@asynccontextmanager
async def dashboard(browser, folder, world, *, width=1280, **settings):
    """A real server on made-up sources that are read twice a second, and a page of it that has its numbers."""
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(world, limited=False))
        front = await stack.enter_async_context(Front(simulator))
        urls = {f"PNL_{name.upper()}": url for name, url in front.urls.items()}
        told = simulator.settings | urls | {"PNL_POLL_S": "0.5", "PNL_BREAKER_S": "1"} | settings
        process, address = await stack.enter_async_context(served(folder, command=("pnl.cli", "serve"), **told))
        page = await stack.enter_async_context(opened(browser, width=width))
        await page.goto(f"{address}?range=all")
        await expect(page.locator("[data-ledger-count]")).not_to_be_empty()
        yield Business(world, front, page, address, process.said)


@pytest_asyncio.fixture(loop_scope="module")
async def business(browser, tmp_path):
    """One in which nothing has happened yet."""
    async with dashboard(browser, tmp_path, MadeUp()) as business:
        yield business


async def test_before_anything_happened_every_panel_says_so(business):
    """Zero is known here, and no panel stands there as if it were broken."""
    await business.says(net="$0.00", positions__note="No position is open.", past__net="$0.00")
    for nothing in business.page.locator(".ledger > .none"), business.page.locator(".parts .none"):
        await expect(nothing).to_have_text(re.compile("^Nothing (is|was) booked in this period"))
        await expect(nothing).to_be_visible()
    await expect(business.page.locator(".ledger .scroll")).not_to_be_visible()
    await business.is_well()


async def test_a_page_that_is_slow_to_begin_lacks_nothing_of_what_came_before(browser, business):
    """Records that come after it took its document, and before it says that it can be written to."""
    held = []

    def hold(socket):
        server = socket.connect_to_server()

        def pass_on(message):
            if held or "document_ready" in message:
                held.append((server, message))
            else:
                server.send(message)

        socket.on_message(pass_on)

    async with opened(browser) as page:
        await page.route_web_socket("**/ws**", hold)
        await page.goto(f"{business.address}?range=all")
        await until(lambda: held)
        for count in (1, 2, 3):  # each page waits for its turn
            business.world.sells(f"d{count}", 500)
            await business.says(past__net=f"+${500 * count:,}.00")
        for server, message in held.copy():
            server.send(message)

        late = Business(business.world, business.front, page, business.address, business.said)
        await late.says(net="$1,500.00", past__net="+$1,500.00")
        await late.has_rows(3)
        await expect(late.text("past.step")).not_to_be_empty()
        await late.is_well()


async def test_each_thing_that_happens_is_in_every_number_it_belongs_to(business):
    """A fill, a price, a sale of a part, a deal and its refund, a bill: each by hand, to the cent."""
    world = business.world
    world.opens("KXHI-26NOV-T1", title=HOSTILE)
    world.trades("KXHI-26NOV-T1", 10, 40, fee="0.17")
    await business.says(net="$0.83", trading="+$1.00", fees="$0.17", unrealized="+$1.00", positions__count="1")
    await business.has_rows(1)
    await expect(business.page.locator("[data-ledger-count]")).to_have_text("1 row")
    await expect(business.page.locator(HELD).first).to_contain_text(HOSTILE)

    world.quotes("KXHI-26NOV-T1", 88, 90)
    await business.says(net="$4.73", unrealized="+$4.90", ledger__sum="-$0.17", positions__value="$8.90")

    world.trades("KXHI-26NOV-T1", 4, 89, is_yes=False, fee="0.05")
    await business.says(net="$4.68", realized="+$1.96", unrealized="+$2.94", past__net="+$1.74")
    await business.has_rows(2)

    world.sells("d1", 500, description=OTHER_WAY)
    await business.says(net="$504.68", revenue="$500.00", past__net="+$501.74")
    await business.page.get_by_role("tab", name="Deals").click()
    names = business.page.locator("[data-parts] th")
    await expect(names).to_have_text([re.compile("other way.* · d1$"), "everything else"])
    world.sells("d1", 500, status="refunded", description=OTHER_WAY)
    await business.says(net="$4.68", revenue="$0.00", past__net="+$1.74")

    world.spends("claude-opus-5-5", 200_000, hours_ago=30)
    await business.says(net="$0.68", costs="$4.00", past__net="-$2.26")
    await business.has_rows(4)
    await business.is_well()


async def test_a_settlement_closes_its_position_and_a_correction_of_it_turns_the_number(business):
    """Lost at first, then won after all: no panel goes on showing what is not true any more."""
    world, page = business.world, business.page
    for ticker in ("KXA-26NOV-1", "KXA-26NOV-2", "KXB-26NOV-1"):
        world.opens(ticker)
        world.trades(ticker, 100, 55, fee="1.75")
    await expect(page.locator(HELD)).to_have_count(3)

    for ticker in ("KXA-26NOV-1", "KXA-26NOV-2"):
        world.settles(ticker, value=0)
    await expect(page.locator(HELD)).to_have_count(1)
    await business.says(realized="-$110.00", settled="2", past__net="-$115.25", ledger__sum="-$115.25")

    world.settles("KXA-26NOV-1", value=100)
    await business.says(realized="-$10.00", settled="2", past__net="-$15.25", ledger__sum="-$15.25")
    await page.get_by_role("tab", name="Series").click()
    await expect(page.locator("[data-parts-sum]")).to_contain_text("-$15.25")
    await expect(page.locator("[data-parts] tr", has_text="KXA")).to_contain_text("-$13.50")
    await business.is_well()


async def test_what_a_source_gets_wrong_is_said_and_changes_no_number(business):
    """The others go on; when it is mended the page says nothing more of it."""
    warning, kalshi = business.page.locator(".warning"), business.chip("kalshi")
    business.world.opens("KXA-26NOV-1")
    business.world.trades("KXA-26NOV-1", 10, 40, fee="0.17")
    await business.says(net="$0.83")
    for number, fault in enumerate(WRONG):
        await business.front.put("kalshi", FAULTS[fault])

        await expect(warning).not_to_be_empty()
        business.world.sells(f"d{number}", 100)
        await business.says(net=f"${number + 1}00.83", revenue=f"${number + 1}00.00")
        await expect(business.chip("anthropic")).to_have_attribute("data-is", "fresh")
        await expect(business.page.locator(".partial")).to_be_visible()
        await business.front.put("kalshi", None)
        await expect(warning).to_be_empty()
        await expect(kalshi).to_have_attribute("data-is", "fresh")
        await business.says(net=f"${number + 1}00.83", trading="+$1.00")
    await business.is_well()


async def test_a_row_that_cannot_be_believed_is_named_behind_its_chip(business):
    """With its reason; once it is good again nothing is set aside."""
    business.world.opens("KXA-26NOV-1")
    business.world.trades("KXA-26NOV-1", 10, 40, fee="0.17")
    await business.says(net="$0.83")
    await business.front.put("kalshi", FAULTS["not_a_number"])
    await business.chip("kalshi").click()

    refused = business.page.locator('[data-rows="health.kalshi.refused.rows"] tr', has_text="fill")
    await expect(refused).to_contain_text("fee_cost is NaN, should be a finite number")
    await business.says(net="$0.83", health__kalshi__refused="3")
    await business.front.put("kalshi", None)

    await expect(refused).to_have_count(0)
    await business.says(net="$0.83")
    await business.is_well()


async def test_how_it_was_can_be_looked_at_and_every_amount_hidden(business):
    """What was shown before a deal came is shown for that instant; hidden is hidden in every panel, and stays it."""
    page, world = business.page, business.world
    world.opens("KXA-26NOV-1")
    world.trades("KXA-26NOV-1", 10, 40, fee="0.17")
    await business.says(net="$0.83", past__net="-$0.17")
    before = datetime.now(UTC)
    world.sells("d1", 500)
    await business.says(net="$500.83", past__net="+$499.83")

    await page.get_by_label("As of").fill(before.isoformat())
    await page.get_by_role("button", name="Look").click()
    await business.says(past__at__net="$0.83", net="$500.83")
    await page.keyboard.press("Escape")
    await page.locator("h2").first.click()
    await page.keyboard.press("p")

    await business.says(net="••••", past__net=re.compile("•"))
    for _ in range(2):
        texts = await page.evaluate(ALL_THAT_IS_SAID)
        assert [text for text in texts if re.search(r"\$\s?\d|\d US dollars", text)] == []
        await page.reload()
        await expect(page.locator(ROWS)).to_have_count(2)
    await business.is_well()


async def test_what_is_on_disk_late_is_in_every_panel_all_the_same(browser, tmp_path):
    """Another program holds the file: the number goes on, says that it is not recorded, and the rows follow."""
    async with dashboard(browser, tmp_path, MadeUp()) as business:
        business.world.opens("KXA-26NOV-1")
        business.world.trades("KXA-26NOV-1", 10, 50, fee="0.01")
        await business.says(past__net="-$0.01")
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            business.world.settles("KXA-26NOV-1", value=0)

            await business.says(net="-$5.01", warning=re.compile("^Not recorded"))
            await business.says(past__net="-$0.01")
            other.execute("ROLLBACK")

        await business.says(warning="", past__net="-$5.01", ledger__sum="-$5.01")
        await business.is_well()


async def test_a_losing_day_with_everything_down_leaves_the_number_on_a_phone(browser, tmp_path):
    """Whatever there is to be told of: it is folded, and the number stays on the first screen."""
    limits = {"PNL_DAILY_LOSS_LIMIT": "20", "PNL_COST_BUDGET": "1", "PNL_ALERT_HOLD_S": "0"}
    async with dashboard(browser, tmp_path, MadeUp(), width=390, **limits) as business:
        world, page = business.world, business.page
        world.opens("KXA-26NOV-1")
        world.trades("KXA-26NOV-1", 100, 55, fee="1.75")
        world.settles("KXA-26NOV-1", value=0)
        world.spends("claude-opus-5-5", 200_000, hours_ago=30)
        await business.says(net="-$60.75")
        await expect(page.locator(".alert").first).to_contain_text("Daily loss")

        for source in ("kalshi", "anthropic", "john"):
            await business.front.put(source, FAULTS["refused"])

        for source in ("kalshi", "anthropic", "john"):
            await expect(business.chip(source)).to_have_attribute("data-is", "down")
        await expect(page.locator(".alerts summary")).to_contain_text("more: ")
        await expect(page.locator(".alert:visible")).to_have_count(1)
        net = await page.locator(".net").bounding_box()
        assert net["y"] + net["height"] < 850
        await page.locator(".alerts summary").click()
        await expect(page.locator(".alert:visible").nth(2)).to_be_visible()
        await business.is_well()


async def test_amounts_of_any_size_fit_a_phone_and_stay_exact(browser, tmp_path):
    """A million contracts at a tenth of a cent, and a deal of a hundred million."""
    async with dashboard(browser, tmp_path, MadeUp(), width=390) as business:
        business.world.opens("KXVERYLONGSERIESNAME-26NOV23-ANDALONGEREVENT-T99999.99", title="long " * 60)
        business.world.trades("KXVERYLONGSERIESNAME-26NOV23-ANDALONGEREVENT-T99999.99", 1_000_000, 0.1, fee="0.000001")
        business.world.sells("d" * 80, "123456789.01", description="W" * 300)
        net = Decimal("123456789.01") + Decimal(1_000_000) * Decimal("0.499") - Decimal("0.000001")

        await expect(business.page.locator(".net")).to_have_attribute("title", f"{net} US dollars")
        await business.has_rows(2)
        await business.is_well()
