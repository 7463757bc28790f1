"""The page in a real browser, served as a person serves it: `panel serve app/`."""

import re
import sqlite3
from contextlib import closing

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from browsing import free_port, number_moves, served, settings_of, visit
from playwright.async_api import expect

from pnl.simulator import LivingMarket, Simulator
from pnl.store import FILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '<img src=x onerror="window.hurt=1">'
LOADS = 20


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo(tmp_path_factory):
    """The demo, polled twice a second."""
    async with served(tmp_path_factory.mktemp("demo"), PNL_KALSHI_POLL_S="0.5") as (_process, address):
        yield address


async def test_with_nothing_set_a_live_demo_is_shown_and_nothing_leaves_the_machine(browser, demo):
    """A number that changes at each poll, marked DEMO, with plots and a table, and no error."""
    async with visit(browser, demo) as page:
        await number_moves(page)

        await expect(page.locator(".badge")).to_have_text("DEMO")
        await expect(page.locator(".chip")).to_have_text(
            [re.compile(name) for name in ("Kalshi", "Anthropic", "Deals")]
        )
        await expect(page.locator("[data-ledger] tr:not(.space)").first).to_be_visible(timeout=20_000)
        await expect(page.locator("canvas").first).to_be_visible()
        assert page.troubles == []


async def test_the_number_stands_in_the_html_itself(demo):
    """Before any script runs."""
    async with ClientSession() as session, session.get(demo) as answer:
        html = await answer.text()

    assert re.search(r'<span data-text="net">-?\$[\d,]+\.\d\d</span>', html)


async def test_the_terms_of_the_equation_add_up_to_the_number(browser, demo):
    """To the cent, or the page says that they are rounded."""
    async with visit(browser, demo) as page:
        await number_moves(page)
        texts = await page.evaluate(
            """() => Object.fromEntries(["trading", "fees", "costs", "revenue", "net", "equals"].map(
                (name) => [name, document.querySelector(`[data-text="${name}"]`).textContent]))"""
        )

    cents = {name: round(float(re.sub(r"[+$,]", "", text)) * 100) for name, text in texts.items() if name != "equals"}
    total = cents["trading"] - cents["fees"] - cents["costs"] + cents["revenue"]
    assert (total == cents["net"]) == (texts["equals"] == "=")
    assert abs(total - cents["net"]) <= 2


async def test_the_way_from_an_answer_to_the_pixel_is_measured_step_by_step(browser, demo):
    """By this very page: no row stays without a figure."""
    async with visit(browser, demo) as page:
        await number_moves(page)
        await page.locator(".timings summary").click()
        rows = page.locator('[data-rows="past.checklist"] tr')
        await expect(rows).to_have_count(11)

        await expect(rows.filter(has_text="not measured yet")).to_have_count(0, timeout=60_000)
        await expect(rows.filter(has_text="Browser render")).to_contain_text("< 50")
        assert page.troubles == []


async def test_it_fits_a_phone(browser, demo):
    """At 390 px nothing sticks out."""
    async with visit(browser, demo, width=390) as page:
        await number_moves(page)

        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_follows_the_systems_colours_and_remembers_a_choice(browser, demo, scheme):
    """Also after a reload."""
    shade = "getComputedStyle(document.body).backgroundColor"
    async with visit(browser, demo, color_scheme=scheme) as page:
        await number_moves(page)
        before = await page.evaluate(shade)
        await page.locator(".theme").click()
        chosen = await page.evaluate(shade)
        await page.reload()

        assert (before == "rgb(14, 17, 22)") == (scheme == "dark")
        assert chosen != before
        assert await page.evaluate(shade) == chosen


@pytest.mark.timeout(600)  # twenty loads on a machine that may be busy
async def test_it_loads_twenty_times_without_an_error_and_never_stands_still(browser, demo):
    """Some pages of figures froze silently in nine of ten loads; this one must not in any."""
    for _ in range(LOADS):
        async with visit(browser, demo) as page:
            await number_moves(page)
            assert page.troubles == []


async def test_a_hostile_market_title_is_text(browser, tmp_path):
    """It is read, not run, wherever it stands."""
    async with Simulator(LivingMarket(days=3)) as simulator:
        async with ClientSession() as session:
            tickers = ",".join(row["ticker"] for row in await open_markets(session, simulator))
            async with session.get(f"{simulator.kalshi_url}/markets", params={"tickers": tickers}) as answer:
                known = await answer.json()
        simulator.answers["/trade-api/v2/markets"] = lambda _request: web.json_response(
            {**known, "markets": [{**row, "yes_sub_title": HOSTILE} for row in known["markets"]]}
        )
        ours = served(tmp_path, command=("pnl.cli", "serve"), **settings_of(simulator))
        async with ours as (_process, address), visit(browser, address) as page:
            await expect(page.locator(".positions tbody tr").first).to_contain_text(HOSTILE)
            await expect(page.locator("[data-ledger]")).to_contain_text(HOSTILE)

            assert await page.evaluate("window.hurt") is None
            assert await page.locator('img[src="x"]').count() == 0
            assert page.troubles == []


async def open_markets(session, simulator):
    async with session.get(f"{simulator.kalshi_url}/markets", params={"status": "open", "limit": "1000"}) as answer:
        return (await answer.json())["markets"]


async def test_a_page_survives_the_death_of_its_server(browser, tmp_path):
    """It says that it hears nothing, and comes back by itself, with what was recorded."""
    port = free_port()
    async with served(tmp_path, port=port) as (process, address), visit(browser, address) as page:
        await number_moves(page)
        process.kill()
        await process.wait()
        await expect(page.get_by_text("No word from the server")).to_be_visible(timeout=20_000)

        async with served(tmp_path, port=port):
            await expect(page.get_by_text("No word from the server")).to_be_hidden(timeout=30_000)
            await number_moves(page)


async def test_a_setting_that_makes_no_sense_is_said_on_the_page(browser, tmp_path):
    """In plain words, with the setting's name, and without an endless spinner."""
    async with served(tmp_path, PNL_KALSHI_KEY_ID="abc") as (_process, address), visit(browser, address) as page:
        await expect(page.get_by_role("alert")).to_contain_text(
            "PNL_KALSHI_PRIVATE_KEY_PATH is not set", timeout=20_000
        )


async def test_a_store_that_cannot_be_used_is_said_until_it_can(browser, tmp_path):
    """A later version's file, which is left alone; once it is out of the way the numbers come by themselves."""
    later = tmp_path / "demo" / FILE
    later.parent.mkdir()
    with closing(sqlite3.connect(later)) as made:
        made.execute("PRAGMA user_version = 99")
    async with served(tmp_path) as (_process, address), visit(browser, address) as page:
        await expect(page.get_by_role("alert")).to_contain_text("was written by a newer version of pnl (schema 99")

        later.rename(later.with_suffix(".later"))

        await number_moves(page)
