"""Many pages open at once in one process: who got which point when, and who missed one."""

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from pnl.bench.kill_dashboard import START_S, Served, tail
from pnl.bench.page import AGAIN_S, Page, Point
from pnl.errors import PnlError
from pnl.terminal import said

JOINS_AT_ONCE = 3
JOINS_PER_S = 12.0  # the server puts off more than 30 in 2 s
MOST_TRIES = 6
MOST_REFUSED = 10
LOOK_S = 0.02
PATIENCE_S = 10.0
WARM_POINTS = 3

type Span = tuple[float, float]
"""From one instant up to another, which is outside; ms since the epoch."""


class Listener(Page):
    """A page that keeps which points it got, and when.

    Attributes:
        received: Every point, in the order of its coming; what a whole line brought besides is not there twice.
        received_ms: When each of them came; NaN: it stood in the document that was pulled.
        sizes: Bytes of patches from one streamed point to the next.
        disordered: How many streamed points came after a later one, or once more.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.received: list[Point] = []
        self.received_ms = array("d")
        self.sizes = array("L")
        self.disordered = 0
        self._newest = (0.0, 0.0)
        self._counted_bytes = 0

    @property
    def newest_ms(self) -> float:
        """When the newest point that it knows was published."""
        return self._newest[0]

    def begun(self) -> None:
        """Take in what stood in the document."""
        self._take_whole(self.line, nan)

    def points_came(self, points: Sequence[Point], received_ms: float, *, is_streamed: bool) -> None:
        """Take them in, and note when they came."""
        if not is_streamed:
            self._take_whole(points, received_ms)
            return
        for point in points:
            self.disordered += point[:2] <= self._newest
            self._take(point, received_ms)
        if points:
            self.sizes.append(self.received_bytes - self._counted_bytes)
            self._counted_bytes = self.received_bytes

    def _take_whole(self, line: Iterable[Point], received_ms: float) -> None:
        known = set(self.received)
        for point in line:
            if point not in known:
                self._take(point, received_ms)

    def _take(self, point: Point, received_ms: float) -> None:
        self._newest = max(self._newest, point[:2])
        self.received.append(point)
        self.received_ms.append(received_ms)

    def since(self, begin: int, span: Span) -> Iterator[tuple[Point, float]]:
        """The points that were published in a span, of those received after the first so many, and when they came."""
        for place in range(begin, len(self.received)):
            if span[0] <= self.received[place].t0 < span[1]:
                yield self.received[place], self.received_ms[place]


def missed(received: Sequence[Sequence[Point]]) -> int:
    """How many points some of the clients got and others did not, summed over those who did not."""
    everything: set[Point] = set().union(*received)
    return sum(len(everything) - len(set(points)) for points in received)


def is_same(page: Page, other: Page) -> bool:
    """Whether two pages show the same texts, and the same line as far back as both have it."""
    shared = min(len(page.line), len(other.line))
    if not (page.is_open and shared and page.fields == other.fields):
        return False
    return list(page.line)[-shared:] == list(other.line)[-shared:]


@dataclass(slots=True)
class Joined:
    """How the opening of pages went: seconds from the question that was granted to the page's document."""

    seconds: list[float]
    put_off: int = 0
    refused: int = 0


class Crowd:
    """The listeners of one server; `async with` closes them."""

    def __init__(self, address: str, session: ClientSession) -> None:
        self.listeners: list[Listener] = []
        self.joined = Joined([])
        self._address = address
        self._session = session

    def leave(self, count: int | None = None) -> None:
        """Close the last so many, or all."""
        leaving = self.listeners if count is None else self.listeners[len(self.listeners) - count :]
        for listener in leaving:
            listener.close()
        del self.listeners[len(self.listeners) - len(leaving) :]

    async def open_first(self) -> bool:
        """Open the first page; whether it shows something already.

        Raises:
            ClientError: The server is not up yet.
            OSError: As above.
        """
        listener = Listener(self._address)
        if await listener.open(self._session) is None:
            self.listeners.append(listener)
        return bool(self.listeners)

    async def join(self, count: int, *, longest_s: float) -> None:
        """Open so many more pages, few at a time, for as long as allowed, and until a few were refused."""
        left = iter(range(count))
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s), asyncio.TaskGroup() as tasks:
                for _ in range(min(JOINS_AT_ONCE, count)):
                    tasks.create_task(self._join_in_turn(left))

    async def _join_in_turn(self, left: Iterator[int]) -> None:
        loop = asyncio.get_running_loop()
        for _ in left:
            began_s = loop.time()
            if listener := await self.open_one(self.joined):
                self.listeners.append(listener)
            if self.joined.refused >= MOST_REFUSED:
                return
            await asyncio.sleep(JOINS_AT_ONCE / JOINS_PER_S - (loop.time() - began_s))

    async def load_anew(self, listener: Listener) -> float | None:
        """Have a page of the crowd loaded anew; see `Page.open`."""
        return await listener.open(self._session)

    async def open_one(self, joined: Joined) -> Listener | None:
        """Open a page, as often put off as a patient visitor bears; None if it is refused."""
        listener = Listener(self._address)
        for _ in range(MOST_TRIES):
            began_s = time.perf_counter()
            try:
                later_s = await self._opened(listener)
            except (ClientError, OSError):
                break
            except asyncio.CancelledError:
                listener.close()
                raise
            if later_s is None:
                joined.seconds.append(time.perf_counter() - began_s)
                return listener
            joined.put_off += 1
            await asyncio.sleep(later_s)
        joined.refused += 1
        return None

    async def _opened(self, listener: Listener) -> float | None:
        """Open a page; one that says that its server begins only now loads itself anew until there is more to see."""
        async with asyncio.timeout(START_S):
            while (later_s := await listener.open(self._session)) == AGAIN_S:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(AGAIN_S)
        return later_s

    async def heard_all(self, until_ms: float) -> None:
        """Wait until everybody knows a point that was published later, so that nothing older is still on its way."""
        await until(lambda: all(each.newest_ms >= until_ms for each in self.listeners if each.is_open))


@asynccontextmanager
async def crowd_of(server: Served, log: Path) -> AsyncIterator[Crowd]:
    """The first page of a server, once it shows updates, for others to join."""
    connector, patience = TCPConnector(limit=0, force_close=True), ClientTimeout(total=START_S)
    async with ClientSession(connector=connector, timeout=patience) as session:
        crowd = Crowd(server.address, session)
        try:
            with said.status("starting the server"):
                await _first(crowd, server, log)
            yield crowd
        finally:
            crowd.leave()


async def _first(crowd: Crowd, server: Served, log: Path) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + START_S
    while server.process.returncode is None and loop.time() < end_s:
        with suppress(ClientError, OSError):
            if await crowd.open_first():
                break
        await asyncio.sleep(0.1)
    if crowd.listeners and await until(lambda: len(crowd.listeners[0].sizes) >= WARM_POINTS, patience_s=START_S):
        return
    raise PnlError(f"no update came in {START_S:g} s from the server; what it said last: {tail(log)}")


async def until(claim: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> bool:
    """Wait until something is so, and not for ever; whether it became so."""
    end_s = time.monotonic() + patience_s
    while True:
        if claim():
            return True
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(LOOK_S)


async def unlike(pages: Iterable[Page], truth: Page) -> int:
    """How many pages never came to show what another one shows, at any instant of a while."""
    left = list(pages)

    def all_alike() -> bool:
        left[:] = [page for page in left if not is_same(page, truth)]
        return not left

    await until(all_alike)
    return len(left)
