"""What a page asks the history for, and what it makes of the answers."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import numpy as np

from pnl.history.client import Bars, History
from pnl.history.dimensions import Filters
from pnl.history.ranges import Range
from pnl.rows import to_ms
from pnl.stream.present import local_ms as wall_ms
from pnl.views.beside import empty, ghost_columns, under_columns
from pnl.views.equity import Edges, equity_columns, local_ms, moment_of

MARGIN = 0.25

type Point = tuple[float, float]
"""Local ms since the epoch, and US dollars."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The past from `start` to `end`, as it is drawn; None is the first record, and the newest."""

    start: datetime | None
    end: datetime | None
    bars: Bars
    carried: tuple[int, int] | None
    filters: Filters = ()

    @property
    def is_joined(self) -> bool:
        """Whether the live line goes on from it: it ends with the newest, and nothing is filtered out of it."""
        return self.end is None and not self.filters

    def columns(self, zone: tzinfo, live: Point | None) -> dict[str, Any]:
        """The steps, see `equity_columns`; `live` is the point where the live line begins."""
        return equity_columns(self.bars, zone, self.edges(live))

    def edges(self, live: Point | None) -> Edges:
        """What stands at the ends of what is drawn."""
        now = datetime.now(UTC)
        return Edges(self.carried, to_ms(min(self.end or now, now)), live)

    def last_begins(self, zone: tzinfo) -> float:
        """When the last bar begins, in local ms: from there on the live line has its points one by one."""
        return float(local_ms(self.bars.start[-1:], zone)[0]) if len(self.bars) else 0.0

    def goes_on(self, before: "Stretch") -> bool:
        """Whether it adds to an earlier answer nothing but what the live line has shown meanwhile."""
        old, new = before.bars, self.bars
        kept = len(old) - 1
        if self._asked != before._asked or new.bucket != old.bucket:  # noqa: SLF001 - of its own kind
            return False
        if not self.is_joined or not len(old):
            kept = max(len(old), len(new))
        columns = ("start", "open", "high", "low", "close", "rebuilt")
        return all(np.array_equal(getattr(new, name)[:kept], getattr(old, name)[:kept]) for name in columns)

    @property
    def _asked(self) -> tuple[object, ...]:
        return self.start, self.end, self.filters, self.carried


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


async def stretch(history: History, start: datetime | None, end: datetime | None, filters: Filters = ()) -> Stretch:
    """The bars between two instants, and what is known of the time before the first of them.

    Args:
        history: Whom to ask.
        start: None is the first record.
        end: None is the newest.
        filters: Of the postings that count, see `History.ledger`.

    Raises:
        HistoryError: See `History.bars`.
    """
    bars = await history.bars(start, end, filters=filters)
    return Stretch(start, end, bars, await _carried(history, start, end, bars, filters), filters)


async def _carried(
    history: History, start: datetime | None, end: datetime | None, bars: Bars, filters: Filters
) -> tuple[int, int] | None:
    """What is rebuilt from the records is known at every instant; what was recorded, only where there is a bar."""
    if start is None or (len(bars) and not bars.rebuilt[0]):
        return None
    if not len(bars) and not filters and await history.snapshot_at(end or datetime.now(UTC), ()) is not None:
        return None
    earlier = await history.bars(None, start, bucket="1mo", filters=filters)
    return (to_ms(start), int(earlier.close[-1])) if len(earlier) else None


async def under(
    history: History, found: Stretch, since: datetime | None, zone: tzinfo, live: Point | None
) -> dict[str, Any]:
    """The high-water mark over a stretch and what is below it, see `under_columns`.

    Args:
        history: Whom to ask.
        found: What it is drawn over.
        since: When the chosen range begins: wherever the plot is moved to in it, the mark is the same.
        zone: The plot's wall clock.
        live: Where the live line begins.

    Raises:
        HistoryError: See `History.underwater`.
    """
    answer = await history.underwater(found.start, found.end, since=since, filters=found.filters)
    return under_columns(answer, found.bars, zone, found.edges(live))


async def ghost(history: History, range_: Range, zone: tzinfo, filters: Filters = ()) -> dict[str, Any]:
    """The period before a range, moved to where the range begins, see `ghost_columns`; empty if there is none.

    Raises:
        HistoryError: See `History.bars`.
    """
    if range_.before is None or range_.start is None or range_.before.start is None:
        return empty("ghost")
    this = await stretch(history, range_.start, range_.end, filters)
    before = await stretch(history, range_.before.start, range_.before.end, filters)
    shift_ms = wall_ms(to_ms(range_.start), zone) - wall_ms(to_ms(range_.before.start), zone)
    end = math.inf if range_.end is None else wall_ms(to_ms(range_.end), zone)
    return ghost_columns(this.columns(zone, None), before.columns(zone, None), shift_ms, end)
