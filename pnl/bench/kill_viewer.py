"""One viewer of a served page without a browser: what its websocket brought, and which of it as recorded."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiohttp import ClientError, ClientSession

from pnl.bench.page import AGAIN_S, Page, Point
from pnl.rows import micros, to_ms

UNRECORDED = "Not recorded"
UNKNOWN = ("", "—")


class Viewer(Page):
    """An open page of the dashboard, as far as its numbers go.

    It takes the line's times for UTC, so the reporting time zone of the dashboard has to be UTC.

    Attributes:
        shown: Every snapshot that was shown: the net P&L in micro-dollars, by the instant in ms since the epoch.
        recorded: Those that came without the mark "Not recorded".
        has_number: Set once a net P&L is shown.
        has_record: Set once one is shown as recorded.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.shown: dict[int, int] = {}
        self.recorded: dict[int, int] = {}
        self.has_number = asyncio.Event()
        self.has_record = asyncio.Event()

    async def follow(self) -> None:
        """Open the page as soon as it can be opened, and follow it until its server is gone."""
        try:
            async with ClientSession() as session:
                await self._get_in(session)
            await self.closed()
        finally:
            self.close()

    async def _get_in(self, session: ClientSession) -> None:
        while True:
            await asyncio.sleep(AGAIN_S)
            with suppress(ClientError, OSError):  # it is not up yet
                if await self.open(session) is None:  # at first the page may only say that the server is starting
                    return

    def texts_came(self, texts: Mapping[str, str]) -> None:
        """Note the number that they show."""
        del texts
        if self.fields["net"] in UNKNOWN:
            return
        self.has_number.set()
        if self.fields["state"] == "complete":  # every source is fresh: the numbers are of the instant they were taken
            self._note(to_ms(datetime.fromisoformat(self.fields["as_of"])), micros(self._net_usd()))

    def points_came(self, points: Sequence[Point], received_ms: float, *, is_streamed: bool) -> None:
        """Note the last one; it is of the snapshot whose texts came before it."""
        del received_ms
        if is_streamed and points and points[-1].net is not None:
            self._note(int(points[-1].t), round(points[-1].net * 1_000_000))

    def _note(self, at_ms: int, net_micros: int) -> None:
        self.shown[at_ms] = net_micros
        if UNRECORDED not in self.fields["warning"]:
            self.recorded[at_ms] = net_micros
            self.has_record.set()

    def _net_usd(self) -> Decimal:
        return Decimal(self.fields["exact"].split()[0])


@asynccontextmanager
async def visit(address: str) -> AsyncIterator[Viewer]:
    """A page that is open for as long as the block lasts."""
    viewer = Viewer(address)
    async with meanwhile(viewer.follow()):
        yield viewer


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have something done for as long as the block lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
