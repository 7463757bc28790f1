"""The tables of a report: what was booked, broken down, each with the total that its rows sum to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from markupsafe import Markup

from pnl.history.figures import Figures, Part
from pnl.ledger import event_of, series_of
from pnl.records import ZERO
from pnl.report.svg import sideways
from pnl.report.words import UNKNOWN, Words, percent, tone

MOST_SERIES, MOST_EVENTS, MOST_MARKETS, MOST_ITEMS = 8, 2, 1, 15
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Line:
    """One line before it is put into words: how deep it stands, what it is called, and what it made."""

    level: int
    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table in words; `tone` is of its net."""

    level: int
    name: str
    net: str
    tone: str
    trading: str
    fees: str
    costs: str
    revenue: str
    count: str
    wins: str
    share: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and the total below them; which of the columns that not every table needs are in it."""

    head: str
    rows: tuple[Row, ...]
    total: Row
    columns: tuple[str, ...]


def table(head: str, lines: Sequence[Line], total: Figures, words: Words) -> Table:
    """The lines in words; a share is that of all movement of the lines of the first level, up and down alike."""
    first = [line.figures.net_usd for line in lines if line.level == 0]
    moved, most = sum(map(abs, first), ZERO), max(map(abs, first), default=ZERO)
    rows = [_row(line, moved, float(most), words) for line in lines]
    trades = bool(total.fills or total.closes)
    has = {"trading": trades, "fees": trades, "costs": bool(total.costs_usd), "revenue": bool(total.revenue_usd)}
    columns = tuple(name for name, is_there in has.items() if is_there)
    return Table(head, tuple(rows), _row(Line(0, "Total", total), ZERO, 0.0, words), columns)


def _row(line: Line, moved: Decimal, most: float, words: Words) -> Row:
    figures = line.figures
    return Row(
        line.level,
        words.said(line.name),
        words.usd(figures.net_usd, signed=True),
        tone(figures.net_usd),
        _part(words, figures.trading_usd, is_there=figures.fills + figures.closes > 0, signed=True),
        _part(words, figures.fees_usd, is_there=figures.fills + figures.closes > 0),
        _part(words, figures.costs_usd),
        _part(words, figures.revenue_usd),
        f"{figures.postings:,}",
        percent(figures.win_rate),
        percent(abs(figures.net_usd) / moved if moved else None),
        sideways(float(figures.net_usd), most) if most else Markup(),
    )


def _part(words: Words, usd: Decimal, *, is_there: bool = False, signed: bool = False) -> str:
    """A component, a dash where the line has none of it."""
    return words.usd(usd, signed=signed) if usd or is_there else UNKNOWN


def named(parts: Iterable[Part], name: Callable[[str], str], others: str) -> list[Line]:
    """The parts in the order that they come in; what the dimension does not speak of last."""
    lines = [Line(0, name(part.name), part) for part in parts if part.name is not None]
    return lines + [Line(0, others, part) for part in parts if part.name is None and part.net_usd]


def largest(lines: Sequence[Line], most: int, others: str) -> list[Line]:
    """The lines that moved most, the best first, and one for all the others."""
    if len(lines) <= most + 1:
        return sorted(lines, key=_by_net)
    by_size = sorted(lines, key=lambda line: abs(line.figures.net_usd), reverse=True)
    rest = Figures.sum_of(line.figures for line in by_size[most:])
    kept = sorted(by_size[:most], key=_by_net)
    return [*kept, Line(kept[0].level, f"{others} ({len(by_size) - most:,})", rest)]


def _by_net(line: Line) -> tuple[Decimal, str]:
    return -line.figures.net_usd, line.name


def tree(markets: Iterable[Part]) -> list[Line]:
    """Series, their events and their markets: the largest of each, and everything else."""
    traded = {part.name: part for part in markets if part.name is not None}
    lines: list[Line] = []
    for series in largest(_grouped(0, traded, series_of), MOST_SERIES, "all other series"):
        lines.append(series)
        inside = {name: part for name, part in traded.items() if series_of(name) == series.name}
        lines.extend(_events(inside, series.name))
    return lines


def _events(traded: Mapping[str, Part], series: str) -> Iterable[Line]:
    """The largest events of a series; one that has a single market is that market."""
    if set(traded) <= {series}:
        return
    for event in largest(_grouped(1, traded, event_of), MOST_EVENTS, "all other events"):
        inside = {name: part for name, part in traded.items() if event_of(name) == event.name}
        if len(inside) == 1:
            yield Line(1, next(iter(inside)), event.figures)
            continue
        yield event
        yield from largest(_grouped(2, inside, str), MOST_MARKETS, "all other markets") if inside else ()


def _grouped(level: int, traded: Mapping[str, Part], key: Callable[[str], str]) -> list[Line]:
    groups = groupby(sorted(traded, key=lambda name: (key(name), name)), key)
    return [Line(level, name, Figures.sum_of(traded[each] for each in some)) for name, some in groups]
