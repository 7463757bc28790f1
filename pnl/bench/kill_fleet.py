"""Dashboards of one record, each ended by kill -9 in turn: how soon do the others go on, and is anything lost?"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from random import Random

from aiohttp import ClientError, ClientSession
from pydantic import SecretStr

from pnl.bench.figures import spread
from pnl.bench.kill_checks import Recording, examine, examine_database
from pnl.bench.kill_dashboard import START_S, Served, collector, dashboard, process_in, tail
from pnl.bench.kill_viewer import Viewer, meanwhile, visit
from pnl.bench.page import AGAIN_S
from pnl.errors import PnlError
from pnl.store import FILE, Store, beside_of

MEMBERS = 4  # one collects, and each of the others stands by
VISITORS = 2
LONGEST_PAUSE_S = 1.0
LOOK_S = 0.02


@dataclass(eq=False)
class Member:
    """One dashboard of a fleet, which is started anew whenever it ends, as systemd or Compose would.

    Attributes:
        served: What runs now.
        lives: How often it was started.
    """

    folder: Path
    settings: Mapping[str, str]
    log: Path
    served: Served | None = None
    lives: int = 0

    async def live(self) -> None:
        """Run it until this is cancelled."""
        while True:
            async with dashboard(self.folder, self.settings, log=self.log) as self.served:
                self.lives += 1
                await self.served.process.wait()

    async def kill(self) -> None:
        """End what runs without a word."""
        if self.served is not None:
            await self.served.end(signal.SIGKILL)


class Visitor:
    """Somebody with a page open, who comes to another dashboard once the one that served it is gone.

    That is what a proxy before them does; it asks the next one as soon as one does not answer.

    Attributes:
        recorded: Every snapshot that was shown as recorded: micro-dollars by ms since the epoch.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.recorded: dict[int, int] = {}
        self._members = deque(members)
        self._newest_ms = 0
        self._has_news = asyncio.Event()

    @property
    def member(self) -> Member:
        """Who serves the page, or is asked to next."""
        return self._members[0]

    async def visit(self, home: Member) -> None:
        """Keep a page open, at this dashboard first, until this is cancelled."""
        self._members.rotate(-self._members.index(home))
        async with ClientSession() as session:
            while True:
                await self._stay(session)
                self._members.rotate(-1)
                await asyncio.sleep(AGAIN_S)

    async def _stay(self, session: ClientSession) -> None:
        if self.member.served is None:
            return
        page = Watched(self.member.served.address, self)
        try:
            with suppress(ClientError, OSError):
                if await page.open(session) is None:
                    await page.closed()
        finally:
            page.close()

    def saw(self, at_ms: int) -> None:
        """A snapshot of that instant is shown."""
        if at_ms > self._newest_ms:
            self._newest_ms = at_ms
            self._has_news.set()

    async def sees_after(self, at_ms: float) -> float:
        """Wait for a snapshot that is later; gives when it was shown, in seconds since the epoch."""
        while self._newest_ms <= at_ms:
            self._has_news.clear()
            await self._has_news.wait()
        return time.time()


class Watched(Viewer):
    """The page of a visitor, who keeps what it shows."""

    def __init__(self, address: str, visitor: Visitor) -> None:
        super().__init__(address)
        self.recorded = visitor.recorded
        self._visitor = visitor

    def _note(self, at_ms: int, net_micros: int) -> None:
        super()._note(at_ms, net_micros)
        self._visitor.saw(at_ms)


@dataclass
class Times:
    """How long it took, in ms from a kill on.

    Attributes:
        takeover_ms: Of the one that collected: until a page shows what another one has recorded since.
        viewers_back_ms: Of the one that collected, or that served the page: until the page moves again, for each page.
        restart_ms: Of any one: until it serves a page again.
    """

    takeover_ms: list[float] = field(default_factory=list)
    viewers_back_ms: list[float] = field(default_factory=list)
    restart_ms: list[float] = field(default_factory=list)


