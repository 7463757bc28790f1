"""The dashboard ended by kill -9 at random instants: is everything that it showed as recorded on disk afterwards?"""

import asyncio
import signal
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from aiohttp import ClientError

from pnl.bench.figures import spread, tell
from pnl.bench.kill_checks import examine
from pnl.bench.kill_dashboard import START_S, dashboard, simulator, tail
from pnl.bench.kill_fleet import Fleet
from pnl.bench.kill_viewer import Viewer
from pnl.bench.redis_server import redis_server
from pnl.errors import PnlError
from pnl.store import Store
from pnl.store.beside import FILE
from pnl.terminal import AsJson, progress_bars

AT_ONCE = 2  # dashboards, each on its own folder: one starts while the other is under load
LOAD = {"PNL_POLL_S": "0.1", "PNL_KALSHI_POLL_S": "1"}  # the venue refuses more than 20 requests a second
LONGEST_LOAD_S = 2.0
LONGEST_START_S = 3.0
KILLED_EARLY = 1 / 8
FLEET_FAULTS = ("lost", "corrupt_files", "duplicate_rows")
FAULTS = ("lost", "damaged", "doubled")


def kill(
    *,
    times: Annotated[int, typer.Option(min=1, help="How often to kill the dashboard.")] = 200,
    seed: Annotated[int, typer.Option(help="Which random instants.")] = 1,
    fleet: Annotated[bool, typer.Option("--fleet", help="Kill dashboards of one record in turn.")] = False,
    redis: Annotated[bool, typer.Option("--redis", help="Give the fleet a shared cache.")] = False,
    database: Annotated[str | None, typer.Option(help="An empty database of PostgreSQL for the fleet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Kill the dashboard under load at random instants, and look for what it showed as recorded in what is on disk.

    A viewer on its websocket keeps every number that came without the mark "Not recorded". After each restart all of
    them have to be in the file, to the micro-dollar. Ends with 1 if any is not, or if a file is damaged.

    A fleet is four dashboards on one record, with two pages open. `takeover_ms` is how long it takes, once the one that
    collects is killed, until a page shows what another one has recorded since; `viewers_back_ms`, until each page moves
    again whose own dashboard was killed, or the one that collects. Pages come to another dashboard, as behind a proxy.
    """
    if fleet:
        figures = asyncio.run(_kill_fleet(times, Random(seed), redis=redis, database=database))  # noqa: S311 - no secret
        tell("Dashboards on one record, killed in turn", figures, as_json=as_json)
        raise typer.Exit(any(figures[name] for name in FLEET_FAULTS))
    victims = asyncio.run(_kill(times, seed))
    lost, damaged, doubled = (sum(len(getattr(each, name)) for each in victims) for name in FAULTS)
    figures = {
        "times": sum(each.deaths for each in victims),
        "received_as_recorded": sum(len(each.received) for each in victims),
        "lost": lost,
        "corrupt_files": damaged,
        "duplicate_rows": doubled,
        "unacknowledged_found": sum(each.unseen for each in victims),
        "restart_s": spread([second for each in victims for second in each.restarts_s]),
        "restart_cpu_s": spread([second for each in victims for second in each.restarts_cpu_s]),
    }
    tell("The dashboard, killed under load", figures, as_json=as_json)
    if lost or damaged or doubled:
        raise typer.Exit(1)


async def _kill_fleet(times: int, random: Random, *, redis: bool, database: str | None) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="pnl-kill-")))
        settings = await stack.enter_async_context(simulator(folder)) | LOAD
        if redis:
            server = await stack.enter_async_context(redis_server(folder))
            settings["PNL_CACHE_URL"] = server.url.get_secret_value()
        if database is not None:
            settings["PNL_STORE_URL"] = database
        members = Fleet(folder, settings, random)
        async with members.running():
            for _ in stack.enter_context(progress_bars()).track(range(times), description="killing"):
                await members.kill()
        return await members.figures()


async def _kill(times: int, seed: int) -> list["Victim"]:
    with TemporaryDirectory(prefix="pnl-kill-") as name, progress_bars() as progress:
        rounds = iter(progress.track(range(times), description="killing"))
        async with simulator(Path(name)) as settings:
            victims = [
                Victim(Path(name) / f"{number}", settings | LOAD, Random(f"{seed} {number}"))  # noqa: S311 - no secret
                for number in range(min(AT_ONCE, times))
            ]
            try:
                async with asyncio.TaskGroup() as tasks:
                    for victim in victims:
                        tasks.create_task(victim.die(rounds))
            except* PnlError as failed:
                raise failed.exceptions[0] from None
    return victims


class Victim:
    """A dashboard that is killed again and again, and the data folder that outlives it.

    Attributes:
        deaths: How often it was killed.
        received: Every snapshot that a viewer received as recorded: micro-dollars by ms since the epoch.
        lost: Those that were missing from the file, or other there, after a restart.
        damaged: What SQLite, or the store itself, found wrong with the file, ever.
        doubled: Records that are there twice, and minutes whose bar is wrong, ever.
        unseen: Snapshots that are in the file and that no viewer received.
        restarts_s: Seconds from each restart to the first number on the page.
        restarts_cpu_s: Seconds of a core that it took, whatever else the machine did meanwhile.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], random: Random) -> None:
        self.deaths = 0
        self.received: dict[int, int] = {}
        self.lost: set[int] = set()
        self.damaged: set[str] = set()
        self.doubled: set[str] = set()
        self.unseen = 0
        self.restarts_s: list[float] = []
        self.restarts_cpu_s: list[float] = []
        self._folder = folder
        self._log = folder.with_suffix(".log")
        self._settings = settings
        self._random = random

    async def die(self, rounds: Iterable[int]) -> None:
        """Live and be killed until no round is left; at last see that the folder can still be opened."""
        for _ in rounds:
            await self._live_and_die()
            self.deaths += 1
        async with Store(self._folder, kind="simulated") as store:
            await self._examine(store.path)
            self.damaged |= set(store.recorded.damage)

    async def _live_and_die(self) -> None:
        began = asyncio.get_running_loop().time()
        async with dashboard(self._folder, self._settings, log=self._log) as served:
            viewer = Viewer(served.address)
            following = asyncio.create_task(viewer.follow())
            if self.received and self._random.random() < KILLED_EARLY:
                await asyncio.sleep(self._random.uniform(0, LONGEST_START_S))
            else:
                await self._wait_for(viewer.has_number)
                if self.received:
                    self.restarts_s.append(asyncio.get_running_loop().time() - began)
                    self.restarts_cpu_s.append(served.cpu_s())
                    await self._examine(self._folder / FILE)
                await self._wait_for(viewer.has_record)
                await asyncio.sleep(self._random.uniform(0, LONGEST_LOAD_S))
            await served.end(signal.SIGKILL)
            await _hear_out(following)
        self.received |= viewer.recorded

    async def _wait_for(self, event: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(event.wait(), START_S)
        except TimeoutError:
            raise PnlError(
                f"the dashboard recorded nothing in {START_S:.0f} s; what it said last: {tail(self._log)}"
            ) from None

    async def _examine(self, path: Path) -> None:
        """Hold what was received before this start against the file as it is now."""
        found = await asyncio.to_thread(examine, path)
        self.lost |= {at_ms for at_ms, micros in self.received.items() if found.net.get(at_ms) != micros}
        self.damaged |= found.damage
        self.doubled |= found.doubled
        self.unseen = len(found.net.keys() - self.received.keys())


async def _hear_out(following: asyncio.Task[None]) -> None:
    """Take in what was still on its way to the viewer; one that never got in gives up."""
    with suppress(TimeoutError, ClientError):
        await asyncio.wait_for(following, 1)
