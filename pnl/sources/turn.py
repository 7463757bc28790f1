"""When a source is asked: every so many seconds, and at once when somebody wants it."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pnl.sources.breaker import BreakerState

HURRIED_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a source is asked at the moment: when next, and what its breaker lets through.

    `breaker` is None before the first request, and of a source that makes none.
    """

    next_at: datetime
    breaker: BreakerState | None = None


class Turn:
    """The rhythm in which one source is asked, for its poll loop to wait for.

    Args:
        poll_s: Seconds from one poll's turn to the next.
        phase_s: Seconds by which the second turn, and so each one after it, comes later than that.
        clock: Seconds on any clock that only goes forward.
        now: The time of day, aware.
    """

    def __init__(
        self,
        poll_s: float,
        *,
        phase_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._poll_s = poll_s
        self._clock = clock
        self._now = now
        self._due = clock() + phase_s
        self._hurried = -math.inf
        self._wanted = asyncio.Event()

    async def wait(self) -> None:
        """Until the next turn; a poll that took long is not made up for by a burst."""
        self._due = max(self._due + self._poll_s, self._clock())
        self._wanted.clear()  # whoever wanted it while it was asked has it now
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), self._due - self._clock())
            self._due = self._clock()

    def hurry(self) -> bool:
        """Make it the source's turn at once; False within 5 s of the last time, so that nobody floods it."""
        if self._clock() - self._hurried < HURRIED_EVERY_S:
            return False
        self._hurried = self._clock()
        self._wanted.set()
        return True

    def next_at(self, *, rest_s: float = 0.0) -> datetime:
        """When the source is asked next: its first turn from now on that finds it rested.

        Args:
            rest_s: For how many seconds it is left alone.
        """
        now = self._clock()
        missed = max(0, math.ceil((now + rest_s - self._due) / self._poll_s))
        return self._now() + timedelta(seconds=self._due + missed * self._poll_s - now)
