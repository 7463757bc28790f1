"""The page shows the past at any zoom: ranges, instants and moves, in a real browser."""

import asyncio
import os
import re
import signal
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from browsing import number_moves, served, visit
from playwright.async_api import expect

from pnl.records import Reading, Snapshot, State
from pnl.store import Change, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

ZONE = ZoneInfo("America/New_York")
HOSTILE = '<img src=x onerror="window.hurt=1">'
DAYS = 3
SOURCES = ("kalshi", "anthropic", "john")
MODELS = """const models = [...Bokeh.documents[0].all_models];
    const named = (type, name) => models.find((model) => model.type === type && model.name === name);
    const steps = named("ColumnDataSource", "steps").data, live = named("ColumnDataSource", "line").data;
    const range = named("Figure", "equity").x_range;"""
LINE = f"() => {{ {MODELS} return {{steps: [...steps.t], net: [...steps.net], live: [...live.t]}} }}"
STEP_COUNT = f"() => {{ {MODELS} return steps.t.length }}"
WINDOW = f"() => {{ {MODELS} return [range.start, range.end] }}"
GROWN = f"(count) => {{ {MODELS} return live.t.length >= count }}"
FIRST = f"(before) => {{ {MODELS} return steps.t[0] !== before }}"
FITTED = f"(last) => {{ {MODELS} return range.end > last && range.end < last + 86400000 }}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def dashboard(tmp_path_factory):
    """The demo, polled twice a second, with three days of snapshots from before it was started."""
    folder = tmp_path_factory.mktemp("history")
    await record(folder / "demo")
    async with served(folder, PNL_KALSHI_POLL_S="0.5") as (process, address):
        yield process, address


@pytest.fixture
def address(dashboard):
    return dashboard[1]


async def record(folder):
    """A snapshot every ten minutes until an hour ago, the first of one dollar, each of one more."""
    newest = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)
    async with Store(folder, kind="simulated") as store:
        moments = [newest - timedelta(minutes=10 * number) for number in reversed(range(DAYS * 144))]
        written = [store.append(Change(snapshot_at(at, number))) for number, at in enumerate(moments, 1)]
        await asyncio.gather(*map(asyncio.wrap_future, written))


def snapshot_at(at, sequence):
    nothing = Decimal(0)
    return Snapshot(
        taken_at=at,
        kalshi_realized=Decimal(sequence),
        kalshi_unrealized=nothing,
        kalshi_fees=nothing,
        billed_costs=nothing,
        estimated_costs=nothing,
        total_revenue=nothing,
        trade_count=sequence,
        open_trade_count=0,
        settled_market_count=0,
        sources=tuple(Reading(name, State.FRESH, as_of=at) for name in SOURCES),
        sequence=sequence,
    )


def text(page, name):
    return page.locator(f'[data-text="past.{name}"]')


def preset(page, label):
    return page.get_by_role("group", name="Range").get_by_role("button", name=label)


def field(page, label):
    return page.get_by_role("textbox", name=label)


async def drawn(page):
    """The history has been drawn."""
    await expect(text(page, "step")).to_have_text(re.compile("a step$"))


async def typed(page, label, said):
    await field(page, label).fill(said)
    await field(page, label).press("Enter")


async def test_a_preset_changes_the_bars_and_the_address(browser, address):
    """The pressed button tells it; back, forward and a reload keep it."""
    async with visit(browser, address) as page:
        await drawn(page)
        await expect(preset(page, "All")).to_have_attribute("aria-pressed", "true")
        before = await page.evaluate(LINE)

        await preset(page, "7d").click()

        await page.wait_for_function(FIRST, arg=before["steps"][0])
        await expect(page).to_have_url(f"{address}?range=7d")
        await expect(preset(page, "7d")).to_have_attribute("aria-pressed", "true")
        await expect(preset(page, "All")).to_have_attribute("aria-pressed", "false")
        await page.reload()
        await expect(preset(page, "7d")).to_have_attribute("aria-pressed", "true")
        await drawn(page)
        await page.go_back()
        await expect(preset(page, "All")).to_have_attribute("aria-pressed", "true")
        await drawn(page)
        await page.go_forward()
        await expect(preset(page, "7d")).to_have_attribute("aria-pressed", "true")
        assert page.troubles == []


async def test_going_back_within_a_page_brings_the_earlier_range_back(browser, address):
    """Without loading anything anew."""
    async with visit(browser, address) as page:
        await drawn(page)
        await preset(page, "30d").click()
        await expect(page).to_have_url(f"{address}?range=30d")
        await preset(page, "Today").click()
        await expect(page).to_have_url(f"{address}?range=today")

        await page.go_back()

        await expect(preset(page, "30d")).to_have_attribute("aria-pressed", "true")
        await expect(page).to_have_url(f"{address}?range=30d")
        assert page.troubles == []


