"""What made the P&L of a range, part by part: as a table of any dimension, or day by day as a calendar."""

from collections.abc import Hashable, Mapping, Sequence

from pnl.history.client import History
from pnl.history.figures import Figures, Part
from pnl.history.ranges import Range
from pnl.records import ZERO, money
from pnl.views.lines import as_lines, isolated
from pnl.views.panel import Look
from pnl.views.period import share
from pnl.views.wish import CALENDAR, Wish

MOST_PARTS = 100
WEEKDAYS = ("", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SOURCES = {"kalshi": "Kalshi", "anthropic": "Anthropic", "john": "Deals"}
COLUMNS = ("Name", "Net", "Trading", "Fees", "AI", "Deals", "Fills", "Win", "Share")
OF_ORDER = ("day", "month", "weekday", "hour")

type Row = tuple[str, ...]
"""What to filter by, whether it can be, its share of the largest (-1 to 1), and one cell for each of `COLUMNS`."""


class BreakdownPanel:
    """The parts of the range that is looked at, by the dimension of the tab that is open."""

    def first(self) -> Mapping[str, str]:
        """Nothing."""
        return dict.fromkeys(("parts.by", "parts.rows", "parts.sum", "parts.days"), "")

    def depends(self, wish: Wish) -> Hashable:
        """The tab, the range, and what is filtered."""
        return wish.by, wish.range, tuple(wish.filters), wish.q

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        by = look.wish.by
        if by == CALENDAR:
            days = await _parts(look.history, look.range, look.wish, "day")
            return {"parts.by": by, "parts.rows": "", "parts.sum": "", "parts.days": as_lines(map(_day, days))}
        parts = await _parts(look.history, look.range, look.wish, by)
        total = as_lines([_cells("Together", Figures.sum_of(parts), None)]) if parts else ""
        return {"parts.by": by, "parts.rows": as_lines(rows_of(parts, by)), "parts.sum": total, "parts.days": ""}


async def _parts(history: History, range_: Range, wish: Wish, by: str) -> tuple[Part, ...]:
    return await history.breakdown(range_.start, range_.end, by=by, **wish.postings)


def rows_of(parts: Sequence[Part], by: str) -> list[Row]:
    """The rows of a table of parts; where there are very many, the smallest of them together, so that all sum up."""
    shown, rest = list(parts), list[Part]()
    if len(parts) > MOST_PARTS and by not in OF_ORDER:
        order = sorted(parts, key=lambda part: abs(part.net_usd), reverse=True)
        rest = order[MOST_PARTS:]
        left_out = {part.name for part in rest}
        shown = [part for part in parts if part.name not in left_out]
    rows = [(*_filter(part), *_bar(part, parts), *_cells(_title(part, by), part, parts)) for part in shown]
    if rest:
        together = Figures.sum_of(rest)
        rows.append(("", "", *_bar(together, parts), *_cells(f"{len(rest):,} more", together, parts)))
    return rows


def _title(part: Part, by: str) -> str:
    return f"{isolated(part.text)} · {isolated(named(part.name, by))}" if part.text else named(part.name, by)


def _filter(part: Part) -> tuple[str, str]:
    return part.name or "", "filter"


def _bar(part: Figures, parts: Sequence[Figures]) -> tuple[str]:
    largest = max((abs(each.net_usd) for each in parts), default=ZERO)
    return (f"{part.net_usd / largest:.3f}" if largest else "0",)


def _cells(name: str, part: Figures, parts: Sequence[Figures] | None) -> Row:
    moved = ZERO if parts is None else sum((abs(each.net_usd) for each in parts), ZERO)
    return (
        name,
        money(part.net_usd, signed=True),
        *(money(usd, signed=True) if usd else "" for usd in (part.trading_usd, -part.fees_usd, -part.costs_usd)),
        money(part.revenue_usd, signed=True) if part.revenue_usd else "",
        f"{part.fills:,}" if part.fills else "",
        share(part.win_rate) if part.closes else "",
        share(abs(part.net_usd) / moved) if moved else "",
    )


def _day(part: Part) -> tuple[str, ...]:
    """A day of the calendar: its date, its net in US dollars, and how people read that."""
    return part.name or "", f"{part.net_usd:.2f}", money(part.net_usd, signed=True)


def named(name: str | None, by: str) -> str:
    """The name of a part as people read it; it may come from outside."""
    if name is None:
        return "everything else"
    match by:
        case "weekday":
            return WEEKDAYS[int(name)]
        case "hour":
            return f"{int(name):02}:00"
        case "source":
            return SOURCES.get(name, name)
        case "side":
            return name.upper()
        case _:
            return name
