"""What a period made, and the one before it: one definition for the page, the command and whoever asks."""

from dataclasses import dataclass
from typing import Any

from pnl.history.client import History
from pnl.history.dimensions import Filters
from pnl.history.figures import Booked, Drawdowns
from pnl.history.ranges import Range


@dataclass(frozen=True, slots=True)
class Period:
    """What was booked in a period, in the same period before it (None: not known), and how deep it fell meanwhile."""

    booked: Booked
    before: Booked | None
    drawdowns: Drawdowns


async def period(history: History, range_: Range, *, filters: Filters = (), search: str = "") -> Period:
    """The figures of a range, and of the one before it; drawdowns know no search.

    Raises:
        HistoryError: See `History.bars`.
    """
    booked = await history.booked(range_.start, range_.end, filters=filters, search=search)
    before = await _before(history, range_.before, filters=filters, search=search)
    return Period(booked, before, await history.drawdowns(range_.start, range_.end, filters=filters))


async def _before(history: History, range_: Range | None, **chosen: Any) -> Booked | None:
    """Nothing is known of a time before the first record: that is not zero."""
    if range_ is None or not len(await history.bars(None, range_.end, bucket="1mo")):
        return None
    return await history.booked(range_.start, range_.end, **chosen)
