"""What the dashboard needs after a long time: memory, files and threads while sessions come and go."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from pnl.bench.figures import rss_bytes, tell
from pnl.bench.kill_dashboard import Served, dashboard
from pnl.bench.kill_viewer import visit
from pnl.bench.soak_cuts import FAULTS, Cuts, cut_pages
from pnl.terminal import AsJson, progress_bars

SOURCES = 3
SHORTEST_POLL_S = 0.1
SAMPLE_S = 1.0
WARM_UP_RATIO = 0.2
LEAST_WARM_UP_S = 200.0  # every visitor has come and gone at least once, and what they left is taken away
VISIT_S = (20.0, 100.0)
PATIENCE_S = 60.0
WINDOW_RATIO = 0.1
MOST_GROWTH_PERCENT = 5.0
MOST_TOLD = 5
MEGABYTE = 1 << 20
OURS = re.compile(r'File ".*/(?:pnl|app)/[^"]+\.py"')


def soak(
    *,
    seconds: Annotated[float, typer.Option(min=10, help="How long, warm-up included.")] = 1800,
    polls_per_s: Annotated[
        float, typer.Option(min=0.01, max=SOURCES / SHORTEST_POLL_S, help="All sources together.")
    ] = 20,
    sessions: Annotated[int, typer.Option(min=1, max=500, help="Open pages that come and go.")] = 50,
    reconnects: Annotated[
        bool, typer.Option("--reconnects", help="The pages stay, are cut off now and then, and come back.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the dashboard on the demo while pages are opened and closed, and see whether it grows.

    20 polls a second are three sources polled every 0.15 s; the venue's request limit, which the source keeps by
    itself, allows about four of its polls a second, so some fewer are made: `polls_per_s` says how many were recorded.
    A session is a websocket that reads its page and every patch, and leaves after 20 to 100 s. Growth is from the first
    to the last tenth of the time after the warm-up, which takes at least 200 s unless that is over half of the time.
    With --reconnects each page is cut off for up to 10 s, again and again; in the end all have to show what a fresh
    page shows, and none may have missed a point. Ends with 1 if it grew by 5 % or more, or if something went wrong. A
    machine that is busy otherwise, `cpu_percent` near 100, measures how much waits in the server and not what it keeps.
    """
    with TemporaryDirectory(prefix="pnl-soak-") as folder:
        figures = asyncio.run(_measure(Path(folder), seconds, polls_per_s, sessions, reconnects=reconnects))
    tell("Soak", figures, as_json=as_json)
    raise typer.Exit(1 if figures["violations"] else 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server's process holds at one moment, and the seconds of a core that it has used."""

    rss_bytes: int
    fds: int
    threads: int
    cpu_s: float
    at_s: float


@dataclass(slots=True)
class Visits:
    """How many pages were opened and showed a number, how many did not, and how many are open now."""

    opened: int = 0
    failed: int = 0
    now: int = 0

    async def in_the_end(self) -> dict[str, Any]:
        """Nobody stays until then."""
        return {"sessions_opened": self.opened, "sessions_failed": self.failed}


async def _measure(
    folder: Path, seconds: float, polls_per_s: float, sessions: int, *, reconnects: bool
) -> dict[str, Any]:
    log = folder / "server.log"
    poll_s = max(SHORTEST_POLL_S, SOURCES / polls_per_s)
    warm_up_s = min(max(LEAST_WARM_UP_S, seconds * WARM_UP_RATIO), seconds / 2)
    async with dashboard(folder / "data", {"PNL_POLL_S": f"{poll_s:g}"}, log=log) as served:
        await _first_number(served)
        readers = (
            cut_pages(served, sessions, seconds, log) if reconnects else _visitors(served.address, sessions, Visits())
        )
        async with readers as visits:
            await _sample(served, warm_up_s, visits, "warming up")
            before = _snapshots(folder)
            samples = await _sample(served, seconds - warm_up_s, visits, "measuring")
            polls_done = _snapshots(folder)
            of_readers = await visits.in_the_end()
        is_alive = served.process.returncode is None
    figures = {
        "seconds": seconds,
        "warm_up_s": warm_up_s,
        "sessions": sessions,
        "poll_s": round(poll_s, 3),
        **(_figures(samples) if is_alive else {}),
        "polls_per_s": round((polls_done - before) / (seconds - warm_up_s), 2),
        "polls_done": polls_done,
        **of_readers,
    }
    return figures | {"violations": _violations(figures, _troubles(log), is_alive=is_alive)}


async def _first_number(served: Served) -> None:
    async with visit(served.address) as viewer:
        await asyncio.wait_for(viewer.has_record.wait(), PATIENCE_S)


@asynccontextmanager
async def _visitors(address: str, sessions: int, visits: Visits) -> AsyncIterator[Visits]:
    """So many visitors that come again and again."""
    tasks = [asyncio.create_task(_come_again(address, Random(number), visits)) for number in range(sessions)]  # noqa: S311 (nothing secret is drawn)
    try:
        yield visits
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _come_again(address: str, dice: Random, visits: Visits) -> None:
    await asyncio.sleep(dice.uniform(0, VISIT_S[1]))  # not all at once
    while True:
        async with visit(address) as viewer:
            try:
                await asyncio.wait_for(viewer.has_number.wait(), PATIENCE_S)
            except TimeoutError:
                visits.failed += 1
                continue
            visits.opened += 1
            visits.now += 1
            try:
                await asyncio.sleep(dice.uniform(*VISIT_S))
            finally:
                visits.now -= 1


async def _sample(served: Served, seconds: float, visits: Visits | Cuts, what: str) -> list[Sample]:
    """Look at the server once a second for so long, or until it is gone."""
    samples: list[Sample] = []
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    with progress_bars() as progress, suppress(FileNotFoundError):  # /proc, once it is gone
        bar = progress.add_task(what, total=seconds)
        while (left_s := until_s - loop.time()) > 0:
            samples.append(now := _look(served))
            line = f"{now.rss_bytes / MEGABYTE:.0f} MB, {now.fds} files, {visits.now} of {visits.opened} sessions open"
            progress.update(bar, completed=seconds - left_s, description=f"{what}: {line}")
            await asyncio.sleep(min(SAMPLE_S, left_s))
    return samples


def _look(served: Served) -> Sample:
    folder = Path(f"/proc/{served.process.pid}")
    fds, threads = (len(list((folder / what).iterdir())) for what in ("fd", "task"))
    return Sample(rss_bytes(served.process.pid), fds, threads, served.cpu_s(), asyncio.get_running_loop().time())


def _snapshots(folder: Path) -> int:
    """How many polls are on record."""
    with closing(sqlite3.connect(f"file:{folder / 'data' / 'demo' / 'pnl.db'}?mode=ro", uri=True)) as reader:
        count: int = reader.execute("SELECT count(*) FROM pnl_snapshots").fetchone()[0]
    return count


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    window = max(1, int(len(samples) * WINDOW_RATIO))
    first, last = (median(sample.rss_bytes for sample in some) for some in (samples[:window], samples[-window:]))
    fds, threads = [sample.fds for sample in samples], [sample.threads for sample in samples]
    cpu_s, wall_s = samples[-1].cpu_s - samples[0].cpu_s, samples[-1].at_s - samples[0].at_s
    return {
        "rss_first_mb": round(first / MEGABYTE, 1),
        "rss_last_mb": round(last / MEGABYTE, 1),
        "rss_max_mb": round(max(sample.rss_bytes for sample in samples) / MEGABYTE, 1),
        "rss_growth_percent": round((last / first - 1) * 100, 2),
        "fds_min": min(fds),
        "fds_max": max(fds),
        "threads_min": min(threads),
        "threads_max": max(threads),
        "cpu_percent": round(100 * cpu_s / wall_s, 1),
    }


def _troubles(log: Path) -> list[str]:
    """The last line of each traceback in the server's log that comes from our code.

    Tornado and Bokeh log one of their own for every visitor who leaves in the middle of something.
    """
    told, is_inside, is_ours = [], False, False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Traceback "):
            is_inside, is_ours = True, False
        elif is_inside and line.startswith(" "):
            is_ours = is_ours or OURS.search(line) is not None
        elif is_inside and line:
            told += [line] if is_ours else []
            is_inside = False
    return told


def _violations(figures: Mapping[str, Any], troubles: Sequence[str], *, is_alive: bool) -> list[str]:
    if not is_alive:
        return ["the server ended by itself", *troubles[-MOST_TOLD:]]
    found = [f"the server's log says: {line[:200]}" for line in troubles[:MOST_TOLD]]
    if figures["rss_growth_percent"] >= MOST_GROWTH_PERCENT:
        found.append(f"memory grew by {figures['rss_growth_percent']} %")
    if figures["sessions_failed"]:
        found.append(f"{figures['sessions_failed']} pages showed no number within {PATIENCE_S:g} s")
    found += [f"{name}: {figures[name]}" for name in FAULTS if figures.get(name)]
    return found
