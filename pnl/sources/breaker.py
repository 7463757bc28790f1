"""When a source that fails is left alone: a breaker that is closed, open, or half-open with exactly one probe."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from pnl.errors import SourceBusy, SourceError, SourceResting

FAILURES = 3
REST_S = 60.0

type BreakerState = Literal["closed", "open", "half_open"]


@dataclass(eq=False, slots=True)
class Permit:
    """Leave for one request to go out; a source in doubt gets one attempt and no retries."""

    may_retry: bool
    counted_before: int
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Breaker:
    """Leaves one source alone after failures in a row.

    closed: requests go out. open: they fail at once, for `rest_s` or for as long as the source asked. half_open: one
    request goes out as the probe and the others wait; its answer lets them go out, its failure fails them all.
    Own code and not interlock-cb, as callers must wait for the probe and requests side by side fail as one.

    Args:
        source: Its name, for the texts.
        failures: More than so many failures in a row open it.
        rest_s: Seconds from then to the probe.
        clock: Seconds on any clock that only goes forward.
        now: The time of day, for the texts; aware.
    """

    def __init__(
        self,
        source: str,
        *,
        failures: int = FAILURES,
        rest_s: float = REST_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._most_failures = failures
        self._rest_s = rest_s
        self._clock = clock
        self._now = now
        self._counted = 0
        self._in_a_row = 0
        self._rests_until: float | None = None
        self._why = ""
        self._probe: Permit | None = None

    @property
    def state(self) -> BreakerState:
        """For decisions, for display and for metrics."""
        if self._rests_until is None:
            return "closed"
        return "open" if self._probe is None and self.next_try_s > 0 else "half_open"

    @property
    def next_try_s(self) -> float:
        """Seconds until the source is asked again; 0 unless the breaker is open."""
        return 0.0 if self._rests_until is None else max(0.0, self._rests_until - self._clock())

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[Permit]:
        """Stand around one request with all its attempts; a `SourceError` that leaves the block is its failure.

        A cancellation, or a mistake of our own, says nothing about the source: a probe hands its role on.

        Raises:
            SourceResting: The source is left alone now; says why and until when.
        """
        permit = await self._admit()
        try:
            yield permit
            self._note_answer(permit)
        except SourceError as error:
            self._note_failure(permit, error)
            raise
        finally:
            self._settle(permit)

    async def _admit(self) -> Permit:
        while self._probe is not None:
            await self._probe.settled.wait()
        state = self.state
        if state == "open":
            raise SourceResting(self._why)
        permit = Permit(may_retry=self._in_a_row == 0, counted_before=self._counted)
        if state == "half_open":
            self._probe = permit
        return permit

    def _note_answer(self, permit: Permit) -> None:
        if self.state == "closed" or permit is self._probe:  # an answer to an old question ends no rest
            self._in_a_row, self._rests_until = 0, None

    def _note_failure(self, permit: Permit, error: SourceError) -> None:
        is_first = permit.counted_before == self._counted  # of requests that were out together
        self._counted += is_first
        self._in_a_row += is_first
        if isinstance(error, SourceBusy) and error.retry_after_s is not None:
            self._rest(error.retry_after_s, str(error))
        elif is_first and (permit is self._probe or self._in_a_row > self._most_failures):
            until = time_of_day(self._now(), self._rest_s)
            last = str(error).removeprefix(f"{self._source}: ")
            why = f"{self._source}: not asked until {until} after {self._in_a_row} failures in a row; the last: {last}"
            self._rest(self._rest_s, why)

    def _rest(self, for_s: float, why: str) -> None:
        until = self._clock() + for_s
        if self._rests_until is None or until > self._rests_until:
            self._rests_until, self._why = until, why

    def _settle(self, permit: Permit) -> None:
        if permit is self._probe:
            self._probe = None
        permit.settled.set()


def time_of_day(now: datetime, in_s: float) -> str:
    """The second of UTC at which `in_s` seconds from now have passed, such as `13:05:10 UTC`."""
    at = now.astimezone(UTC) + timedelta(seconds=in_s, microseconds=999_999)
    return f"{at:%H:%M:%S} UTC"
