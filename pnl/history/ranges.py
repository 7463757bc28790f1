"""Ranges of time as people say them: `today`, `last 90d`, `2026-07`, and the same period before."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from pnl.errors import HistoryError

PRESETS = ("today", "7d", "30d", "mtd", "ytd", "all")
HELP = "today, 7d, 30d, mtd, ytd, all, last 12h, 2026, 2026-Q3, 2026-07, 2026-07-04, or two of these with .. between"

NUMBER_OF = re.compile(r"(?:last\s*)?(\d{1,5})\s*(h|d|w|m|mo|y|hours?|days?|weeks?|months?|years?)")
BACK = re.compile(r"(day|week|month|quarter|year)-(\d{1,3})")
YEAR = re.compile(r"(\d{4})")
QUARTER = re.compile(r"(\d{4})-?q([1-4])")
MONTH = re.compile(r"(\d{4})-(\d{2})")


@dataclass(frozen=True, slots=True)
class Range:
    """From `start` up to and without `end`, both aware; None: from the first record, up to the newest.

    `before` is the same period before it, None where there is none.
    """

    name: str
    start: datetime | None = None
    end: datetime | None = None
    before: "Range | None" = None

    @property
    def is_live(self) -> bool:
        """Whether it ends with the newest."""
        return self.end is None


def parse_range(text: str, *, zone: tzinfo, now: datetime) -> Range:
    """A range from what a person types.

    Args:
        text: One of the presets, a number of days or the like, a calendar period, or `from..until`, where a day that
            is named as the end is part of the range.
        zone: Where days begin.
        now: An aware instant.

    Raises:
        HistoryError: It means nothing, or ends before it begins.
    """
    said = text.strip().lower()
    try:
        found = _preset(said, now.astimezone(zone)) or _length(said, now.astimezone(zone)) or _calendar(said, zone, now)
        if found is None and ".." in said:
            found = _between(*said.split("..", 1), zone=zone, now=now)
        if found is not None and _is_empty(found):
            raise HistoryError(f"the range {text[:60]!r} ends before it begins")
    except (ValueError, OverflowError):  # a 13th month, a year 0
        found = None
    if found is None:
        raise HistoryError(f"{text[:60]!r} is no range of time; type {HELP}")
    is_alone = found.before is None or _is_empty(found.before)  # nothing to compare with: today, as midnight strikes
    return replace(found, before=None) if is_alone else found


def _is_empty(found: Range) -> bool:
    """By UTC: on the wall, where clocks are set on, an hour that never was lies before the one that it is."""
    if found.start is None or found.end is None:
        return False
    return found.end.astimezone(UTC) <= found.start.astimezone(UTC)


def shifted(range_: Range, by: int, *, zone: tzinfo, now: datetime) -> str | None:
    """The range so many periods later, or earlier, as a person would type it; None where there is none.

    Args:
        range_: A calendar period goes on by the calendar, another one by its length in days.
        by: How many.
        zone: Where days begin.
        now: An aware instant: a range that begins later is none.
    """
    today = now.astimezone(zone).date()
    if range_.start is None:
        return None
    first = range_.start.astimezone(zone).date()
    last = today if range_.end is None else (range_.end.astimezone(zone) - timedelta(seconds=1)).date()
    months = {"mtd": 1, "ytd": 12}.get(range_.name) or _whole_months(range_, zone)
    if months:
        first = _months_later(first, by * months)
        return None if first > today else _month_range(first, months)
    days = (last - first).days + 1
    first, last = first + timedelta(days=by * days), last + timedelta(days=by * days)
    if first > today:
        return None
    return f"{first}" if first == last else f"{first}..{last}"


def _whole_months(range_: Range, zone: tzinfo) -> int:
    """How many whole calendar months a range is, 0 if it is not of whole ones."""
    if range_.start is None or range_.end is None:
        return 0
    start, end = range_.start.astimezone(zone), range_.end.astimezone(zone)
    if (start.day, start.time(), end.day, end.time()) != (1, time(), 1, time()):
        return 0
    return (end.year - start.year) * 12 + end.month - start.month


def _month_range(first: date, months: int) -> str:
    if months == 12 and first.month == 1:  # noqa: PLR2004 - a year
        return f"{first.year}"
    if months == 3 and first.month % 3 == 1:  # noqa: PLR2004 - a quarter
        return f"{first.year}-Q{first.month // 3 + 1}"
    last = _months_later(first, months - 1)
    return f"{first:%Y-%m}" if months == 1 else f"{first:%Y-%m}..{last:%Y-%m}"


def _preset(said: str, local: datetime) -> Range | None:
    today = local.date()
    match said:
        case "all" | "":
            return Range("all")
        case "today":
            return _until_now(said, _midnight(today, local), _earlier(local, days=1), local)
        case "7d" | "30d":
            days = int(said[:-1])
            start = _midnight(today - timedelta(days=days - 1), local)
            return _until_now(said, start, _earlier(local, days=days), local)
        case "mtd":
            return _to_date(said, today.replace(day=1), local, months=1)
        case "ytd":
            return _to_date(said, today.replace(month=1, day=1), local, months=12)
        case _:
            return None


def _until_now(name: str, start: datetime, end_before: datetime, local: datetime) -> Range:
    """A range up to now, and one before it that is as long."""
    days = (local.date() - end_before.date()).days
    before = Range(f"before {name}", _midnight(start.date() - timedelta(days=days), local), end_before)
    return Range(name, start, None, before)


def _to_date(name: str, first: date, local: datetime, *, months: int) -> Range:
    """From the first day of a calendar period, and as far into the period before it."""
    start = _midnight(first, local)
    first_before = _months_later(first, -months)
    elapsed_to = _moved(local, _months_later(first_before, 0), local.date() - first)
    before = Range(f"before {name}", _midnight(first_before, local), min(elapsed_to, start))
    return Range(name, start, None, before)


def _moved(local: datetime, first: date, days: timedelta) -> datetime:
    return datetime.combine(first + days, local.time(), local.tzinfo)


def _length(said: str, local: datetime) -> Range | None:
    """`last 90d`, `12h`: so long up to now, by the wall calendar where it is days or more."""
    if (found := NUMBER_OF.fullmatch(said)) is None:
        return None
    number, unit = int(found[1]), found[2]
    if number == 0:
        return None
    back: Callable[[datetime], datetime] = {
        "h": lambda moment: (moment.astimezone(UTC) - timedelta(hours=number)).astimezone(local.tzinfo),
        "d": lambda moment: _earlier(moment, days=number),
        "w": lambda moment: _earlier(moment, days=7 * number),
        "m": lambda moment: _on(moment, _months_later(moment.date(), -number)),
        "y": lambda moment: _on(moment, _months_later(moment.date(), -12 * number)),
    }[unit[0]]
    start = back(local)
    return Range(said, start, None, Range(f"before {said}", back(start), start))


def _calendar(said: str, zone: tzinfo, now: datetime) -> Range | None:
    """A year, a quarter, a month or a day by name, or counted back: `month-1`."""
    if found := BACK.fullmatch(said):
        return _counted_back(said, found[1], int(found[2]), zone, now)
    if found := YEAR.fullmatch(said):
        return _months(said, date(int(found[1]), 1, 1), 12, zone)
    if found := QUARTER.fullmatch(said):
        return _months(said, date(int(found[1]), 3 * int(found[2]) - 2, 1), 3, zone)
    if found := MONTH.fullmatch(said):
        return _months(said, date(int(found[1]), int(found[2]), 1), 1, zone)
    if len(said) == len("2026-07-04"):
        return _days(said, date.fromisoformat(said), 1, zone)
    return None


def _counted_back(said: str, unit: str, number: int, zone: tzinfo, now: datetime) -> Range:
    today = now.astimezone(zone).date()
    if unit == "day":
        return _days(said, today - timedelta(days=number), 1, zone)
    if unit == "week":
        return _days(said, today - timedelta(days=today.weekday() + 7 * number), 7, zone)
    length = {"month": 1, "quarter": 3, "year": 12}[unit]
    first = date(today.year, (today.month - 1) // length * length + 1, 1)
    return _months(said, _months_later(first, -length * number), length, zone)


def _months(name: str, first: date, length: int, zone: tzinfo) -> Range:
    starts = [_midnight_in(zone, _months_later(first, months)) for months in (-length, 0, length)]
    return Range(name, starts[1], starts[2], Range(f"before {name}", starts[0], starts[1]))


def _days(name: str, first: date, length: int, zone: tzinfo) -> Range:
    starts = [_midnight_in(zone, first + timedelta(days=days)) for days in (-length, 0, length)]
    return Range(name, starts[1], starts[2], Range(f"before {name}", starts[0], starts[1]))


def _between(first: str, last: str, *, zone: tzinfo, now: datetime) -> Range | None:
    """Two ends, each a calendar period or an instant; an open end is the first record, or the newest."""
    start, end = _end(first, zone, now, is_start=True), _end(last, zone, now, is_start=False)
    length = None if start is None or end is None else end.astimezone(UTC) - start.astimezone(UTC)
    name = f"{first.strip()}..{last.strip()}"
    before = None if start is None or length is None else Range(f"before {name}", start.astimezone(UTC) - length, start)
    return Range(name, start, end, before)


def _end(text: str, zone: tzinfo, now: datetime, *, is_start: bool) -> datetime | None:
    said = text.strip()
    if said == "" or (said == "now" and not is_start):
        return None
    if said == "now":
        return now
    if (period := _calendar(said, zone, now)) is not None:
        return period.start if is_start else period.end
    moment = datetime.fromisoformat(said.upper())  # it takes no small z
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=zone)


def _midnight(day: date, local: datetime) -> datetime:
    return datetime.combine(day, time(), local.tzinfo)


def _midnight_in(zone: tzinfo, day: date) -> datetime:
    return datetime.combine(day, time(), zone)


def _earlier(local: datetime, *, days: int) -> datetime:
    """The same wall clock time so many days before."""
    return _on(local, local.date() - timedelta(days=days))


def _on(local: datetime, day: date) -> datetime:
    return datetime.combine(day, local.time(), local.tzinfo)


def _months_later(day: date, months: int) -> date:
    """The same day of another month, or that month's last one."""
    count = day.year * 12 + day.month - 1 + months
    year, month = divmod(count, 12)
    following = date(year + (month == 11), (month + 1) % 12 + 1, 1)  # noqa: PLR2004 - December
    return date(year, month + 1, min(day.day, (following - timedelta(days=1)).day))


def range_text(range_: Range, zone: tzinfo) -> str:
    """A range as its first and last day, or instants where it does not begin and end with a day."""
    start = "the first record" if range_.start is None else _edge(range_.start.astimezone(zone))
    end = "now" if range_.end is None else _edge(range_.end.astimezone(zone), is_end=True)
    return start if start == end else f"{start} – {end}"


def _edge(local: datetime, *, is_end: bool = False) -> str:
    if local.time() != time():
        return f"{local:%Y-%m-%d %H:%M}"
    return f"{local.date() - timedelta(days=is_end):%Y-%m-%d}"
