"""The page's panels in a real browser: where it came from, the rows behind every figure, and what keys do."""

import re
from decimal import Decimal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from browsing import answered, served, usd, visit
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = "[data-ledger] tr:not(.space)"
SERIOUS = {"serious", "critical"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address(tmp_path_factory):
    """The demo; its market stands still, so that a sum stays what it is while it is compared."""
    async with served(tmp_path_factory.mktemp("panels"), PNL_POLL_S="600") as (_, address):
        yield address


def text(page, name):
    return page.locator(f'[data-text="{name}"]').first


async def column(page, number):
    """The amounts of a column of the breakdown."""
    cells = await page.locator(f"[data-parts] tr > :nth-child({number})").all_inner_texts()
    return [usd(cell) for cell in cells if cell]


@pytest.mark.parametrize("term", ["fees", "costs", "revenue"])
async def test_a_term_of_the_equation_opens_exactly_the_rows_that_sum_to_it(browser, address, term):
    """The ledger's own sum is the term, and the address leads there again."""
    async with visit(browser, address) as page:
        await answered(page)
        amount = usd(await text(page, term).inner_text())

        await page.locator(f'[data-term="{term}"]').click()

        await expect(page).to_have_url(re.compile(f"term={term}"))
        await expect(text(page, "ledger.of")).not_to_have_text("everything")
        summed = usd(await text(page, "ledger.sum").inner_text())
        assert abs(summed) == amount
        await page.reload()
        await answered(page)
        assert usd(await text(page, "ledger.sum").inner_text()) == summed
        assert page.troubles == []


async def test_trading_is_the_rows_and_what_is_open(browser, address):
    """Open positions are in the number, and in no row: it is said how the two make it."""
    async with visit(browser, address) as page:
        await answered(page)

        await page.locator('[data-term="trading"]').click()
        await expect(page.locator(".and-open")).to_have_attribute("data-is", "trading")

        rows, open_, total = [
            usd(await page.locator(".and-open b:visible").nth(number).inner_text()) for number in range(3)
        ]
        assert abs(rows + open_ - total) <= Decimal("0.01")  # each of them is rounded to the cent
        assert total == usd(await text(page, "trading").inner_text())


async def test_a_row_of_the_breakdown_filters_everything_below_its_level(browser, address):
    """Series, event, market: each step is a chip and a place in the address, and all figures are of that part."""
    async with visit(browser, address) as page:
        await answered(page)
        await page.get_by_role("tab", name="Series").click()
        await expect(page.locator("[data-parts] tr")).not_to_have_count(3)
        row = page.locator("[data-parts] tr", has_text="KX").first
        name, net = await row.locator("button").inner_text(), usd(await row.locator("td").first.inner_text())

        await row.locator("button").click()

        await expect(page).to_have_url(re.compile(f"series={name}"))
        await expect(page.get_by_role("tab", name="Event")).to_have_attribute("aria-selected", "true")
        await expect(page.get_by_role("button", name=f"series: {name}")).to_be_visible()
        await expect(text(page, "past.net")).to_have_text(f"{'+' if net > 0 else '-'}${abs(net):,.2f}")
        await expect(page.locator("[data-parts-sum] td").first).to_have_text(
            f"{'+' if net > 0 else '-'}${abs(net):,.2f}"
        )
        await expect(text(page, "ledger.sum")).to_have_text(await text(page, "past.net").inner_text())

        await page.get_by_role("button", name=f"series: {name}").click()
        await expect(page).not_to_have_url(re.compile("series="))
        assert page.troubles == []


@pytest.mark.parametrize("tab", ["Source", "Series", "Side", "Model", "Deals", "Weekday", "Hour"])
async def test_the_parts_of_every_tab_sum_to_the_period(browser, address, tab):
    """To the cent of what each row shows, and to the last digit of what it is."""
    async with visit(browser, f"{address}?range=30d") as page:
        await answered(page)

        await page.get_by_role("tab", name=tab).click()
        await expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        await page.wait_for_function("window.pnl.text('parts.by') === window.pnl.wish.wanted.by")

        parts = await column(page, 2)
        whole = usd(await page.locator("[data-parts-sum] td").first.inner_text())
        assert abs(sum(parts) - whole) <= Decimal("0.005") * len(parts)
        assert whole == usd(await text(page, "past.net").inner_text())


async def test_a_day_of_the_calendar_is_a_filter(browser, address):
    """Each day tells its amount to those who do not see colours."""
    async with visit(browser, address) as page:
        await answered(page)
        await page.get_by_role("tab", name="Calendar").click()
        day = page.locator("button.day").last
        label = await day.get_attribute("aria-label")

        await day.click()

        name, amount = label.split(": ")
        await expect(page).to_have_url(re.compile(f"day={name}"))
        await expect(text(page, "past.net")).to_have_text(amount)
        assert await page.locator(".calendar").get_attribute("hidden") is None


async def test_any_row_of_the_ledger_is_scrolled_to(browser, address):
    """Only those that are seen are in the page; the last is the oldest."""
    async with visit(browser, address) as page:
        await answered(page)
        box = page.locator(".ledger .scroll")
        newest = await page.locator(f"{ROWS} .open").first.inner_text()

        await box.evaluate("box => { box.scrollTop = box.scrollHeight }")
        await expect(page.locator(f"{ROWS} .open").last).not_to_have_text(newest)
        await page.wait_for_function(
            "Number(window.pnl.text('ledger.first')) + window.pnl.text('ledger.rows').split('\\n').length"
            " === Number(window.pnl.text('ledger.count'))",
        )

        oldest = await page.locator(f"{ROWS} .open").last.inner_text()
        assert oldest < newest
        assert await page.locator(ROWS).count() < 150
        running = usd(await page.locator(f"{ROWS} td:last-child").last.inner_text())
        amount = usd(await page.locator(f"{ROWS} td:nth-child(10)").last.inner_text())
        assert running == amount.quantize(Decimal("0.01"))


async def test_the_ledger_is_sorted_and_searched(browser, address):
    """By the column's head, and by words; both are kept in the address."""
    async with visit(browser, address) as page:
        await answered(page)

        await page.locator('.ledger [data-sort="amount"]').click()
        await expect(page).to_have_url(re.compile("sort=-amount"))
        await expect(page.locator('.ledger th[aria-sort="descending"]')).to_contain_text("Amount")
        await page.wait_for_function(
            "(() => { const at = [...document.querySelectorAll('[data-ledger] tr:not(.space) td:nth-child(10)')]"
            ".map((cell) => Number(cell.textContent.replace(/[$,+]/g, '')));"
            "return at.length > 5 && at.every((usd, i) => i === 0 || at[i - 1] >= usd) })()",
        )
        await page.keyboard.press("/")
        await page.keyboard.type("kxbtc")
        await page.keyboard.press("Enter")

        await expect(page).to_have_url(re.compile("q=kxbtc"))
        await page.wait_for_function(
            "[...document.querySelectorAll('[data-ledger] tr:not(.space) td:nth-child(2)')]"
            ".every((cell) => cell.title.toLowerCase().includes('kxbtc'))",
        )


async def test_a_row_opens_its_record_and_closing_returns_to_it(browser, address):
    """As the store has it, with the formula that used it; by keyboard too."""
    async with visit(browser, f"{address}?kind=fill") as page:
        await answered(page)
        row = page.locator(f"{ROWS} .open").first
        await row.focus()

        await page.keyboard.press("Enter")

        drawer = page.locator("dialog.record")
        await expect(drawer).to_be_visible()
        await expect(drawer).to_contain_text("yes_price_micros")
        await expect(drawer).to_contain_text("kalshi_trades")
        await page.keyboard.press("Escape")
        await expect(drawer).not_to_be_visible()
        await expect(page.locator(f"{ROWS} .open").first).to_be_focused()


async def test_keys_do_what_the_overlay_says(browser, address):
    """Ranges, periods, comparison, amounts, colours; none while somebody types."""
    async with visit(browser, address) as page:
        await answered(page)

        await page.keyboard.press("?")
        await expect(page.locator("dialog.help")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog.help")).not_to_be_visible()
        await page.keyboard.press("4")
        await expect(page).to_have_url(re.compile("range=mtd"))
        await expect(page.locator('[data-shift="earlier"]')).to_be_enabled()
        await page.keyboard.press("[")
        await expect(page).to_have_url(re.compile(r"range=\d{4}-\d\d$"))
        await page.keyboard.press("c")
        await expect(page).to_have_url(re.compile("compare=1"))
        before = await page.locator("html").get_attribute("data-theme")
        await page.keyboard.press("d")
        await expect(page.locator("html")).not_to_have_attribute("data-theme", before or "")
        await page.locator('.ledger [name="q"]').focus()
        await page.keyboard.type("4dp")
        await expect(page).to_have_url(re.compile(r"range=\d{4}-\d\d&|range=\d{4}-\d\d$"))
        assert page.troubles == []


async def test_hidden_amounts_are_nowhere_in_the_page(browser, address):
    """Neither in a text nor in a title, old or new, after a reload too; and they come back."""
    amounts = r"() => document.querySelector('.pnl').innerText.match(/\$[\d,]+\.\d\d/g)"
    titles = (
        r"() => [...document.querySelectorAll('[title]')].map(({title}) => title).filter((t) => /\$[\d,]+\./.test(t))"
    )
    async with visit(browser, address) as page:
        await answered(page)
        net = await text(page, "net").inner_text()

        await page.keyboard.press("p")
        assert await page.evaluate(amounts) is None
        assert await page.evaluate(titles) == []
        await page.get_by_role("tab", name="Series").click()
        await page.wait_for_function("window.pnl.text('parts.by') === 'series'")
        assert await page.evaluate(amounts) is None
        await page.reload()
        await answered(page)
        assert await page.evaluate(amounts) is None

        await page.keyboard.press("p")
        await expect(text(page, "net")).to_have_text(net)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_nothing_keeps_anybody_out(browser, address, scheme, width):
    """Contrast, names, roles and order as the guidelines want them, by a well-known checker."""
    async with visit(browser, address, width=width, color_scheme=scheme) as page:
        await answered(page)

        found = await Axe().run(page)

        serious = [each for each in found.response["violations"] if each["impact"] in SERIOUS]
        assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in serious] == []


@pytest.mark.parametrize("said", ["?by=luck&sort=luck&term=luck", "?series=<img src=x onerror=alert(1)>", "?q=%00"])
async def test_an_address_that_makes_no_sense_is_text_and_shows_what_does(browser, address, said):
    """What is wrong in it is said, and nothing breaks."""
    async with visit(browser, f"{address}{said}") as page:
        await expect(page.locator("[data-ledger-count]")).not_to_be_empty()

        assert page.troubles == []
