"""The pictures of a report, from its figures: the line and what it fell, days by component, the calendar."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt

from markupsafe import Markup

from pnl.history.buckets import BUCKETS
from pnl.history.client import Bars, Underwater
from pnl.history.figures import Figures, Part
from pnl.records import ZERO
from pnl.report.svg import (
    Point,
    Scale,
    area,
    bar,
    inner,
    money_axis,
    money_scale,
    path,
    picture,
    steps,
    tag,
    time_axis,
)
from pnl.report.words import Words, tone

MOST_BARS = 190
MOST_MONTHS = 24
CELL = 28
FAINTEST, STRONGEST = 0.14, 0.55  # so that the day's number stays readable on it


def equity(bars: Bars, under: Underwater, words: Words) -> Markup:
    """The line of net P&L with its high-water mark; nothing where there is no line."""
    if not len(bars):
        return Markup()
    found, end = stretches(bars), _end(bars)
    x = Scale(float(bars.start[0]), end)
    high = [*zip(under.start.astype(float).tolist(), (under.high / 1e6).tolist(), strict=True)]
    high = [(at, usd) for at, usd in high if at <= end]
    y = money_scale([usd for _, points in found for _, usd in points] + [usd for _, usd in high])
    high += [(end, high[-1][1])] if high else []
    lines = [path(steps(points, x, y), "rebuilt" if is_rebuilt else "net") for is_rebuilt, points in found]
    drawn = inner(path(steps(high, x, y), "high"), *lines)
    axes = money_axis(y, words.axis), time_axis(x, words.zone)
    return picture(*axes, drawn, label="Line of net P&L with its high-water mark", class_="equity")


def underwater(bars: Bars, under: Underwater, words: Words) -> Markup:
    """How far the line was below its high-water mark, on the same time axis."""
    if not len(under) or not len(bars):
        return Markup()
    x = Scale(float(bars.start[0]), _end(bars))
    points = [*zip(under.start.astype(float).tolist(), (under.under / 1e6).tolist(), strict=True)]
    points = [(at, usd) for at, usd in points if x.low <= at <= x.high]
    if not points or min(usd for _, usd in points) == 0:
        return Markup()
    y = money_scale([usd for _, usd in points], with_zero=True)
    filled = inner(path(area([*points, (x.high, points[-1][1])], x, y), "under"))
    return picture(money_axis(y, words.axis, 2), filled, label="Fall below the high-water mark", class_="strip")


def stretches(bars: Bars) -> list[tuple[bool, list[Point]]]:
    """The line in pieces: whether it is rebuilt from the records, and its steps; a gap stays a gap.

    Points are ms since the epoch and US dollars. What was recorded holds for its bar alone, unless the next follows;
    what is rebuilt holds until the next.
    """
    length = BUCKETS[bars.bucket].length_ms
    starts, closes, rebuilt = bars.start.tolist(), (bars.close / 1e6).tolist(), bars.rebuilt.tolist()
    found: list[tuple[bool, list[Point]]] = []
    follows = False
    for number, (at, usd, is_rebuilt) in enumerate(zip(starts, closes, rebuilt, strict=True)):
        until = starts[number + 1] if number + 1 < len(starts) else at + length
        is_gap = not is_rebuilt and until - at > 1.5 * length  # a local day may have 25 hours
        if not follows or found[-1][0] is not is_rebuilt:
            found.append((is_rebuilt, [(at, found[-1][1][-1][1])] if follows else []))
        found[-1][1].extend([(at, usd), (at + length if is_gap else until, usd)])
        follows = not is_gap
    return found


def _end(bars: Bars) -> float:
    return float(bars.start[-1]) + BUCKETS[bars.bucket].length_ms


@dataclass(frozen=True, slots=True)
class Span:
    """A day, week or month by its first day, and what it made (None: nothing was booked)."""

    first: date
    figures: Figures | None


def spans(days: Iterable[Part]) -> tuple[str, list[Span]]:
    """Every day from the first to the last, or every week or month where those would be too many to see."""
    by_day = {date.fromisoformat(part.name): part for part in days if part.name is not None}
    if not by_day:
        return "day", []
    first, last = min(by_day), max(by_day)
    every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    unit = "day" if len(every) <= MOST_BARS else "week" if len(every) <= 7 * MOST_BARS else "month"
    begins: Callable[[date], date] = {
        "day": lambda day: day,
        "week": lambda day: day - timedelta(days=day.weekday()),
        "month": lambda day: day.replace(day=1),
    }[unit]
    groups: dict[date, list[Part]] = {begins(day): [] for day in every}
    for day, part in by_day.items():
        groups[begins(day)].append(part)
    return unit, [Span(start, Figures.sum_of(parts) if parts else None) for start, parts in groups.items()]


def components(figures: Figures) -> list[tuple[str, float]]:
    """What moved a span, each by its class of colour: up above zero, down below it."""
    amounts = {
        "trading": figures.trading_usd,
        "deals": figures.revenue_usd,
        "fees": -figures.fees_usd,
        "billed": -figures.billed_usd,
        "estimated": -figures.estimated_usd,
    }
    return [(name, float(usd)) for name, usd in amounts.items() if usd]


def stacked(found: Sequence[Span], unit: str, words: Words) -> Markup:
    """Bars by component, what came in above zero and what went out below, and a mark at the net of each."""
    known = [components(span.figures) for span in found if span.figures is not None]
    ends = [sum(usd for _, usd in some if (usd > 0) is up) for some in known for up in (True, False)]
    if not found:
        return Markup()
    y = money_scale(ends, with_zero=True)
    width = 100 / len(found)
    groups = [_stack(span, number * width, width, y, words) for number, span in enumerate(found) if span.figures]
    labels = _date_labels([span.first for span in found], width)
    return picture(money_axis(y, words.axis), *groups, labels, label=f"Bars by {unit} and component", class_="stacked")


def _stack(span: Span, x: float, width: float, y: Scale, words: Words) -> Markup:
    figures = span.figures or Figures(components={})
    levels = {True: 0.0, False: 0.0}
    rects = []
    for name, usd in components(figures):
        base = levels[usd > 0]
        levels[usd > 0] = base + usd
        kind = f"{name} loss" if name == "trading" and usd < 0 else name
        rects.append(bar(x + width * 0.1, width * 0.8, (base, base + usd), y, kind))
    at = f"{y.down(float(figures.net_usd)):.2f}%"
    mark = tag("line", x1=f"{x + width * 0.02:.2f}%", x2=f"{x + width * 0.98:.2f}%", y1=at, y2=at, class_="sum")
    return tag("g", tag("title", f"{span.first}: net {words.usd(figures.net_usd, signed=True)}"), *rects, mark)


def _date_labels(days: Sequence[date], width: float, most: int = 7) -> Markup:
    step = max(1, -(-len(days) // most))
    spoken = "%b %Y" if len(days) > 1 and (days[1] - days[0]).days > 7 else "%b %-d"  # noqa: PLR2004 - months
    labels = [
        tag("text", f"{day:{spoken}}", x=f"{(number * step + 0.5) * width:.2f}%", y="100%", dy="17", class_=kind)
        for number, day in enumerate(days[::step])
        for kind in ("x minor" if number % 2 else "x",)
    ]
    return Markup().join(labels)


@dataclass(frozen=True, slots=True)
class Month:
    """One leaf of the calendar."""

    name: str
    net: str
    tone: str
    picture: Markup


def calendar(days: Iterable[Part], words: Words) -> tuple[list[Month], int]:
    """The newest months as leaves, days coloured by what they made; and how many older months are left out."""
    by_day = {date.fromisoformat(part.name): part for part in days if part.name is not None}
    most = max((abs(float(part.net_usd)) for part in by_day.values()), default=0.0)
    months = list(_months(by_day))
    shown = months[-MOST_MONTHS:]
    return [_leaf(first, by_day, most, words) for first in shown], len(months) - len(shown)


def _months(days: Iterable[date]) -> Iterator[date]:
    known = sorted(days)
    if not known:
        return
    month = known[0].replace(day=1)
    while month <= known[-1]:
        yield month
        month = _next(month)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _leaf(first: date, by_day: dict[date, Part], most: float, words: Words) -> Month:
    days = [first + timedelta(days=number) for number in range((_next(first) - first).days)]
    booked = [by_day[day] for day in days if day in by_day]
    net = sum((part.net_usd for part in booked), ZERO)
    cells = [_cell(day, first.weekday(), by_day.get(day), most, words) for day in days]
    heads = [
        tag("text", letter, x=(column + 0.5) * CELL, y="10", class_="head") for column, letter in enumerate("MTWTFSS")
    ]
    rows = -(-(first.weekday() + len(days)) // 7)
    box = f"0 0 {7 * CELL} {rows * CELL + 16}"
    drawn = tag("svg", *heads, *cells, viewBox=box, class_="leaf", role="img", aria_label=f"Days of {first:%B %Y}")
    return Month(f"{first:%b %Y}", words.usd(net if booked else None, signed=True), tone(net), drawn)


def _cell(day: date, before: int, part: Part | None, most: float, words: Words) -> Markup:
    row, column = divmod(before + day.day - 1, 7)
    x, y = column * CELL, row * CELL + 16
    kind = "none" if part is None else tone(part.net_usd)
    share = 0.0 if part is None or not most else sqrt(abs(float(part.net_usd)) / most)
    strength = f"{FAINTEST + (STRONGEST - FAINTEST) * share:.2f}" if kind in ("gain", "loss") else "1"
    box = {"x": x + 1, "y": y + 1, "width": CELL - 2, "height": CELL - 2, "rx": 4}
    said = "nothing booked" if part is None else f"net {words.usd(part.net_usd, signed=True)}"
    return tag(
        "g",
        tag("title", f"{day}: {said}"),
        tag("rect", **box, class_=kind, fill_opacity=strength),
        tag("text", f"{day.day}", x=x + 5, y=y + 12),
        tag("text", {"gain": "▲", "loss": "▼"}.get(kind, ""), x=x + CELL - 6, y=y + CELL - 6, class_="sign"),
    )