async def test_a_range_is_typed_and_its_figures_stand_beside_those_of_the_one_before(browser, address):
    """The plot ends where the range ends: the live line is not in it."""
    day = datetime.now(ZONE).date() - timedelta(days=2)  # yesterday's last hour may have no snapshot
    async with visit(browser, address) as page:
        await drawn(page)

        await typed(page, "Range", str(day))

        await expect(text(page, "dates")).to_have_text(str(day))
        await expect(text(page, "before")).to_have_text(f"compared with {day - timedelta(days=1)}")
        await expect(text(page, "net")).to_have_text(re.compile(r"^[+-]?\$"))
        await expect(text(page, "net.delta")).to_have_text(re.compile(r"^([▲▼] \$|= same)"))
        await expect(text(page, "drawdown")).to_have_text(re.compile(r"^-?\$"))
        await expect(page).to_have_url(f"{address}?range={day}")
        midnight = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
        await page.wait_for_function(FITTED, arg=midnight.timestamp() * 1000 - 1)


async def test_what_means_nothing_is_said_and_changes_nothing(browser, address):
    """In the words of whoever did not understand it."""
    async with visit(browser, f"{address}?range=7d") as page:
        await drawn(page)
        before = await page.evaluate(STEP_COUNT)

        await typed(page, "Range", HOSTILE)

        await expect(text(page, "range.error")).to_contain_text("is no range of time; type today, 7d")
        await expect(text(page, "range.error")).to_contain_text("<img")
        await expect(preset(page, "7d")).to_have_attribute("aria-pressed", "true")
        assert page.url == f"{address}?range=7d"
        assert abs(await page.evaluate(STEP_COUNT) - before) <= 1
        await typed(page, "Range", "last 2d")
        await expect(text(page, "range.error")).to_be_hidden()
        assert page.troubles == []


async def test_a_hostile_address_is_text_and_falls_back_to_everything(browser, address):
    """It is read, not run, before any script and after."""
    async with visit(browser, f"{address}?range={HOSTILE}&at={HOSTILE}") as page:
        await expect(text(page, "range.error")).to_contain_text("<img")
        await drawn(page)

        await expect(text(page, "range.error")).to_contain_text("is no range of time")
        await expect(text(page, "at.error")).to_contain_text("is no instant")
        await expect(preset(page, "All")).to_have_attribute("aria-pressed", "true")
        assert await page.evaluate("window.hurt") is None
        assert await page.locator('img[src="x"]').count() == 0
        assert page.troubles == []


STEPS = ("1 h", "15 min", "5 min", "1 min", "10 s", "1 s")


async def test_zooming_in_asks_for_finer_bars_and_reset_returns(browser, address):
    """Never more of them than a plot can show."""
    async with visit(browser, f"{address}?range=30d") as page:
        await drawn(page)
        await expect(text(page, "step")).to_have_text("1 h a step")

        for finer in range(1, 4):  # a caption may come behind its bars, so one step may be passed over
            while STEPS.index((await text(page, "step").inner_text()).removesuffix(" a step")) < finer:
                shown = await page.evaluate(LINE)
                await page.get_by_role("button", name="Zoom in").click()
                await page.wait_for_function(FIRST, arg=shown["steps"][0])

        assert await page.evaluate(STEP_COUNT) < 1010
        zoomed = await page.evaluate(WINDOW)
        await typed(page, "Range", "nonsense")
        await expect(text(page, "range.error")).to_be_visible()
        assert await page.evaluate(WINDOW) == zoomed
        await page.get_by_role("button", name="Reset").click()
        await expect(text(page, "step")).to_have_text("1 h a step")
        assert page.troubles == []


async def test_nonsense_that_is_typed_while_the_plot_moves_does_not_hold_it_up(browser, address):
    """Whichever of the two comes first."""
    async with visit(browser, f"{address}?range=30d") as page:
        await drawn(page)
        for _ in range(3):
            await page.get_by_role("button", name="Zoom in").click()
        await typed(page, "Range", "nonsense")

        await expect(text(page, "step")).to_have_text("15 min a step")
        await expect(text(page, "range.error")).to_be_visible()
        await expect(preset(page, "30d")).to_have_attribute("aria-pressed", "true")


async def test_dragging_the_plot_brings_what_was_before(browser, address):
    """And the wheel scrolls the page, not the plot."""
    async with visit(browser, f"{address}?range=last 6h") as page:
        await drawn(page)
        before = await page.evaluate(LINE)
        plot = page.locator(".equity canvas").first
        await plot.scroll_into_view_if_needed()
        box = await plot.bounding_box()
        await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=4)
        await page.mouse.up()

        await page.wait_for_function(FIRST, arg=before["steps"][0])
        await expect(page).to_have_url(re.compile(r"\?range=last.{1,3}6h$"))

        after = await page.evaluate(LINE)
        assert after["steps"][0] < before["steps"][0]
        scrolled = await page.evaluate("scrollY")
        await page.mouse.wheel(0, 200)
        await page.wait_for_function("(before) => scrollY > before", arg=scrolled)


