"""What every page shows at one moment, and what makes of one such present a later one; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from itertools import accumulate
from typing import Self

LINE_POINTS = 2000
GAP_MS = 90_000

GAP = float("nan")

type Columns = Mapping[str, list[float]]
"""Equally long, by name. They are never changed: a later present has others."""


@dataclass(frozen=True, slots=True)
class Line:
    """Net P&L over the last snapshots, oldest first.

    Attributes:
        t: Local ms since the epoch: plots have no time zones.
        net: US dollars, or `GAP` where nothing was recorded for a while.
        t0: When each point was published, in ms since the epoch.
        count: How many points there have been.
        era: Which line this is; one that begins earlier than before is another one.
    """

    t: list[float]
    net: list[float]
    t0: list[float]
    count: int = 0
    era: int = 0

    @classmethod
    def empty(cls, era: int = 0) -> Self:
        """A line without a point."""
        return cls([], [], [], era=era)

    def __len__(self) -> int:
        return len(self.t)

    @property
    def columns(self) -> dict[str, list[float]]:
        """As a plot has them."""
        return {"t": self.t, "net": self.net, "t0": self.t0}

    def last(self, count: int) -> "Line":
        """The last so many points."""
        first = max(len(self) - count, 0)
        return replace(self, t=self.t[first:], net=self.net[first:], t0=self.t0[first:])

    def with_points(self, points: Iterable[tuple[float, float]], zone: tzinfo, *, t0: float | None = None) -> "Line":
        """The line with later points, and without the oldest if there are too many.

        Args:
            points: ms since the epoch and US dollars, oldest first.
            zone: The reporting time zone.
            t0: When they are published, in ms since the epoch; None: when they were taken.
        """
        t: list[float] = []
        net: list[float] = []
        published: list[float] = []
        last = self.t[-1] if self.t else None
        for at_ms, usd in points:
            local, at = local_ms(at_ms, zone), at_ms if t0 is None else t0
            if last is not None and local - last > GAP_MS:
                t.append(local - 1)
                net.append(GAP)
                published.append(at)
            t.append(local)
            net.append(usd)
            published.append(at)
            last = local
        return self.followed_by(Line(t, net, published, len(t)))

    def followed_by(self, later: "Line") -> "Line":
        """This line and a later one, without the oldest points if there are too many."""
        longer = Line(self.t + later.t, self.net + later.net, self.t0 + later.t0, self.count + later.count, self.era)
        return longer.last(LINE_POINTS)


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """What all pages show, each text in its place."""

    texts: Sequence[str]
    line: Line
    days: Columns


@dataclass(frozen=True, slots=True)
class Patch:
    """What is to be sent: texts by their place, and columns that are added or, as `line` and `days`, put anew."""

    texts: Sequence[tuple[int, str]] = ()
    points: Columns | None = None
    line: Columns | None = None
    days: Columns | None = None

    def __bool__(self) -> bool:
        return bool(self.texts or self.points or self.line or self.days)


def patch(before: Present | None, after: Present) -> Patch:
    """What turns a page that shows one present into one that shows the other.

    Args:
        before: What the page shows; None: nobody knows, and everything is put anew.
        after: What it shall show.
    """
    if before is None:
        return Patch(tuple(enumerate(after.texts)), line=after.line.columns, days=after.days)
    texts = tuple((place, text) for place, text in enumerate(after.texts) if text != before.texts[place])
    days = None if after.days is before.days else after.days
    if before.line.era != after.line.era:
        return Patch(texts, line=after.line.columns, days=days)
    new = after.line.count - before.line.count
    return Patch(texts, points=after.line.last(new).columns if new else None, days=days)


def day_columns(totals: Mapping[date, Decimal]) -> Columns:
    """Totals by day as columns of a plot: the day's start in ms, its net and the running total in US dollars."""
    return {
        "day": [datetime.combine(day, time(), UTC).timestamp() * 1000 for day in totals],
        "net": [float(usd) for usd in totals.values()],
        "total": [float(usd) for usd in accumulate(totals.values())],
    }


def local_ms(at_ms: float, zone: tzinfo) -> float:
    """An instant in ms since the epoch, as the wall clock of a zone shows it."""
    offset = datetime.fromtimestamp(at_ms / 1000, zone).utcoffset()
    return at_ms if offset is None else at_ms + offset.total_seconds() * 1000
