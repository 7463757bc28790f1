"""How long the page takes to any row of a long ledger, in a real browser: scrolled to, sorted, searched, filtered."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pnl.bench.browser import chromium
from pnl.bench.figures import named, spread, tell
from pnl.bench.kill_dashboard import START_S, dashboard, listening
from pnl.records import Batch, Fill, Side
from pnl.simulator import LivingMarket, Simulator
from pnl.store import Change, Store
from pnl.terminal import AsJson, said

if TYPE_CHECKING:
    from playwright.async_api import Page

A_BATCH = 10_000
SEED = 7
RARELY_S = 600
# What the page draws for the rows between two instants of its own clock; the frame after it is on the screen.
TIMED = """async ([act, is_there]) => {
    const wanted = new Function(`return ${is_there}`);
    const begun = performance.now();
    new Function(act)();
    while (!wanted()) await new Promise(requestAnimationFrame);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - begun;
}"""
BOX = "document.querySelector('.ledger .scroll')"
ROWS = "document.querySelectorAll('[data-ledger] tr:not(.space)')"


def ledger(
    *,
    rows: Annotated[int, typer.Option(min=1000, max=1_000_000, help="Fills in the ledger.")] = 100_000,
    pages: Annotated[int, typer.Option(min=1, max=1000, help="Places to scroll to.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Measure in a real browser how long the page takes to show any rows of a long ledger.

    page_ms_p50 to _max: from scrolling to a place anywhere in the ledger until its rows are painted; sort_ms: until the
    rows are painted in another order, and back; search_ms: those that hold a text; filter_ms: those of one market. rows
    is how many there are, elements how many of them are in the page at most.

    The dashboard, the process for the history and the browser share the machine. Needs chromium and playwright.
    """
    with TemporaryDirectory(prefix="pnl-ledger-") as folder:
        figures = asyncio.run(_measured(Path(folder), rows, pages))
    tell("Ledger", figures, as_json=as_json)


def made_up(count: int) -> Iterator[Fill]:
    """So many fills of two hundred markets, a minute apart, up to an hour ago."""
    dice = random.Random(SEED)  # noqa: S311 - made-up trades
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=count + 60)
    for number in range(count):
        ticker = f"KXMADEUP{number % 10}-26NOV{number % 20:02}-T{number % 200}"
        price = Decimal(dice.randrange(100, 9900)).scaleb(-4)
        side: Side = "yes" if dice.random() < 0.5 else "no"  # noqa: PLR2004 - heads or tails
        contracts = Decimal(dice.randrange(1, 5000)).scaleb(-2)
        at = first + timedelta(minutes=number)
        yield Fill(f"made-up-{number}", ticker, side, contracts, price, Decimal("0.01"), is_taker=True, filled_at=at)


async def _record(folder: Path, count: int) -> None:
    fills = tuple(made_up(count))
    async with Store(folder, kind="simulated", synchronous="NORMAL") as store:
        for first in range(0, count, A_BATCH):
            change = Change(None, "kalshi", Batch(fills=fills[first : first + A_BATCH]))
            await asyncio.wrap_future(store.append(change))


async def _measured(folder: Path, count: int, pages: int) -> dict[str, Any]:
    log = folder / "server.log"
    with said.status(f"recording {count:,} fills"):
        await _record(folder / "data", count)
    async with Simulator(LivingMarket(seed=SEED, days=1, fills_per_day=1), limited=False) as simulator:
        paces = {f"PNL_{name}_POLL_S": str(RARELY_S) for name in ("KALSHI", "ANTHROPIC", "JOHN")}
        async with (
            dashboard(folder / "data", {**simulator.settings, **paces}, log=log) as server,
            chromium() as browser,
        ):
            await listening(server, log)
            page = await browser.new_page()
            await page.goto(server.address)
            await page.wait_for_function(f"{ROWS}.length > 10", timeout=START_S * 1000)
            return await _looked_at(page, pages)


async def _looked_at(page: "Page", pages: int) -> dict[str, Any]:
    dice = random.Random(SEED)  # noqa: S311 - places to look at
    took, elements = [], 0
    count = int(await page.evaluate("window.pnl.text('ledger.count')"))
    with said.status(f"{pages} places of {count:,} rows"):
        for _ in range(pages):
            took.append(await _scroll(page, dice.random()))
            elements = max(elements, int(await page.evaluate(f"{ROWS}.length")))
    by = "document.querySelector('.ledger [data-sort=amount]')"
    other = "window.before !== window.pnl.text('ledger.rows')"
    sort = [await _timed(page, f"window.before = window.pnl.text('ledger.rows'); {by}.click()", other) for _ in "↓↑"]
    search = await _timed(page, "window.pnl.wish.ask({q: 'madeup3'})", "window.pnl.text('ledger.count') < 50000")
    one = "window.pnl.wish.filter('market', 'KXMADEUP3-26NOV03-T3')"
    alone = await _timed(page, one, "window.pnl.text('ledger.count') < 5000")
    others = {"sort_ms": round(max(sort)), "search_ms": round(search), "filter_ms": round(alone)}
    return {**named("page_ms", spread(took, digits=0)), **others, "rows": count, "elements": elements}


async def _scroll(page: "Page", place: float) -> float:
    """Scroll to a place (0 to 1) and wait until the rows of it stand there."""
    to = f"{BOX}.scrollTop = {place} * ({BOX}.scrollHeight - {BOX}.clientHeight)"
    stands_there = f"""(() => {{
        const box = {BOX}.getBoundingClientRect();
        const rows = [...{ROWS}].map((row) => row.getBoundingClientRect());
        return rows.some(({{top}}) => top <= box.top + 70) && rows.some(({{bottom}}) => bottom >= box.bottom - 70);
    }})()"""
    return await _timed(page, to, stands_there)


async def _timed(page: "Page", act: str, is_there: str) -> float:
    return float(await asyncio.wait_for(page.evaluate(TIMED, [act, is_there]), START_S))
