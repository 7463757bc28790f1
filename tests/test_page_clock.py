"""The page's script alone: its clock moves when told, and the server is a function of the test."""

import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from browsing import COUNT_LATE, lost, opened
from playwright.async_api import expect

from pnl.stream import fields_of
from pnl.views.page import same_on_every_page
from pnl.views.verdict import asset, templates, verdict_html

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
SOURCES = ("kalshi", "anthropic", "john")
POLLS = {"kalshi": 2.0, "anthropic": 60.0, "john": 30.0}
LATE_S = 8
HOSTILE = "<img src=x onerror=alert(1)>"
STAGE = "http://localhost:1/app"

NEVER = "() => new Promise(() => {})"
AT_ONCE = "() => Promise.resolve(new Response('ok'))"
REFUSED = "() => Promise.reject(new TypeError('Failed to fetch'))"
GATEWAY = "() => Promise.resolve(new Response('', {status: 502}))"
AFTER_A_SECOND = "() => new Promise((done) => setTimeout(() => done(new Response('ok')), 1000))"
AT_ONCE_AND_BEHIND = """() => Promise.resolve(new Response("ok", {
    headers: {"Now-Ms": String(Date.now() - %d)}}))"""


def texts(**changes):
    """Every text of a page whose sources all answered at `NOW`."""
    answered = {f"{name}.{what}": text for name in SOURCES for what, text in (("state", "fresh"), ("as_of", iso(NOW)))}
    return {**fields_of(None, SOURCES), "net": "$12.40", "state": "complete", "warning": "", **answered,
            "as_of": iso(NOW), **{name.replace("__", "."): text for name, text in changes.items()}}  # fmt: skip


def iso(moment):
    return moment.isoformat().replace("+00:00", "Z")


def page_html(fields):
    """The page as it is served, without its plots."""
    given = same_on_every_page() | {"scripts_here": [asset("page.js")], "zone": "UTC", "late_ms": LATE_S * 1000}
    verdict = verdict_html(fields, SOURCES, polls=POLLS, zone=UTC)
    return templates.get_template("page.html").render(given, verdict=verdict, f={}, live=fields, roots=())


@asynccontextmanager
async def staged(browser, *, answers=AT_ONCE, fields=None, **options):
    """The page at `NOW`, where its clock stands still until `passes` moves it."""
    async with opened(browser, **options) as page:
        page.loads = []
        await page.clock.install(time=NOW - timedelta(minutes=1))
        await page.clock.pause_at(NOW)
        await page.route("**/*", lambda route: _serve(page, route, page_html(fields or texts())))
        await page.add_init_script(f"window.asked = 0; window.server = {answers};"
                                   "window.fetch = (...call) => (window.asked++, window.server(...call))")  # fmt: skip
        await page.goto(STAGE)
        yield page


async def _serve(page, route, html):
    page.loads.append(route.request.url)
    await route.fulfill(body=html, content_type="text/html")


async def _stay(again, route):
    again.append(route.request.url)
    await route.fulfill(status=204)  # a browser stays where it is


async def passes(page, seconds):
    """Let the page's clock run."""
    await page.clock.run_for(int(seconds * 1000))


async def paint(page, **changes):
    """What the server sends over its websocket, at the instant that the page has."""
    fields = texts(**changes)
    await page.evaluate("(data) => window.pnl.paint({data})", {"name": list(fields), "text": list(fields.values())})


async def test_a_server_that_falls_silent_is_noticed_within_three_seconds(browser):
    """By the browser's own clock: a frozen server cannot say that it is frozen."""
    async with staged(browser, answers=NEVER) as page:
        await passes(page, 2)
        await expect(lost(page)).to_be_empty()

        await passes(page, 1)

        await expect(lost(page)).to_have_text("No word from the server. Newest numbers: 14:00:00. Trying again.")
        await expect(page.locator(".pnl.is-late")).to_be_visible()
        assert page.troubles == []


@pytest.mark.parametrize("answers", [REFUSED, GATEWAY], ids=["refused", "a gateway's 502"])
async def test_a_server_that_is_gone_is_noticed_too_and_loaded_only_once_it_is_back(browser, answers):
    """A browser's own page of errors would stay for ever."""
    async with staged(browser, answers=answers) as page:
        await paint(page)
        await page.evaluate("window.pnl.cut()")
        await passes(page, 60)
        await expect(lost(page)).to_contain_text("No word from the server")
        assert len(page.loads) == 1

        await page.evaluate(f"window.server = {AT_ONCE}")
        await passes(page, 2)

        await expect(lost(page)).to_be_empty()
        assert len(page.loads) == 2