async def test_the_live_line_goes_on_from_the_history_without_a_gap_or_a_double_point(browser, address):
    """Both have the point in which they meet, and no other."""
    async with visit(browser, f"{address}?range=last 2h") as page:
        await drawn(page)
        count = len((await page.evaluate(LINE))["live"])

        await page.wait_for_function(GROWN, arg=count + 3)

        line = await page.evaluate(LINE)
        assert line["steps"] == sorted(line["steps"])
        assert line["steps"][-1] == line["live"][0]
        assert line["live"] == sorted(set(line["live"]))
        assert max(line["live"]) > max(line["steps"])


async def test_where_nothing_was_recorded_the_line_has_a_gap(browser, address):
    """The hour before this dashboard was started."""
    async with visit(browser, f"{address}?range=last 6h") as page:
        await drawn(page)

        line = await page.evaluate("() => { %s return [...steps.net].map((usd) => Number.isNaN(usd)) }" % MODELS)  # noqa: UP031

        assert any(line[1:-1])


async def test_the_page_goes_on_when_the_history_dies(browser, dashboard):
    """The next range starts it anew."""
    process, address = dashboard
    async with visit(browser, address) as page:
        await drawn(page)
        os.kill(worker_of(process.pid), signal.SIGKILL)

        await number_moves(page)
        before = await page.evaluate(LINE)
        await preset(page, "7d").click()

        await page.wait_for_function(FIRST, arg=before["steps"][0])
        await expect(text(page, "error")).to_be_hidden()
        assert page.troubles == []


def worker_of(pid):
    """The process that answers questions about the history, a child of the dashboard's."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == pid and b"pnl.history.worker" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue  # it ended meanwhile
    raise AssertionError("no worker")


async def test_an_instant_of_the_past_shows_what_was_shown_then(browser, address):
    """The live number stays where it is; the address keeps the instant, and one click leads back."""
    moment = datetime.now(ZONE).replace(second=0, microsecond=0, tzinfo=None) - timedelta(days=1)
    async with visit(browser, address) as page:
        await drawn(page)
        strip = page.get_by_role("region", name="How it was")
        await expect(strip).to_be_hidden()

        await typed(page, "As of", f"{moment:%Y-%m-%d %H:%M}")

        await expect(strip).to_contain_text(f"Showing how it was at {moment:%Y-%m-%d %H:%M}:00")
        await expect(strip).to_contain_text(re.compile(r"net\s+\$\d{3}\.00\s+= \+\$\d{3}\.00 trading"))
        await expect(page).to_have_url(re.compile(r"\?at="))
        await number_moves(page)
        await page.reload()
        await expect(strip).to_contain_text("Showing how it was at")
        await page.get_by_role("button", name="Back to now").click()
        await expect(strip).to_be_hidden()
        await expect(page).to_have_url(address)
        assert page.troubles == []


async def test_before_the_first_snapshot_nothing_was_shown(browser, address):
    """That is said, not made up; and so is an instant that has not come yet."""
    async with visit(browser, f"{address}?at=2020-01-01 12:00") as page:
        strip = page.get_by_role("region", name="How it was")

        await expect(strip).to_contain_text("Nothing had been shown by then")
        await expect(strip).not_to_contain_text("$")
        await typed(page, "As of", "2199-01-01")
        await expect(text(page, "at.error")).to_have_text("'2199-01-01' has not come yet")
        await expect(strip).to_contain_text("2020-01-01")


async def test_the_performance_of_the_history_is_told_when_asked_for(browser, address):
    """As a table, closed at first."""
    async with visit(browser, address) as page:
        await drawn(page)
        await expect(page.get_by_role("row", name=re.compile("^bars"))).to_be_hidden()

        await page.get_by_text("Performance").click()

        await expect(page.get_by_role("row", name=re.compile("^bars"))).to_have_text(re.compile(r"^bars\d+"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_and_a_finger(browser, address, scheme):
    """At 390 px nothing sticks out, also what is said of a nonsense range; nothing to touch is below 44 px."""
    async with visit(browser, f"{address}?range={'x' * 60}&at=2020-01-01", width=390, color_scheme=scheme) as page:
        await drawn(page)
        await page.get_by_text("Performance").click()
        await expect(page.get_by_role("row", name=re.compile("^bars"))).to_be_visible()

        sizes = await page.evaluate(
            """() => [...document.querySelectorAll(".pnl :is(.period, .equity, .instant) :is(button, input), summary")]
                .map((el) => el.getBoundingClientRect()).map(({width, height}) => Math.min(width, height))"""
        )
        assert min(sizes) >= 44
        assert await page.evaluate("document.documentElement.scrollWidth") == 390


NAME_OF_FOCUSED = """() => {
    const { ariaLabel, name, textContent } = document.activeElement;
    return ariaLabel || name || textContent.trim();
}"""


async def test_everything_is_reached_by_keyboard(browser, address):
    """In the order in which it is read, and each with a name."""
    async with visit(browser, address) as page:
        await drawn(page)
        await preset(page, "Today").focus()
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{address}?range=today")
        names = []
        for _ in range(7):
            await page.keyboard.press("Tab")
            names.append(await page.evaluate(NAME_OF_FOCUSED))

        assert names == ["7d", "30d", "MTD", "YTD", "All", "Compare", "Hide or show amounts"]
