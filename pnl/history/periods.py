"""What a period made, and the one before it: one definition for the page, the command and whoever asks."""

from dataclasses import dataclass

from pnl.history.client import Booked, Drawdowns, History
from pnl.history.ranges import Range


@dataclass(frozen=True, slots=True)
class Period:
    """What was booked in a period, in the same period before it (None: not known), and how deep it fell meanwhile."""

    booked: Booked
    before: Booked | None
    drawdowns: Drawdowns


async def period(history: History, range_: Range) -> Period:
    """The figures of a range, and of the one before it.

    Raises:
        HistoryError: See `History.bars`.
    """
    booked = await history.booked(range_.start, range_.end)
    before = await _before(history, range_.before)
    return Period(booked, before, await history.drawdowns(range_.start, range_.end))


async def _before(history: History, range_: Range | None) -> Booked | None:
    """Nothing is known of a time before the first record: that is not zero."""
    if range_ is None or not len(await history.bars(None, range_.end, bucket="1mo")):
        return None
    return await history.booked(range_.start, range_.end)