async def test_a_busy_server_is_not_called_silent(browser):
    """One that takes a second for an answer, time and again, is there."""
    async with staged(browser, answers=AFTER_A_SECOND) as page:
        await page.evaluate(COUNT_LATE)
        for _ in range(30):
            await passes(page, 2)
            await paint(page, as_of=iso(NOW + timedelta(seconds=1)))

        assert await page.evaluate("window.late") == 0
        assert await page.evaluate("window.asked") > 20


@pytest.mark.parametrize("first", ["an answer", "numbers"])
async def test_it_is_taken_back_as_soon_as_the_server_is_heard(browser, first):
    """The page that stood still with it stays: what it waits for is on its way."""
    async with staged(browser, answers=REFUSED) as page:
        await passes(page, 25)
        await expect(lost(page)).to_contain_text("No word from the server")

        await page.evaluate(f"window.server = {AT_ONCE}")
        await (paint(page) if first == "numbers" else passes(page, 2))

        await expect(lost(page)).to_be_empty()
        await passes(page, LATE_S - 3)
        await expect(lost(page)).to_be_empty()
        assert len(page.loads) == 1


async def test_a_server_that_answers_and_sends_nothing_is_called_that_and_the_page_loads_itself_anew(browser):
    """The process lives, and what feeds the page does not."""
    async with staged(browser) as page:
        await passes(page, LATE_S - 1)
        await expect(lost(page)).to_be_empty()

        await passes(page, 2)
        await expect(lost(page)).to_contain_text("The server answers, but sends no numbers.")

        async with page.expect_event("load"):
            await passes(page, 3)


async def test_a_page_on_its_way_is_not_asked_for_again(browser):
    """Or a slow server would never get to the end of it."""
    async with staged(browser) as page:
        again = []
        await page.route("**/app", lambda route: _stay(again, route))
        async with page.expect_request("**/app"):
            await passes(page, LATE_S + 4)

        await passes(page, 20)
        assert len(again) == 1

        async with page.expect_request("**/app"):
            await passes(page, 20)


async def test_a_page_that_is_cut_off_again_and_again_does_not_load_itself_without_end(browser):
    """It takes a breath first."""
    async with staged(browser) as page:
        await page.evaluate("window.pnl.cut()")
        await passes(page, 2)
        assert len(page.loads) == 1

        async with page.expect_event("load"):
            await passes(page, 3)


async def test_a_page_that_comes_to_the_front_asks_at_once(browser):
    """Its timers were slowed down behind other tabs."""
    async with staged(browser) as page:
        before = await page.evaluate("window.asked")

        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

        assert await page.evaluate("window.asked") == before + 1


async def test_time_in_which_the_page_slept_is_no_silence(browser):
    """A laptop that wakes up judges by what it hears from then on; the ages are right at once."""
    async with staged(browser) as page:
        await paint(page)
        await page.evaluate(COUNT_LATE)

        await page.clock.fast_forward(3_600_000)
        await passes(page, 2)

        assert await page.evaluate("window.late") == 0
        await expect(page.locator(".as-of .age")).to_have_text("60 m")


async def test_a_source_grows_old_without_a_word_about_it(browser):
    """Late after one and a half polls, stale after two and a second, fresh again with its next answer."""
    async with staged(browser) as page:
        await paint(page)
        kalshi, anthropic = page.locator(".chip").nth(0), page.locator(".chip").nth(1)
        seen = []
        for _ in range(3):
            seen.append(await kalshi.get_attribute("data-is"))
            await passes(page, 3.5)
        await expect(kalshi).to_contain_text("10 s")
        await expect(kalshi).to_have_attribute("data-is", "stale")
        await expect(anthropic).to_have_attribute("data-is", "fresh")
        await expect(page.locator(".partial")).to_be_visible()
        await expect(page.locator(".equation .source").first).to_contain_text("10 s")

        await paint(page, kalshi__as_of=iso(NOW + timedelta(seconds=10)))

        assert seen == ["fresh", "late", "stale"]
        await expect(kalshi).to_have_attribute("data-is", "fresh")
        await expect(page.locator(".partial")).to_be_hidden()


