"""The plots as a page draws them, in a real browser: strip and line agree, a tap tells its day, notes are text."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio
from browsing import served, until, visit
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY_MS = 86_400_000
MODELS = """const page = Bokeh.documents[0], source = (name) => page.get_model_by_id(`pnl-${name}`);
    const plot = (name) => page.roots().find((root) => root.name === name && root.type === "Figure");"""
UNDER = f"() => {{ {MODELS} return {{under: [...source('under').data.under], high: [...source('under').data.high]}} }}"
LIVE = f"""() => {{ {MODELS}
    const net = [...source("line").data.net];
    const of_line = (plot) => plot.renderers.filter((one) => one.data_source === source("line"));
    const [marked] = of_line(plot("equity")).filter((one) => one.glyph.y?.transform);
    const [below] = of_line(plot("under"));
    return {{net, high: marked.glyph.y.transform.v_compute(net), under: below.glyph.bottom.transform.v_compute(net),
        visible: [marked.visible, below.visible]}} }}"""
DAYS = f"""() => {{ {MODELS} const {{x_range, y_range}} = plot("daily");
    return {{start: x_range.start, end: x_range.end, height: y_range.end - y_range.start}} }}"""
DAYS_ARE = f"""([least, most]) => {{ {MODELS} const {{start, end}} = plot("daily").x_range;
    return end - start >= least * {DAY_MS} && end - start <= most * {DAY_MS} }}"""
LISTEN = f"""() => {{ {MODELS} window.taps = [];
    plot("daily").on_event("tap", (event) => window.taps.push(event.x)) }}"""
SELECTED = f"() => {{ {MODELS} return source('days').selected.indices.length }}"
NOTE = f"""(text) => {{ {MODELS} const {{x_range}} = plot("equity"), notes = source("notes");
    const data = {{t: [(x_range.start + x_range.end) / 2], number: ["1"], text: [text]}};
    notes.setv({{data}}, {{sync: false}}) }}"""
HIDE = f"""() => {{ {MODELS} const said = [...page.all_models].filter((model) => model.tags.includes("money"));
    const how = (one) => (one.type === "HoverTool" ? {{active: false}} : {{visible: false}});
    for (const one of said) one.setv(how(one), {{sync: false}});
    return said.map((one) => one.type).sort() }}"""
HOSTILE = '<img src=x onerror="window.hurt=1">'


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address(tmp_path_factory):
    """The demo, polled twice a second."""
    async with served(tmp_path_factory.mktemp("plots"), PNL_KALSHI_POLL_S="0.5") as (_process, address):
        yield address


def text(page, name):
    return page.locator(f'[data-text="past.{name}"]')


async def drawn(page):
    """The history has been drawn, and the figures of the range stand beside it."""
    await expect(text(page, "step")).to_have_text(re.compile("a step$"))
    await expect(text(page, "drawdown")).to_have_text(re.compile(r"^-?\$"))


async def test_the_strip_is_as_deep_as_the_figure_says(browser, address):
    """One definition of a drawdown; and the mark never falls."""
    async with visit(browser, f"{address}?range=30d") as page:
        await drawn(page)

        async def agree():  # records that come are in one before the other
            deepest = Decimal(str(-min((await page.evaluate(UNDER))["under"]))).quantize(Decimal("0.01"))
            return await text(page, "drawdown").inner_text() == f"-${deepest:,}"

        await until(agree)
        strip = await page.evaluate(UNDER)
        assert strip["high"] == sorted(strip["high"])
        assert page.troubles == []


async def test_the_strip_of_what_is_live_follows_the_line_at_once(browser, address):
    """It never says another thing than the line above it: no point is above its mark, and none is deeper than it is."""
    async with visit(browser, address) as page:
        await drawn(page)
        await page.wait_for_function(f"() => {{ {MODELS} return source('line').data.net.length > 3 }}")

        live = await page.evaluate(LIVE)

        assert live["visible"] == [True, True]
        assert live["high"] == sorted(live["high"])
        for net, high, under in zip(live["net"], live["high"], live["under"], strict=True):
            assert high >= net
            assert under == pytest.approx(net - high)


async def test_a_range_that_is_over_shows_nothing_of_what_is_live(browser, address):
    """Neither its mark nor what is below it."""
    async with visit(browser, f"{address}?range=month-1") as page:
        await drawn(page)

        live = await page.evaluate(LIVE)

        assert live["visible"] == [False, False]


async def test_the_days_are_those_of_the_range_from_the_first_to_the_last(browser, address):
    """Whole ones, and no other makes the plot higher; also when it is zoomed into."""
    async with visit(browser, f"{address}?range=month-1") as page:
        await drawn(page)
        await page.wait_for_function(DAYS_ARE, arg=[28, 31])
        days = await page.evaluate(DAYS)
        first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (days["start"], days["end"]))
        assert (first.day, last.day, first.hour, last.hour) == (1, 1, 0, 0)

        for _ in range(5):
            await page.get_by_role("button", name="Zoom in").click()

        await page.wait_for_function(DAYS_ARE, arg=[1, 2])
        assert (await page.evaluate(DAYS))["height"] < days["height"]
        assert page.troubles == []


async def test_a_tap_on_a_bar_makes_its_day_a_filter(browser, address):
    """The bar stands over the whole of its day; nothing is selected in the plot."""
    async with visit(browser, address) as page:
        await drawn(page)
        await page.evaluate(LISTEN)
        [start, end] = await page.evaluate(
            f"() => {{ {MODELS} const {{x_range: x}} = plot('daily'); return [x.start, x.end] }}"
        )
        canvas = page.locator(".panel", has_text="By day").locator("canvas").first
        await canvas.scroll_into_view_if_needed()
        box = await canvas.bounding_box()

        await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

        await page.wait_for_function("() => window.taps.length === 1")
        [tapped] = await page.evaluate("window.taps")
        assert abs(tapped - (start + end) / 2) < (end - start) / 10
        assert await page.evaluate(SELECTED) == 0
        day = datetime.fromtimestamp(tapped / 1000, UTC).date()
        await expect(page).to_have_url(f"{address}?day={day}")
        await expect(page.get_by_role("button", name=f"day: {day}")).to_be_visible()


async def test_the_text_of_a_note_is_text(browser, address):
    """It may come from anybody; the pin stands inside the plot and says it when it is pointed at."""
    async with visit(browser, f"{address}?range=30d") as page:
        await drawn(page)
        y_range = f"() => {{ {MODELS} return plot('equity').y_range.start }}"
        before = await page.evaluate(y_range)
        await page.evaluate(NOTE, HOSTILE)
        canvas = page.locator(".equity canvas").first
        await canvas.scroll_into_view_if_needed()
        box = await canvas.bounding_box()
        left = 64  # the amounts
        middle = box["x"] + left + (box["width"] - left - 5) / 2

        await page.mouse.move(middle - 40, box["y"] + box["height"] - 60)
        await page.mouse.move(middle, box["y"] + box["height"] * 0.93, steps=5)

        await expect(page.locator(".bk-Tooltip td", has_text=HOSTILE)).to_be_visible()
        assert await page.evaluate("window.hurt") is None
        assert await page.evaluate(y_range) == pytest.approx(before, rel=0.05)


async def test_all_that_says_amounts_can_be_hidden_by_its_tag(browser, address):
    """Every y axis and everything that is said of a point."""
    async with visit(browser, address) as page:
        await drawn(page)

        hidden = await page.evaluate(HIDE)

        assert hidden == ["HoverTool"] * 6 + ["LinearAxis"] * 3
        axes = f"""() => {{ {MODELS} return ["equity", "under", "daily"].map((name) => plot(name).left[0].visible) }}"""
        assert await page.evaluate(axes) == [False] * 3
        assert page.troubles == []


@pytest.mark.parametrize(("width", "least", "most"), [(390, 180, 220), (1280, 300, 400)])
async def test_the_plot_is_as_high_as_its_screen_has_room(browser, address, width, least, most):
    """On a phone there is something to see below it without scrolling."""
    async with visit(browser, address, width=width) as page:
        await drawn(page)

        async def fits():
            box = await page.locator(".equity canvas").first.bounding_box()
            return least <= box["height"] <= most

        await until(fits)
        assert await page.evaluate("document.documentElement.scrollWidth") == width
