"""Pages that stay open while their connections are cut: what they miss by it, and what they show in the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import ClientError

from pnl.bench.figures import spread
from pnl.bench.kill_dashboard import Served
from pnl.bench.load_crowd import Crowd, Joined, Listener, crowd_of, missed, unlike

UNCUT_S = (1.0, 100.0)
UNCUT_RATIO = 0.2
LONGEST_AWAY_S = 10.0
AWAY_RATIO = 0.1
AGAIN_S = 0.5
JOIN_EACH_S = 5.0
PATIENCE_S = 60.0
WITHIN_SESSION = 0.5
FAULTS = ("missed_points", "disordered_points", "unlike_server", "unlike_own_document")


class Cuts:
    """Cuts the pages of a crowd off now and then, from now on, for up to 10 s each, and lets them come back.

    Some come back to their session, as BokehJS does; the others are loaded anew, as this dashboard's page does.

    Attributes:
        count: How often a page was cut off.
        back_s: Seconds from each try to come back to the page's document.
        failed: How many pages did not come back within a minute.
    """

    def __init__(self, crowd: Crowd, seconds: float, *, within_session: float) -> None:
        self.count = 0
        self.failed = 0
        self.back_s: list[float] = []
        self._crowd = crowd
        self._within_session = within_session
        self._longest_uncut_s = min(UNCUT_S[1], UNCUT_RATIO * seconds)
        self._longest_away_s = min(LONGEST_AWAY_S, AWAY_RATIO * seconds)
        self._began_ms = time.time() * 1000
        self._cutting = [
            asyncio.create_task(self._cut(page, Random(number)))  # noqa: S311 (nothing secret is drawn)
            for number, page in enumerate(crowd.listeners)
        ]

    @property
    def now(self) -> int:
        """How many pages are open."""
        return sum(page.is_open for page in self._crowd.listeners)

    @property
    def opened(self) -> int:
        """How often a page was opened, or came back."""
        return len(self._crowd.listeners) + len(self.back_s)

    async def stop(self) -> None:
        """Cut nobody any more."""
        for task in self._cutting:
            task.cancel()
        await asyncio.gather(*self._cutting, return_exceptions=True)

    async def _cut(self, page: Listener, dice: Random) -> None:
        while True:
            await asyncio.sleep(dice.uniform(UNCUT_S[0], self._longest_uncut_s))
            page.close()
            self.count += 1
            await asyncio.sleep(dice.uniform(0, self._longest_away_s))
            await self._come_back(page, within_session=dice.random() < self._within_session)

    async def _come_back(self, page: Listener, *, within_session: bool) -> None:
        began_s = time.monotonic()
        while time.monotonic() < began_s + PATIENCE_S:
            with suppress(ClientError, OSError):  # for instance, a session can only be come back to for a while
                later_s = await (page.reopen() if within_session else self._crowd.load_anew(page))
                if later_s is None:
                    self.back_s.append(time.monotonic() - began_s)
                    return
                await asyncio.sleep(later_s)
            within_session = False
            await asyncio.sleep(AGAIN_S)
        self.failed += 1

    async def in_the_end(self) -> dict[str, Any]:
        """Bring everybody back, and hold what they show, and what their sessions hold, against a fresh page."""
        await self.stop()
        pages = self._crowd.listeners
        await asyncio.gather(*(self._come_back(page, within_session=False) for page in pages if not page.is_open))
        now_ms = time.time() * 1000
        await self._crowd.heard_all(now_ms)
        got = [[point for point, _ in page.since(0, (self._began_ms, now_ms))] for page in pages]
        differ, own_differ = await self._compare(pages)
        return {
            "reconnects": self.count,
            **{f"reconnect_s_{name}": value for name, value in spread(self.back_s).items()},
            "sessions_opened": self.opened,
            "sessions_failed": self.failed + self._crowd.joined.refused,
            "points": len(set().union(*got)),
            "missed_points": missed(got),
            "disordered_points": sum(page.disordered for page in pages),
            "unlike_server": differ,
            "unlike_own_document": own_differ,
        }

    async def _compare(self, pages: list[Listener]) -> tuple[int, int]:
        """How many pages show something else than a fresh one; how many once they have pulled their own document."""
        truth = await self._crowd.open_one(Joined([]))
        if truth is None:
            return len(pages), len(pages)
        try:
            differ = await unlike(pages, truth)
            for page in pages:
                with suppress(OSError):
                    await page.pull()
            return differ, await unlike(pages, truth)
        finally:
            truth.close()


@asynccontextmanager
async def cut_pages(
    served: Served, sessions: int, seconds: float, log: Path, *, within_session: float = WITHIN_SESSION
) -> AsyncIterator[Cuts]:
    """So many open pages, which are cut off and come back as long as the block lasts; then all are closed.

    Args:
        served: The dashboard.
        sessions: How many pages.
        seconds: How long it takes about; a page is cut off a few times in it.
        log: What the dashboard says, for when it does not start.
        within_session: The part of them that comes back to its session, 0 to 1; the others are loaded anew.
    """
    async with crowd_of(served, log) as crowd:
        await crowd.join(sessions - 1, longest_s=PATIENCE_S + JOIN_EACH_S * sessions)
        cuts = Cuts(crowd, seconds, within_session=within_session)
        try:
            yield cuts
        finally:
            await cuts.stop()
