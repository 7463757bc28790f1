"""Pictures as SVG, drawn by hand: no script, sharp on paper, and at any width with their words unchanged.

What has to stretch is in per cent of the picture; lines are in a picture inside it of 1,000 by 1,000 whose strokes keep
their width. Classes give the colours: the style sheet knows whether it is day, night or paper.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from markupsafe import Markup, escape

INNER = 1000
NICE = (1, 2, 2.5, 5, 10)

type Point = tuple[float, float]


def tag(name: str, *inside: str, **attributes: str | float) -> Markup:
    """An element with these attributes, all of them escaped; text inside is too, unless it is markup."""
    names = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    shown = "".join(f' {key}="{escape(_short(value))}"' for key, value in names)
    return Markup(f"<{name}{shown}>{''.join(map(escape, inside))}</{name}>")  # noqa: S704 - escaped on this line


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Scale:
    """A stretch of values; called with one, it gives the place of it, 0 at `low` and 1 at `high`."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """The place of a value in 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def down(self, value: float) -> float:
        """The place of a value in per cent from the top."""
        return 100 - 100 * self(value)


def money_scale(values: Iterable[float], *, with_zero: bool = False) -> Scale:
    """A scale around these values with a little room, never of no height."""
    known = [*values, *([0.0] if with_zero else [])] or [0.0]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or max(0.5, abs(high) * 0.1)
    return Scale(low - room if low < 0 or not with_zero else 0.0, high + room if high > 0 or not with_zero else 0.0)


def ticks(scale: Scale, most: int = 4) -> tuple[float, list[float]]:
    """A round step, and its multiples within a scale, no more than a few."""
    raw = (scale.high - scale.low) / most
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * magnitude for nice in NICE if nice * magnitude >= raw * 0.999)
    step = max(step, 0.01)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    return step, [number * step for number in range(first, last + 1)]


def money_axis(scale: Scale, label: Callable[[float, float], str], most: int = 4) -> Markup:
    """Thin lines across the picture at round amounts, their labels at its left; zero stands out."""
    step, values = ticks(scale, most)
    lines = []
    for value in values:
        y = f"{scale.down(value):.2f}%"
        lines.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="zero" if value == 0 else "grid"))
        lines.append(tag("text", label(value, step), x="-8", y=y, dy="0.32em", class_="y"))
    return Markup().join(lines)


def time_axis(scale: Scale, zone: tzinfo, most: int = 7) -> Markup:
    """Dates, or hours, below the picture; `scale` is of ms since the epoch."""
    found = time_ticks(scale.low, scale.high, zone, most)
    labels = [
        tag("text", text, x=f"{100 * scale(at):.2f}%", y="100%", dy="17", class_="x minor" if number % 2 else "x")
        for number, (at, text) in enumerate(found)
    ]
    return Markup().join(labels)


def time_ticks(low_ms: float, high_ms: float, zone: tzinfo, most: int = 7) -> list[tuple[float, str]]:
    """Round instants by the wall clock, ms since the epoch, and how each is called."""
    low = datetime.fromtimestamp(low_ms / 1000, zone)
    days = (high_ms - low_ms) / 86_400_000
    if days <= 3:  # noqa: PLR2004 - hours are told from days
        return _hours(low, high_ms, max(1, math.ceil(days * 24 / most / 3) * 3 if days > 0.5 else 1))  # noqa: PLR2004 - half a day
    if days <= 75:  # noqa: PLR2004 - days are told from months
        step = next(step for step in (1, 2, 5, 7, 14) if days / step <= most)
        midnight = low.replace(hour=0, minute=0, second=0, microsecond=0)
        starts = (midnight + timedelta(days=step * number) for number in range(int(days / step) + 2))
        return _within(((at, f"{at:%b} {at.day}") for at in starts), low_ms, high_ms)
    return _months(low, low_ms, high_ms, math.ceil(days / 30.4 / most))


def _hours(low: datetime, high_ms: float, step: int) -> list[tuple[float, str]]:
    first = low.replace(minute=0, second=0, microsecond=0)
    first -= timedelta(hours=first.hour % step)
    instants = (first.astimezone(UTC) + timedelta(hours=step * number) for number in range(80))
    local = (at.astimezone(low.tzinfo) for at in instants)
    return _within(((at, f"{at:%H:%M}" if at.hour else f"{at:%b} {at.day}") for at in local), _ms(low), high_ms)