async def test_the_numbers_hold_for_the_oldest_answer_in_them(browser):
    """Not for the last patch."""
    async with staged(browser) as page:
        await passes(page, 10)

        await paint(page, as_of=iso(NOW + timedelta(seconds=10)), john__as_of=iso(NOW + timedelta(seconds=10)))

        await expect(page.locator(".as-of")).to_have_text("as of 14:00:0010 s")


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_a_wrong_clock_of_the_browser_makes_nothing_older_or_younger(browser, ahead):
    """The server's clock is in every answer; a computer that slept may be off by hours."""
    there = NOW - timedelta(seconds=ahead)
    async with staged(browser, answers=AT_ONCE_AND_BEHIND % (ahead * 1000)) as page:
        await passes(page, 1)

        await paint(page, as_of=iso(there), **{f"{name}__as_of": iso(there) for name in SOURCES})

        await expect(page.locator(".chip").first).to_have_attribute("data-is", "fresh")
        await expect(page.locator(".as-of .age")).to_have_text(re.compile("^[0-2] s$"))
        await passes(page, 7)
        await expect(page.locator(".chip").first).to_have_attribute("data-is", "stale")


async def test_what_is_to_be_known_of_the_numbers_is_said_while_it_holds(browser):
    """What is missing and what is odd; nothing when there is nothing to say."""
    async with staged(browser) as page:
        lines = [page.locator(f'[data-text="{name}"]') for name in ("warning", "notes")]
        await paint(page)
        assert [await line.is_visible() for line in lines] == [False, False]

        await paint(page, warning="Deals are out of date.", notes=HOSTILE)

        await expect(lines[0]).to_have_text("Deals are out of date.")
        await expect(lines[1]).to_have_text(HOSTILE)
        assert [await line.is_visible() for line in lines] == [True, True]


@pytest.mark.parametrize("state", ["unknown", "agrees", "settling", "drifts", "unexplained"])
async def test_the_drift_says_in_a_word_what_it_is(browser, state):
    """Not by its colour alone."""
    async with staged(browser) as page:
        await paint(page, drift="-$12.40", drift__state=state)

        word = await page.evaluate("getComputedStyle(document.querySelector('.drift .word'), '::before').content")
        assert state in word
        await expect(page.locator(".drift b")).to_have_text("-$12.40")


BEGIN = """() => {
    const models = {"pnl-fields": {data: {name: [], text: []}, patching: {connect: (heard) => window.patch = heard}},
                    "pnl-seen": {}, "pnl-line": {data: {t0: [5]}}};
    window.Bokeh = {documents: [{get_model_by_id: (id) => models[id], roots: () => []}]};
    window.pnl.plot = window.pnl.wish = {begin() {}};
    document.querySelector(".pnl").dataset.reportMs = 2000;
    window.pnl.begin();
    window.seen = models["pnl-seen"];
}"""
IN_MS = """() => new Promise((done) => setTimeout(
    () => done(new Response("ok", {headers: {"Now-Ms": String(Date.now() - %d)}})), %d))"""


async def patched(page):
    """A patch comes; what the page reports of it, if it does."""
    await page.evaluate("window.patch()")
    await passes(page, 2)
    return await page.evaluate("window.seen.report && JSON.parse(window.seen.report)")


async def test_what_was_painted_when_is_reported_once_the_servers_clock_is_known_closely(browser):
    """The first answer comes while the page is still being made, and says little of the way."""
    async with staged(browser, answers=IN_MS % (0, 80)) as page:
        await passes(page, 1)
        await page.evaluate(BEGIN)
        await page.evaluate(f"() => {{ window.server = {IN_MS % (300, 4)} }}")

        assert await patched(page) is None
        report = await patched(page)

        assert report["t0"] == 5
        assert await page.evaluate("Date.now()") - report["painted"] == pytest.approx(2300, abs=50)  # two seconds ago


async def test_where_every_answer_takes_long_it_is_reported_all_the_same(browser):
    """From far away."""
    async with staged(browser, answers=IN_MS % (0, 80)) as page:
        await passes(page, 1)
        await page.evaluate(BEGIN)

        reports = [await patched(page) for _ in range(5)]

    assert (reports[0], reports[-1]["t0"]) == (None, 5)
