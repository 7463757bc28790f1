"""What a page asks the history for, and what it makes of the answers."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import numpy as np

from pnl.history.client import Bars, History
from pnl.history.ranges import Range
from pnl.rows import to_ms
from pnl.views.equity import Edges, equity_columns, local_ms, moment_of

MARGIN = 0.25

type Point = tuple[float, float]
"""Local ms since the epoch, and US dollars."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The past from `start` to `end`, as it is drawn; None is the first record, and the newest.

    Where it ends with the newest, the live line goes on from it.
    """

    start: datetime | None
    end: datetime | None
    bars: Bars
    carried: tuple[int, int] | None

    def columns(self, zone: tzinfo, live: Point | None) -> dict[str, Any]:
        """The steps, see `equity_columns`; `live` is the point where the live line begins."""
        now = datetime.now(UTC)
        return equity_columns(self.bars, zone, Edges(self.carried, to_ms(min(self.end or now, now)), live))

    def last_begins(self, zone: tzinfo) -> float:
        """When the last bar begins, in local ms: from there on the live line has its points one by one."""
        return float(local_ms(self.bars.start[-1:], zone)[0]) if len(self.bars) else 0.0

    def goes_on(self, before: "Stretch") -> bool:
        """Whether it adds to an earlier answer nothing but what the live line has shown meanwhile."""
        old, new = before.bars, self.bars
        kept = len(old) - 1
        if (self.start, self.end, self.carried, new.bucket) != (before.start, before.end, before.carried, old.bucket):
            return False
        if self.end is not None or not len(old):
            kept = max(len(old), len(new))
        columns = ("start", "open", "high", "low", "close", "rebuilt")
        return all(np.array_equal(getattr(new, name)[:kept], getattr(old, name)[:kept]) for name in columns)


type Ends = tuple[datetime | None, datetime | None]


def ends(range_: Range, window: Point | None, zone: tzinfo, live: Point | None) -> Ends:
    """From when until when to ask.

    Args:
        range_: What was chosen.
        window: What the plot was moved to, in local ms; somewhat more is asked for.
        zone: The plot's wall clock.
        live: Where the live line begins; what is seen of it is asked for up to the newest.
    """
    if window is None:
        return range_.start, range_.end
    first, last = sorted(window)
    margin = (last - first) * MARGIN
    start = moment_of(first - margin, zone).replace(second=0, microsecond=0)
    is_joined = range_.is_live and (live is None or last + margin >= live[0])
    return start, None if is_joined else moment_of(last + margin, zone)


async def stretch(history: History, start: datetime | None, end: datetime | None) -> Stretch:
    """The bars between two instants, and what is known of the time before the first of them.

    Raises:
        HistoryError: See `History.bars`.
    """
    bars = await history.bars(start, end)
    return Stretch(start, end, bars, await _carried(history, start, end, bars))


async def _carried(
    history: History, start: datetime | None, end: datetime | None, bars: Bars
) -> tuple[int, int] | None:
    """What is rebuilt from the records is known at every instant; what was recorded, only where there is a bar."""
    if start is None or (len(bars) and not bars.rebuilt[0]):
        return None
    if not len(bars) and await history.snapshot_at(end or datetime.now(UTC), ()) is not None:
        return None
    earlier = await history.bars(None, start, bucket="1mo")
    return (to_ms(start), int(earlier.close[-1])) if len(earlier) else None
