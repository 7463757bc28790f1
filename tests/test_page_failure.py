"""What the page does when something fails: the server, a source, a file, or the page itself while it is built."""

import re
import shutil
import signal

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from browsing import MONEY, ROOT, lost, number_moves, opened, served, until, visit
from playwright.async_api import expect

from pnl.simulator import LivingMarket, Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOURCES = ("kalshi", "anthropic", "john")
NUMBER = re.compile(r'<span data-text="net">-?\$[\d,]+\.\d\d</span>')
START = "\nserve(pn.state.curdoc)\n"
RAISE = """
from pnl.stream import Hub
from pnl.views.drawing import Drawing
from pnl.views.page import Dashboard
from pnl.views.past import Past


def broken(*_given, **_named):
    raise RuntimeError("broken today")


{} = broken
"""
CANNOT_BE_BUILT = {
    "the hub": RAISE.format("Hub.live"),
    "the plots": RAISE.format("Drawing.roots"),
    "the past": RAISE.format("Past.__init__"),
    "the page, once its sources are there": RAISE.format("Dashboard._follow"),
}
HOSTILE = '<img src=x onerror="window.hurt=1">' + "A" * 500
BARE = 20


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def demo(tmp_path_factory):
    """The demo, polled twice a second, with numbers."""
    async with served(tmp_path_factory.mktemp("demo"), PNL_KALSHI_POLL_S="0.5") as (_process, address):
        await until(lambda: has_number(address))
        yield address


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def quiet(tmp_path_factory):
    """The demo, polled so seldom that no page hears anything for half a minute."""
    async with served(tmp_path_factory.mktemp("quiet"), PNL_POLL_S="30") as (process, address):
        await until(lambda: has_number(address))
        yield process, address


async def has_number(address):
    async with ClientSession() as session, session.get(address) as answer:
        return NUMBER.search(await answer.text())


async def test_a_healthy_page_that_hears_nothing_for_long_asks_and_believes_the_answers(browser, quiet):
    """Without loading itself anew; how late an answer may be is a matter of the page's own clock."""
    _process, address = quiet
    async with visit(browser, address) as page:
        asked = []
        page.on("requestfinished", lambda request: asked.append(request.url) if "healthz" in request.url else None)
        await expect(page.locator("canvas").first).to_be_visible(timeout=20_000)
        await page.evaluate("window.stayed = true")

        await until(lambda: len(asked) > 5)

        await expect(lost(page)).to_be_empty()
        assert await page.evaluate("window.stayed")
        assert page.troubles == []


async def test_a_frozen_server_is_noticed_and_the_page_goes_on_when_it_thaws(browser, quiet):
    """Without a reload: the page is still followed."""
    process, address = quiet
    async with visit(browser, address) as page:
        await expect(page.locator("canvas").first).to_be_visible(timeout=20_000)
        await page.evaluate("window.stayed = true")

        process.send_signal(signal.SIGSTOP)
        await expect(lost(page)).to_contain_text("No word from the server")
        process.send_signal(signal.SIGCONT)

        await expect(lost(page)).to_be_empty(timeout=20_000)
        assert await page.evaluate("window.stayed")


async def test_a_frozen_servers_sources_grow_stale_in_the_page(browser, tmp_path):
    """The server called them fresh, and cannot take it back."""
    async with served(tmp_path, PNL_KALSHI_POLL_S="0.5") as (process, address), visit(browser, address) as page:
        kalshi = page.locator(".chip", has_text="Kalshi")
        await number_moves(page)
        await expect(kalshi).to_have_attribute("data-said", "fresh")

        process.send_signal(signal.SIGSTOP)

        await expect(kalshi).to_have_attribute("data-is", "stale")
        await expect(page.locator(".partial")).to_be_visible()


