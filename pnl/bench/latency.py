"""The latency checklist as it stands in a running dashboard with a page open: no row without a figure."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pnl.bench.browser import NoBrowser, chromium
from pnl.bench.figures import tell
from pnl.bench.kill_dashboard import Served, dashboard, simulator
from pnl.bench.load_crowd import crowd_of
from pnl.bench.page import AGAIN_S, Page
from pnl.errors import PnlError
from pnl.metrics import CHECKLIST
from pnl.terminal import AsJson, pass_time, said

PATIENCE_S = 30.0
CHECKLIST_TEXT = "past.checklist"
OF_BROWSER = {"network", "render", "total"}
UNKNOWN = ("—", "")

type Row = dict[str, Any]
"""One row of the checklist as its figures by name."""


def latency(
    *,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long to let it run with a page open.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Let the dashboard run with a page open in a browser, and read its latency checklist.

    It polls every source of simulated APIs on loopback once a second. Figures are of the last thousand durations of
    each row, the start included; the page reports what it received and painted every two seconds. While a row has no
    figure it runs on, for half a minute at most. Ends with 1 if one has none then.

    For each row by name: title, target_ms, own_target_ms (null: none), p50_ms, p95_ms, p99_ms (null: not measured),
    verdict, own_verdict (null: no target of our own), and why, where it could not be measured: without chromium and
    playwright there are no figures of network, render and total.
    """
    with TemporaryDirectory(prefix="pnl-latency-") as folder:
        rows = asyncio.run(measure(Path(folder), seconds))
    if as_json:
        tell("", rows, as_json=True)
    else:
        Console().print(as_table(rows))
    raise typer.Exit(0 if all(is_measured(row) for row in rows.values()) else 1)


async def measure(folder: Path, seconds: float) -> dict[str, Row]:
    """Every row of the checklist by name."""
    log = folder / "server.log"
    async with (
        simulator(folder, "pnl.bench.load_venue") as settings,
        dashboard(folder / "data", settings | {"PNL_POLL_S": "1"}, log=log) as server,
        crowd_of(server, log) as crowd,
        looked_at(server) as trouble,
    ):
        await pass_time(seconds, "letting it run")
        with said.status("reading the checklist"):
            rows = await once_measured(crowd.listeners[0], OF_BROWSER if trouble else set())
    for name in OF_BROWSER if trouble else ():
        rows[name]["why"] = trouble
    return rows


@asynccontextmanager
async def looked_at(server: Served) -> AsyncIterator[str]:
    """Have a browser look at the page meanwhile; yields why there is none, which is empty where there is one."""
    async with AsyncExitStack() as opened:
        trouble = ""
        try:
            browser = await opened.enter_async_context(chromium())
        except NoBrowser as missing:
            trouble = str(missing)
        else:
            await (await browser.new_page()).goto(server.address)
        yield trouble


async def once_measured(page: Page, never: Collection[str]) -> dict[str, Row]:
    """The rows once each has a figure, but for those that never will; after a while, as they are."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + PATIENCE_S
    for turn in count(1):
        rows = parsed(await checklist(page, turn))
        if loop.time() > end_s or all(is_measured(row) for name, row in rows.items() if name not in never):
            break
        await asyncio.sleep(1)
    return rows


async def checklist(page: Page, turn: int) -> str:
    """The checklist as the performance panel of a page has it now.

    Raises:
        PnlError: The server does not answer.
    """
    page.wish(turn=turn, timings=True)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while page.past.get("past.turn") != f"{turn}" or not page.past[CHECKLIST_TEXT]:
                await asyncio.sleep(AGAIN_S)
                await page.pull()
    except (TimeoutError, OSError) as error:
        raise PnlError("the dashboard does not tell its checklist; is it still running?") from error
    return page.past[CHECKLIST_TEXT]


def parsed(text: str) -> dict[str, Row]:
    """The rows of the performance panel's table by name: a line each, its cells separated by tabs."""
    names = {target.title: name for name, target in CHECKLIST.items()}
    rows = (_row(line.split("\t")) for line in text.split("\n"))
    return {names[row["title"]]: row for row in rows}


def _row(cells: Sequence[str]) -> Row:
    title, p50, p95, p99, target, verdict, own, own_verdict = cells
    return {
        "title": title,
        "target_ms": _ms(target),
        "own_target_ms": _ms(own),
        "p50_ms": _ms(p50),
        "p95_ms": _ms(p95),
        "p99_ms": _ms(p99),
        "verdict": verdict,
        "own_verdict": own_verdict or None,
    }


def _ms(cell: str) -> float | None:
    return None if cell in UNKNOWN else float(cell.removeprefix("< ").replace(",", ""))


def is_measured(row: Row) -> bool:
    """Whether it has a figure."""
    return row["p50_ms"] is not None


def as_table(rows: Mapping[str, Row]) -> Table:
    """For people: a row for each, as the page has it."""
    table = Table(title="Latency checklist", caption="ms; a target is met while 95 of 100 keep it")
    for heading in ("step", "p50", "p95", "p99", "target", "verdict", "our target", "verdict"):
        table.add_column(heading, justify="left" if heading in {"step", "verdict"} else "right")
    for row in rows.values():
        actual = [f"{row[name]:g}" if is_measured(row) else UNKNOWN[0] for name in ("p50_ms", "p95_ms", "p99_ms")]
        own = ("", "") if row["own_target_ms"] is None else (f"< {row['own_target_ms']:g}", row["own_verdict"])
        said_why = f"{row['verdict']}: {row['why']}" if "why" in row else row["verdict"]
        table.add_row(row["title"], *actual, f"< {row['target_ms']:g}", said_why, *own)
    return table
