"""What every page shows at one moment, and what makes of one such present a later one; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import Self

from pnl.journal import ADDED, COMPONENTS
from pnl.records import ZERO

LINE_POINTS = 2000
GAP_MS = 90_000

GAP = float("nan")

PARTS: Mapping[str, tuple[str, ...]] = {
    "trading": ("kalshi_realized",),
    "revenue": ("total_revenue",),
    "fees": ("kalshi_fees",),
    "billed": ("billed_costs",),
    "estimated": ("estimated_costs",),
    "net": COMPONENTS,
}
"""The columns of a day, and of which components each is the sum."""

type Amounts = Mapping[str, list[tuple[int, float]]]
"""By column, some of its values and their places."""
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
    """What is to be sent: texts by their place, and columns that are added or, as `line` and `days`, put anew.

    `amounts` are those of the days that changed, by column and place.
    """

    texts: Sequence[tuple[int, str]] = ()
    points: Columns | None = None
    line: Columns | None = None
    days: Columns | None = None
    amounts: Amounts | None = None

    def __bool__(self) -> bool:
        return bool(self.texts or self.points or self.line or self.days or self.amounts)


def patch(before: Present | None, after: Present) -> Patch:
    """What turns a page that shows one present into one that shows the other.

    Args:
        before: What the page shows; None: nobody knows, and everything is put anew.
        after: What it shall show.
    """
    if before is None:
        return Patch(tuple(enumerate(after.texts)), line=after.line.columns, days=after.days)
    texts = tuple((place, text) for place, text in enumerate(after.texts) if text != before.texts[place])
    days, amounts = _lacks_of_days(before.days, after.days)
    if before.line.era != after.line.era:
        return Patch(texts, line=after.line.columns, days=days, amounts=amounts)
    new = after.line.count - before.line.count
    points = after.line.last(new).columns if new else None
    return Patch(texts, points=points, days=days, amounts=amounts)


def _lacks_of_days(before: Columns, after: Columns) -> tuple[Columns | None, Amounts | None]:
    """All days anew if there are other ones, else the amounts that changed."""
    if after is before:
        return None, None
    if after["day"] != before["day"]:
        return after, None
    changed = {name: _changed(before[name], after[name]) for name in after}
    return None, {name: amounts for name, amounts in changed.items() if amounts}


def _changed(before: Sequence[float], after: Sequence[float]) -> list[tuple[int, float]]:
    return [(place, usd) for place, (was, usd) in enumerate(zip(before, after, strict=True)) if usd != was]


def day_columns(totals: Mapping[date, Mapping[str, Decimal]]) -> Columns:
    """What each day made as columns of a plot: `day`, its start in ms, and US dollars by how much they add to `net`."""
    days = {day: {name: float(_added(parts, of)) for name, of in PARTS.items()} for day, parts in totals.items()}
    starts = [datetime.combine(day, time(), UTC).timestamp() * 1000 for day in days]
    return {"day": starts} | {name: [day[name] for day in days.values()] for name in PARTS}


def _added(parts: Mapping[str, Decimal], components: Iterable[str]) -> Decimal:
    return sum((parts[name] if name in ADDED else -parts[name] for name in components), ZERO)


def local_ms(at_ms: float, zone: tzinfo) -> float:
    """An instant in ms since the epoch, as the wall clock of a zone shows it."""
    offset = datetime.fromtimestamp(at_ms / 1000, zone).utcoffset()
    return at_ms if offset is None else at_ms + offset.total_seconds() * 1000