async def test_without_scripts_the_number_is_there_and_says_that_it_stands_still(browser, demo):
    """Read once, as it was."""
    async with visit(browser, demo, java_script_enabled=False) as page:
        await expect(page.locator('.net [data-text="net"]')).to_have_text(MONEY)
        await expect(page.locator(".as-of time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
        await expect(page.locator("noscript .lost")).to_be_visible()


async def test_without_the_files_that_draw_the_number_is_there_and_says_that_nothing_comes(browser, demo):
    """A blocked file must not cost the verdict."""
    async with opened(browser) as page:
        await page.route("**/static/**", lambda route: route.abort())
        await page.goto(demo)

        await expect(page.locator('.net [data-text="net"]')).to_have_text(MONEY)
        await expect(lost(page)).to_contain_text("The server answers, but sends no numbers")


async def test_what_several_sources_say_at_length_stays_text_and_fits_a_phone(browser, tmp_path):
    """Every error is readable, none is run, and the last known numbers stand beside them."""
    async with Simulator(LivingMarket(days=3)) as simulator:
        ours = served(tmp_path, PNL_POLL_S="0.5", **simulator.settings)
        async with ours as (_process, address), visit(browser, address, width=390) as page:
            chips = page.locator(".chip")
            for number in range(3):
                await expect(chips.nth(number)).to_have_attribute("data-is", "fresh")
            for asked in simulator.requests:
                simulator.answers[asked.split()[1]] = lambda _request: web.Response(text=HOSTILE)

            await expect(page.locator(".warning")).to_contain_text(HOSTILE[:40])
            for number in range(3):
                await expect(chips.nth(number)).to_have_attribute("data-is", "down")
            for name in SOURCES:
                await expect(page.locator(".warning")).to_contain_text(f"{name}: ")
            await expect(page.locator('.net [data-text="net"]')).to_have_text(MONEY)
            await expect(page.locator(".partial")).to_be_visible()
            for term in await page.locator(".equation .source").all():
                await expect(term).to_contain_text(re.compile(r"\$[\d,.]+ .*\n?.*\d+ s"))

            assert await page.evaluate("document.documentElement.scrollWidth") == 390
            box = "document.querySelector('.warning')"
            assert await page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
            assert await page.evaluate("window.hurt") is None
            assert await page.locator('img[src="x"]').count() == 0
            assert page.troubles == []


def broken_app(folder, harm):
    """A copy of the dashboard in which something happens once everything is imported."""
    shutil.copytree(ROOT / "app", folder / "app")
    main = folder / "app" / "main.py"
    whole = main.read_text()
    assert whole.count(START) == 1
    main.write_text(whole.replace(START, harm + START))
    return folder / "app"


@pytest.mark.parametrize("part", CANNOT_BE_BUILT)
async def test_a_page_that_cannot_be_built_says_so_with_a_reference_into_the_log(browser, tmp_path, part):
    """Never a spinner."""
    app = broken_app(tmp_path, CANNOT_BE_BUILT[part])
    async with served(tmp_path / "data", command=("panel", "serve", str(app))) as (process, address):
        await until(lambda: answers_with(address, "could not be built"))
        async with visit(browser, address) as page:
            said = page.get_by_role("alert")
            await expect(said).to_contain_text("This page could not be built")
            reference = re.search(r"reference (\w{8})", await said.inner_text())[0]

            await until(lambda: reference in "".join(process.said))
            await until(lambda: "RuntimeError: broken today" in "".join(process.said))
            assert await page.locator(".spinner, .pn-loading").count() == 0
            assert page.troubles == []


async def answers_with(address, text):
    async with ClientSession() as session, session.get(address) as answer:
        return text in await answer.text()


async def test_a_stream_that_breaks_leaves_the_page_as_it_is(browser, tmp_path):
    """The numbers stand, and the page says that no new ones come."""
    app = broken_app(tmp_path, RAISE.format("Hub._bring"))
    ours = served(tmp_path / "data", command=("panel", "serve", str(app)), PNL_KALSHI_POLL_S="0.5")
    async with ours as (process, address):
        await until(lambda: has_number(address))
        async with visit(browser, address) as page:
            await expect(page.locator("canvas").first).to_be_visible(timeout=20_000)
            await expect(lost(page)).to_contain_text("The server answers, but sends no numbers")

            await expect(page.locator('.net [data-text="net"]')).to_have_text(MONEY)
            assert "RuntimeError: broken today" in "".join(process.said)


async def test_a_page_that_was_asked_for_and_never_opened_is_forgotten(tmp_path):
    """Half of the web asks without a browser; nothing of it stays."""
    short = ("--unused-session-lifetime", "1000", "--check-unused-sessions", "500", "--log-level", "debug")
    async with served(tmp_path, command=("panel", "serve", "app/", *short)) as (process, address):
        await until(lambda: has_number(address))

        for _ in range(BARE):
            await has_number(address)

        await until(lambda: sum("successfully discarded" in line for line in process.said) > BARE)