def _months(low: datetime, low_ms: float, high_ms: float, step: int) -> list[tuple[float, str]]:
    step = next((nice for nice in (1, 2, 3, 6, 12) if nice >= step), 12 * math.ceil(step / 12))
    first = low.year * 12 + (low.month - 1) // step * step if step <= 12 else low.year * 12  # noqa: PLR2004 - months
    numbers = range(first, first + 13 * max(step, 12) * 12, step)
    starts = (datetime(number // 12, number % 12 + 1, 1, tzinfo=low.tzinfo) for number in numbers)
    return _within(((at, f"{at:%b %Y}") for at in starts), low_ms, high_ms)


def _within(found: Iterable[tuple[datetime, str]], low_ms: float, high_ms: float) -> list[tuple[float, str]]:
    return [(_ms(at), text) for at, text in found if low_ms <= _ms(at) <= high_ms]


def _ms(at: datetime) -> float:
    return at.timestamp() * 1000


def steps(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """The path of a line of steps through these points, in the inner picture; each holds until the next."""
    placed = [(INNER * x(at), INNER - INNER * y(value)) for at, value in points]
    if not placed:
        return ""
    moves = [f"M{placed[0][0]:.1f} {placed[0][1]:.1f}"]
    for (_, before), (at, value) in pairwise(placed):
        moves.append(f"H{at:.1f}" if value == before else f"H{at:.1f}V{value:.1f}")
    return "".join(moves)


def area(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """The same, closed along zero."""
    if not points:
        return ""
    zero = INNER - INNER * y(0)
    first, last = (f"{INNER * x(at):.1f}" for at in (points[0][0], points[-1][0]))
    line = steps(points, x, y)
    return f"M{first} {zero:.1f}L{line[1:]}L{last} {zero:.1f}Z"


def inner(*paths: Markup) -> Markup:
    """The picture inside that stretches."""
    box = {"width": "100%", "height": "100%", "viewBox": f"0 0 {INNER} {INNER}", "preserveAspectRatio": "none"}
    return tag("svg", *paths, **box)


def path(d: str, class_: str) -> Markup:
    """A line or area of the inner picture."""
    return tag("path", d=d, class_=class_, vector_effect="non-scaling-stroke") if d else Markup()


def picture(*inside: Markup, label: str, class_: str) -> Markup:
    """A whole picture; `label` is read out in its place."""
    return tag("svg", *inside, class_=f"plot {class_}", role="img", aria_label=label)


def bar(x: float, width: float, values: tuple[float, float], y: Scale, class_: str) -> Markup:
    """A bar between two values; `x` and `width` in per cent."""
    top, bottom = sorted(map(y.down, values))
    size = {"x": f"{x:.2f}%", "width": f"{width:.2f}%", "y": f"{top:.2f}%", "height": f"{bottom - top:.2f}%"}
    return tag("rect", **size, class_=class_)


def sideways(value: float, most: float) -> Markup:
    """A small bar of a table's row: gains to the right of the middle, losses to the left."""
    width = 0.0 if not most else 50 * min(1.0, abs(value) / most)
    x = 50 - width if value < 0 else 50
    middle = tag("line", x1="50%", x2="50%", y1="0", y2="100%", class_="zero")
    drawn = tag("rect", x=f"{x:.1f}%", width=f"{width:.1f}%", y="2", height="8", class_="loss" if value < 0 else "gain")
    return tag("svg", drawn, middle, class_="sideways", aria_hidden="true")


def gauge(actual: float | None, needed: float | None, label: str) -> Markup:
    """From none to all: how much is there, and a mark at how much it takes; what is above all is at its end."""
    parts = [tag("rect", x="0", y="4", width="100%", height="8", rx="4", class_="track")]
    if actual is not None:
        enough = needed is not None and actual >= needed
        size = {"width": f"{100 * min(1.0, actual):.1f}%", "height": "8", "rx": "4"}
        parts.append(tag("rect", x="0", y="4", **size, class_="gain" if enough else "loss"))
    if needed is not None:
        x = f"{100 * min(1.0, needed):.1f}%"
        parts.append(tag("line", x1=x, x2=x, y1="0", y2="16", class_="needed"))
    return tag("svg", *parts, class_="gauge", role="img", aria_label=label)