class Fleet:
    """Dashboards on one data folder, or, where the settings name a database, on that one with a folder each.

    Attributes:
        deaths: How often one of them was killed.
        times: How soon the others went on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], random: Random) -> None:
        url = settings.get("PNL_STORE_URL")
        self.url = None if url is None else SecretStr(url)
        self.folders = [folder / ("shared" if url is None else f"{number}") for number in range(MEMBERS)]
        self.members = [Member(each, settings, folder / f"{number}.log") for number, each in enumerate(self.folders)]
        self.visitors = [Visitor(self.members) for _ in range(VISITORS)]
        self.deaths = 0
        self.times = Times()
        self._random = random

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have all of them run, and a page open at each of two that do not collect; ends them as suddenly."""
        async with AsyncExitStack() as stack:
            for member in self.members:
                await stack.enter_async_context(meanwhile(member.live()))
            await _within(asyncio.gather(*map(_serves, self.members)), self.members)
            collector = await _within(self.collector(), self.members)
            others = [member for member in self.members if member is not collector]
            for visitor, home in zip(self.visitors, others, strict=False):
                await stack.enter_async_context(meanwhile(visitor.visit(home)))
            yield

    async def kill(self) -> None:
        """Kill the one that collects, at the next call one that serves a page, then one that only stands by."""
        await _within(asyncio.gather(*(each.sees_after(time.time() * 1000) for each in self.visitors)), self.members)
        await asyncio.sleep(self._random.uniform(0, LONGEST_PAUSE_S))
        collector = await _within(self.collector(), self.members)
        if self.deaths % 3 == 0:
            back_ms = await self._end(collector, self.visitors)
            self.times.takeover_ms.append(min(back_ms))
        else:
            victim = self._other(collector, serves=self.deaths % 3 == 1)
            await self._end(victim, [visitor for visitor in self.visitors if visitor.member is victim])

    def _other(self, collector: Member, *, serves: bool) -> Member:
        """One that does not collect, and serves a page, or not, if there is such a one."""
        serving = [visitor.member for visitor in self.visitors]
        others = [member for member in self.members if member is not collector]
        return max(others, key=lambda member: (member in serving) == serves)

    async def _end(self, victim: Member, visitors: Sequence[Visitor]) -> list[float]:
        """Kill one; gives how many ms it took until these visitors saw what was recorded since."""
        lives, began_s = victim.lives, time.time()
        await victim.kill()
        self.deaths += 1
        dead_ms = time.time() * 1000  # what was put together after that is of another one
        back_s = await _within(asyncio.gather(*(each.sees_after(dead_ms) for each in visitors)), self.members)
        back_ms = [1000 * (each - began_s) for each in back_s]
        self.times.viewers_back_ms += back_ms
        await _within(_serves(victim, lives), self.members)
        self.times.restart_ms.append(1000 * (time.time() - began_s))
        return back_ms

    async def collector(self) -> Member:
        """Who records now; waits until somebody does."""
        while True:
            pid = await asyncio.to_thread(self._recording_pid)
            if found := [member for member in self.members if member.served and member.served.process.pid == pid]:
                return found[0]
            await asyncio.sleep(LOOK_S)

    def _recording_pid(self) -> int | None:
        """The process that says that it records; of a folder, one that is dead does so until another one takes it."""
        if self.url is None:
            return collector(self.folders[0])
        with beside_of(self.folders[0], self.url, "simulated") as beside:
            return process_in(beside.holder() or "")

    async def figures(self) -> dict[str, object]:
        """What happened; and, once all of them have ended, what is wrong with the record."""
        received = {at_ms: micros for visitor in self.visitors for at_ms, micros in visitor.recorded.items()}
        found = await asyncio.to_thread(self._examined)
        async with Store(self.folders[0], kind="simulated", url=self.url) as store:  # it checks the chain
            damage = found.damage | set(store.recorded.damage)
        return {
            "times": self.deaths,
            "received_as_recorded": len(received),
            "lost": sum(found.net.get(at_ms) != micros for at_ms, micros in received.items()),
            "corrupt_files": len(damage),
            "duplicate_rows": len(found.doubled),
            "longest_gap_ms": max((later - earlier for earlier, later in pairwise(sorted(found.net))), default=0),
            **{each.name: spread(getattr(self.times, each.name), digits=0) for each in fields(self.times)},
        }

    def _examined(self) -> Recording:
        return examine(self.folders[0] / FILE) if self.url is None else examine_database(self.url)


async def _serves(member: Member, lives: int = 0) -> None:
    """Wait until a dashboard that was started more than so many times has a page with a number."""
    while member.served is None or member.lives <= lives:  # noqa: ASYNC110 - a look now and then is enough
        await asyncio.sleep(LOOK_S)
    async with visit(member.served.address) as viewer:
        await viewer.has_number.wait()


async def _within[T](wait: Awaitable[T], members: Sequence[Member]) -> T:
    try:
        return await asyncio.wait_for(wait, START_S)
    except TimeoutError:
        said = "\n".join(tail(member.log) for member in members)
        raise PnlError(f"nothing moved for {START_S:.0f} s; what the dashboards said last:\n{said}") from None
