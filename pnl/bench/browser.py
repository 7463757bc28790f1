"""A real browser that looks at a page of this machine, and notes when a number or a plot was painted."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pnl.errors import PnlError

if TYPE_CHECKING:  # a tool of development: who does not measure needs no browser
    from playwright.async_api import Browser, BrowserContext, Page

SCRIPT = Path(__file__).with_name("painted.js")
LOOK_MS = 100
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


class NoBrowser(PnlError):
    """There is no browser to measure with; the text says what to install."""


class Painted(NamedTuple):
    """What a page painted, all in ms since the epoch.

    Attributes:
        began_ms: When somebody went there.
        numbers: Each new number as text, and from when on it stood on the screen.
        plots_ms: When something that was drawn on any plot stood there.
    """

    began_ms: float
    numbers: Sequence[tuple[str, float]]
    plots_ms: Sequence[float]

    @property
    def numbers_ms(self) -> list[float]:
        """The instants of the numbers alone."""
        return [at_ms for _, at_ms in self.numbers]


def executable() -> str:
    """Where Debian's browser is.

    Raises:
        NoBrowser: It is not installed, or what drives it is not.
    """
    if find_spec("playwright") is None:
        raise NoBrowser("playwright is not installed; it is one of the development tools: run `uv sync`")
    found = shutil.which("chromium")
    if found is None:
        raise NoBrowser("chromium is not on the PATH; on Debian: apt-get install chromium")
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator["Browser"]:
    """Debian's own browser, which reaches this machine and no other.

    Raises:
        NoBrowser: See `executable`.
    """
    path = executable()
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only here, as it may be absent

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        try:
            yield browser
        finally:
            await browser.close()


async def watched(context: "BrowserContext", number: str) -> "Page":
    """A page that notes what it paints wherever it goes; `number` is the CSS selector of the element to look at."""
    page = await context.new_page()
    script = SCRIPT.read_text(encoding="utf-8")
    await page.add_init_script(f"({script})({number!r})")
    return page


async def shown(page: "Page", selector: str, *, longest_s: float) -> None:
    """Wait until the page shows an element, given by its CSS selector.

    Raises:
        PnlError: It took too long.
    """
    await _in_time(page.wait_for_selector(selector, timeout=longest_s * 1000), page, f"show {selector}", longest_s)


async def painted(page: "Page", *, numbers: int, plot: bool = False, longest_s: float) -> Painted:
    """What a watched page has painted, once there are so many numbers, and a plot if one is wanted.

    Raises:
        PnlError: It took too long.
    """
    enough = "([numbers, plots]) => pnlPainted.numbers.length >= numbers && pnlPainted.plots.length >= plots"
    waiting = page.wait_for_function(enough, arg=[numbers, int(plot)], polling=LOOK_MS, timeout=longest_s * 1000)
    await _in_time(waiting, page, f"paint {numbers} numbers", longest_s)
    began_ms, found, plots_ms = await page.evaluate("[performance.timeOrigin, pnlPainted.numbers, pnlPainted.plots]")
    return Painted(began_ms, [(text, at_ms) for text, at_ms in found], plots_ms)


async def _in_time(waiting: Awaitable[object], page: "Page", what: str, longest_s: float) -> None:
    from playwright.async_api import TimeoutError as TooLong  # noqa: PLC0415 - as above

    try:
        await waiting
    except TooLong:
        raise PnlError(f"{page.url} did not {what} in {longest_s:g} s") from None
