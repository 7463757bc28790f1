"""`pnl bench pixel`: which paint is of which answer, what a page notes, and a real run of two updates."""

import json

import pytest
from browsing import chromium, opened, require_chromium

from pnl.bench import browser
from pnl.bench.browser import NoBrowser, Painted, executable, painted, shown, watched
from pnl.bench.pixel import delays, matched, pixel, ratios
from pnl.errors import PnlError

FIGURES = {"pixel_ms_p50", "pixel_ms_p95", "pixel_ms_p99", "pixel_ms_max", "drawn_ms_p50", "drawn_ms_max"}
VISITS = {"number_ms_cold", "plot_ms_cold", "number_ms_warm", "plot_ms_warm", "cold_bytes"}


@pytest.mark.parametrize(
    ("written", "paints", "pairs"),
    [
        ([100, 200, 300], [130, 240, 350], [(100, 130), (200, 240), (300, 350)]),
        ([100, 110, 200], [130, 240], [(110, 130), (200, 240)]),  # two answers, one number
        ([100, 200], [130, 160, 240], [(100, 130), (200, 240)]),  # one answer, two numbers
        ([100, 200], [90, 130], [(100, 130)]),  # a number of an answer before, an answer that is still on its way
        ([100], [100], []),  # nothing is painted before its answer
        ([], [100], []),
        ([100], [], []),
    ],
)
def test_a_paint_is_of_the_newest_answer_before_it(written, paints, pairs):
    """And an answer has one paint, the first."""
    assert matched(written, paints) == pairs


def seen(*numbers_ms, plots_ms=()):
    """A page that painted numbers at these instants."""
    return Painted(0.0, [(f"${at_ms}", at_ms) for at_ms in numbers_ms], plots_ms)


def test_the_delay_of_a_number_and_of_its_plot_count_from_the_answer():
    """Left out are what a page painted first, also of an answer that came before, and the last number."""
    page = seen(10, 90, 130, 260, 310, 410, plots_ms=[20, 150, 290, 320, 450])

    figures = delays([0, 60, 100, 200, 300, 400], page, 2)

    assert (figures["pixel_ms_p50"], figures["pixel_ms_max"]) == (30, 60)
    assert (figures["drawn_ms_p50"], figures["drawn_ms_max"]) == (50, 90)
    assert (figures["updates"], figures["matched"], figures["answers"]) == (3, 3, 4)


def test_a_number_whose_answer_came_before_the_one_that_begins_counts():
    """Answers overtake numbers when everything is slow."""
    figures = delays([100, 110, 200], seen(105, 130, 260), 1)

    assert (figures["pixel_ms_p50"], figures["matched"]) == (20, 1)


def test_a_number_that_was_never_painted_and_one_too_many_are_counted():
    """The matching cannot hide either."""
    lost = delays([100, 200, 300, 400], seen(50, 130, 330, 430), 1)
    extra = delays([100, 200, 300], seen(50, 130, 160, 230, 330), 1)

    assert (lost["updates"], lost["matched"], lost["answers"]) == (2, 2, 4)
    assert (extra["updates"], extra["matched"], extra["answers"]) == (3, 2, 3)


def test_numbers_without_any_answer_are_an_error():
    """No figure is made of nothing."""
    with pytest.raises(PnlError, match="no painted number followed an answer"):
        delays([500], seen(50, 130, 160), 1)


def test_a_ratio_is_of_medians_and_of_nothing_there_is_none():
    """More than one: the ordinary page is slower."""
    ours, naive = {"pixel_ms_p50": 20.0, "drawn_ms_p50": 30.0}, {"pixel_ms_p50": 50.0}

    assert ratios(ours, naive) == {"naive_over_ours": 2.5, "naive_over_ours_drawn": None}


def test_without_a_browser_it_says_what_to_install(monkeypatch):
    """Debian's chromium, or what drives it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoBrowser, match="apt-get install chromium"):
        executable()
    monkeypatch.setattr(browser, "find_spec", lambda _: None)
    with pytest.raises(NoBrowser, match="uv sync"):
        executable()


PAGE = """data:text/html,<p class=net>none yet</p><div class=host></div><script>
    const canvas = document.createElement("canvas");
    document.querySelector(".host").attachShadow({mode: "open"}).append(canvas);
    function show(text) { document.querySelector(".net").textContent = text; }
    function draw() { canvas.getContext("2d").fillText("drawn", 9, 9); }
</script>"""


async def test_a_page_notes_each_new_number_and_each_plot_once_painted():
    """Also inside shadow roots; what was drawn on no plot of the page, and a number that stays, are no news."""
    async with chromium() as chrome, opened(chrome) as plain:
        page = await watched(plain.context, ".net")
        await page.goto(PAGE)
        await page.evaluate("document.createElement('canvas').getContext('2d').fillText('elsewhere', 9, 9)")
        for text in ("$1.00", "$1.00", "-$1,002.50", "none"):
            await page.evaluate("(text) => show(text)", text)
            await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        before = await painted(page, numbers=2, longest_s=10)
        await page.evaluate("draw()")
        after = await painted(page, numbers=2, plot=True, longest_s=10)
        with pytest.raises(PnlError, match="did not paint 3 numbers in"):
            await painted(page, numbers=3, longest_s=0.2)
        with pytest.raises(PnlError, match=r"did not show \.verdict in"):
            await shown(page, ".verdict", longest_s=0.2)

    assert [text for text, _ in after.numbers] == ["$1.00", "-$1,002.50"]
    assert after.began_ms < after.numbers_ms[0] < after.numbers_ms[1] < after.plots_ms[0]
    assert (before.plots_ms, len(after.plots_ms)) == ([], 1)


async def test_numbers_are_found_inside_a_shadow_root():
    """As widgets have them."""
    async with chromium() as chrome, opened(chrome) as plain:
        page = await watched(plain.context, ".host")
        await page.goto("data:text/html,<div class=host></div>")
        await page.evaluate(
            "document.querySelector('.host').attachShadow({mode: 'open'}).innerHTML = '<style>p{}</style><p>$-7.00</p>'"
        )
        found = await painted(page, numbers=1, longest_s=10)

    assert [text for text, _ in found.numbers] == ["$-7.00"]


def test_a_short_run_has_every_figure(capsys):
    """Of the dashboard and of the ordinary page, each number with an answer of its own."""
    require_chromium()
    pixel(updates=2, loads=1, as_json=True)

    figures = json.loads(capsys.readouterr().out)
    kinds = FIGURES | {"updates", "matched", "answers"}
    assert kinds | {f"naive_{name}" for name in kinds} | VISITS | {"naive_over_ours"} <= figures.keys()
    for way in ("", "naive_"):
        assert 0 < figures[f"{way}matched"] <= figures[f"{way}updates"] == 2
    assert figures["cold_bytes"] > 100_000
