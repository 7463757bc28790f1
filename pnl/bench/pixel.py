"""From the venue's answer to a painted number, and from going to the page to what it shows, in a real browser."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from aiohttp import web
from yarl import URL

from pnl.bench.browser import Painted, chromium, painted, shown, watched
from pnl.bench.figures import named, spread, tell
from pnl.bench.kill_dashboard import START_S, Served, dashboard, listening, served
from pnl.bench.load_venue import RestlessMarket
from pnl.errors import PnlError
from pnl.simulator import Simulator
from pnl.terminal import AsJson, said

if TYPE_CHECKING:
    from playwright.async_api import Browser

POLL_S = 1
RARELY_S = 600
WARM_PAINTS = 1
PATIENCE_S = 30.0
NUMBER = '.net [data-text="net"]'
ALL_ANSWERED = '.verdict[data-said="complete"]'
NAIVE_NUMBER = ".net_pnl"
PRICES = "/markets"


def pixel(
    *,
    updates: Annotated[int, typer.Option(min=1, max=3600, help="Painted numbers to measure, one a second.")] = 60,
    loads: Annotated[
        int, typer.Option(min=1, max=100, help="Visits with an empty cache, and as many with a full.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Measure in a real browser how long an answer of the venue takes to the screen, beside an ordinary Panel page.

    The dashboard polls a simulated venue on loopback once a second, whose prices are others at each look, and the other
    sources rarely. An answer counts from the instant when its last byte was handed to the socket. What was written into
    the page counts as painted when the task after the next frame's callbacks runs, and is of the newest answer with
    prices before that. What a page paints before every source has answered is left out. Then the same with a page that
    polls and reckons likewise, and draws everything anew: six bound numbers and a HoloViews curve of 1,000 points.

    pixel_ms_p50 to _max until the number is painted; drawn_ms_p50 to _max until the plot is too; updates (painted
    numbers), matched (those with an answer of their own; else two numbers came of one), answers (with prices,
    meanwhile: more than one above updates if one was never painted); the same of the ordinary page as
    naive_pixel_ms_p50, naive_drawn_ms_p50, naive_updates and so on; naive_over_ours and naive_over_ours_drawn (the
    ratios of the p50).

    Medians of visits to the dashboard, from going there: number_ms_cold and plot_ms_cold until the number and the first
    plot are painted, with an empty cache; number_ms_warm and plot_ms_warm at the second visit; cold_bytes sent to the
    browser for the first visit, headers included, without the websocket.

    Limits: of one poll's answers the one with prices is the first to be asked for, so that the wait for the others
    counts too. Venue, server and browser share the machine. An answer that takes longer than a second to its number
    would be taken for the next one, which flatters the slower page; and so does that the ordinary page is
    not recorded. A plot may be noted a frame late.

    Needs chromium and playwright.
    """
    with TemporaryDirectory(prefix="pnl-pixel-") as folder:
        figures = asyncio.run(Pixel(Path(folder), updates, loads).measure())
    tell("Pixel", figures, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Venue:
    """A simulated venue: the settings that lead there, and when each answer with prices was written, in ms."""

    settings: Mapping[str, str]
    written_ms: list[float]


@asynccontextmanager
async def venue() -> AsyncIterator[Venue]:
    """The simulated APIs in this process, whose prices are others at each look."""
    written_ms: list[float] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        prices = await request.match_info.handler(request)
        await prices.prepare(request)
        await prices.write_eof()  # aiohttp would do both a moment later, and tell nobody
        written_ms.append(time.time() * 1000)
        return prices

    async with Simulator(RestlessMarket(), limited=False) as simulator:
        simulator.answers[URL(simulator.kalshi_url).path + PRICES] = answer
        yield Venue(simulator.settings, written_ms)


class Pixel:
    """One measurement in a folder of its own."""

    def __init__(self, folder: Path, updates: int, loads: int) -> None:
        self._folder = folder
        self._updates = updates
        self._loads = loads

    async def measure(self) -> dict[str, Any]:
        """Every figure by name."""
        async with chromium() as browser, venue() as of:
            ours = await self._ours(browser, of)
            naive = await self._naive(browser, of)
        return ours | {f"naive_{name}": value for name, value in naive.items()} | ratios(ours, naive)

    async def _ours(self, browser: "Browser", of: Venue) -> dict[str, Any]:
        log = self._folder / "server.log"
        paces = {"KALSHI": POLL_S, "ANTHROPIC": RARELY_S, "JOHN": RARELY_S}
        settings = {**of.settings, **{f"PNL_{name}_POLL_S": f"{poll_s}" for name, poll_s in paces.items()}}
        async with dashboard(self._folder / "data", settings, log=log) as server:
            await listening(server, log)
            figures = await self._follow(browser, of, server, NUMBER, ALL_ANSWERED)
            return figures | await self._visit(browser, server)

    async def _naive(self, browser: "Browser", of: Venue) -> dict[str, Any]:
        log = self._folder / "naive.log"
        async with served(Path(__file__).with_name("pixel_naive.py"), of.settings, log=log) as server:
            await listening(server, log)
            return await self._follow(browser, of, server, NAIVE_NUMBER, NAIVE_NUMBER)

    async def _follow(self, browser: "Browser", of: Venue, server: Served, number: str, ready: str) -> dict[str, Any]:
        """Look at one page for a while, once it has an element `ready`, and some numbers later."""
        context = await browser.new_context()
        page = await watched(context, number)
        with said.status(f"{self._updates} updates of {server.address}"):
            await page.goto(server.address)
            await shown(page, ready, longest_s=START_S)
            begun = WARM_PAINTS + len((await painted(page, numbers=1, longest_s=START_S)).numbers)
            longest_s = PATIENCE_S + 2 * POLL_S * self._updates
            seen = await painted(page, numbers=begun + self._updates + 1, longest_s=longest_s)
        await context.close()
        return delays(of.written_ms, seen, begun)

    async def _visit(self, browser: "Browser", server: Served) -> dict[str, Any]:
        """Go to the page anew again and again, each time with an empty cache and then once more."""
        with said.status(f"{self._loads} visits"):
            visits = [await two_visits(browser, server.address) for _ in range(self._loads)]
        cold, warm, sizes = zip(*visits, strict=True)
        return {**arrivals(cold, "cold"), **arrivals(warm, "warm"), "cold_bytes": round(median(sizes))}


def ratios(ours: Mapping[str, Any], naive: Mapping[str, Any]) -> dict[str, float | None]:
    """How many times as long the ordinary page takes, as medians; None where one of the two painted nothing."""
    return {
        name: round(naive[key] / ours[key], 1) if ours.get(key) and naive.get(key) else None
        for name, key in (("naive_over_ours", "pixel_ms_p50"), ("naive_over_ours_drawn", "drawn_ms_p50"))
    }


async def two_visits(browser: "Browser", address: str) -> tuple[Painted, Painted, int]:
    """What the page painted for a new browser, and at its second visit; and the bytes of the first one."""
    context = await browser.new_context()
    sizes: list[float] = []
    page = await watched(context, NUMBER)
    wire = await context.new_cdp_session(page)
    wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    await wire.send("Network.enable")
    await page.goto(address)
    cold = await painted(page, numbers=2, plot=True, longest_s=PATIENCE_S)
    size = sum(sizes)
    await page.goto(address)  # in the same tab: how long a browser takes to make one is not the page's
    warm = await painted(page, numbers=2, plot=True, longest_s=PATIENCE_S)
    await context.close()
    return cold, warm, round(size)


def arrivals(visits: Sequence[Painted], how: str) -> dict[str, float]:
    """The medians until the number and until the plot, in ms."""
    return {
        f"number_ms_{how}": round(median(visit.numbers_ms[0] - visit.began_ms for visit in visits), 1),
        f"plot_ms_{how}": round(median(visit.plots_ms[0] - visit.began_ms for visit in visits), 1),
    }


def delays(written_ms: Sequence[float], seen: Painted, begun: int) -> dict[str, Any]:
    """How long answers took to the screen.

    Args:
        written_ms: When answers were written, oldest first.
        seen: What the page painted.
        begun: So many numbers are left out at the beginning; and so is the last, whose plot may be on its way.

    Raises:
        PnlError: No number was of an answer.
    """
    begin_ms, end_ms = seen.numbers_ms[begun - 1], seen.numbers_ms[-1]
    numbers, plots = (
        [end - begin for begin, end in matched(written_ms, painted_ms) if begin_ms < end < end_ms]
        for painted_ms in (seen.numbers_ms, seen.plots_ms)
    )
    if not numbers:
        raise PnlError("no painted number followed an answer of the venue; do the clocks of this machine agree?")
    return {
        **named("pixel_ms", spread(numbers, digits=1)),
        **named("drawn_ms", spread(plots, digits=1)),
        "updates": len(seen.numbers) - begun - 1,
        "matched": len(numbers),
        "answers": sum(begin_ms < at_ms < end_ms for at_ms in written_ms),
    }


def matched(written_ms: Sequence[float], painted_ms: Sequence[float]) -> list[tuple[float, float]]:
    """Each paint with its answer, the newest before it; of an answer's paints the first counts.

    Args:
        written_ms: When answers were written, oldest first.
        painted_ms: When numbers, or plots, were painted, oldest first.
    """
    pairs = []
    used = -1
    for at_ms in painted_ms:
        newest = bisect_left(written_ms, at_ms) - 1
        if newest > used:
            pairs.append((written_ms[newest], at_ms))
            used = newest
    return pairs
