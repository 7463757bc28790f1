"""How a range of time is cut: into buckets of fixed length, or by the calendar of the reporting time zone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from itertools import pairwise

from pnl.errors import HistoryError

SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000
MOST_SHIFT_MS = 180 * MINUTE_MS  # by so much the local days of a range are shorter than 24 hours, all together
EPOCH_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One way to cut: `length_ms` is exact, unless it is a `calendar` one (whole local days), where it is the longest.

    Those that are not `offered` are only taken where a range is cut to fit a plot.
    """

    name: str
    length_ms: int
    calendar: bool = False
    offered: bool = True


BUCKETS = {
    bucket.name: bucket
    for bucket in (
        Bucket("1s", SECOND_MS),
        Bucket("10s", 10 * SECOND_MS),
        Bucket("1m", MINUTE_MS),
        Bucket("5m", 5 * MINUTE_MS),
        Bucket("15m", 15 * MINUTE_MS),
        Bucket("1h", 60 * MINUTE_MS),
        Bucket("4h", 240 * MINUTE_MS, offered=False),
        Bucket("12h", 720 * MINUTE_MS, offered=False),
        Bucket("1d", DAY_MS, calendar=True),
        Bucket("1w", 7 * DAY_MS, calendar=True),
        Bucket("1mo", 31 * DAY_MS, calendar=True),
    )
}
FINEST_FROM_BARS = BUCKETS["1m"]


def bucket_named(name: str) -> Bucket:
    """The bucket of this name.

    Raises:
        HistoryError: There is none.
    """
    if name not in BUCKETS:
        offered = ", ".join(bucket.name for bucket in BUCKETS.values() if bucket.offered)
        raise HistoryError(f"there is no bucket {name!r}; choose one of {offered}")
    return BUCKETS[name]


def bucket_that_fits(range_ms: int, most: int) -> Bucket:
    """The finest bucket that cuts a range into no more than `most` (the coarsest there is, if none does)."""
    fitting = (bucket for bucket in BUCKETS.values() if range_ms <= (most - 1) * bucket.length_ms - _shift_ms(bucket))
    return next(fitting, BUCKETS["1mo"])


def _shift_ms(bucket: Bucket) -> int:
    return MOST_SHIFT_MS if bucket.calendar else 0


def day_start_ms(day: int, zone: tzinfo) -> int:
    """When a local day begins, in ms since the epoch; `day` counts from 1970-01-01 by the wall calendar."""
    start = datetime.combine(EPOCH_DAY + timedelta(days=day), time(), zone)
    return round(start.timestamp() * 1000)


def month_day(month: int) -> int:
    """The first day of a month, both counted from January 1970."""
    return (date(1970 + month // 12, month % 12 + 1, 1) - EPOCH_DAY).days


def offsets(start_minute: int, end_minute: int, zone: tzinfo) -> list[tuple[int, int]]:
    """From which minute since the epoch which offset of local time holds, in minutes; the first at or before the start.

    Rounded down to whole minutes, which is what all of today's time zones have.
    """
    years = range(_year(start_minute), _year(end_minute) + 1)
    changes = [change for year in years for change in _offsets_of(year, zone)]
    holding = [change for change in changes if change[0] < end_minute]
    before = [number for number, (minute, _) in enumerate(holding) if minute <= start_minute]
    return [holding[before[-1]], *_changes_only(holding[before[-1] :])]


def _changes_only(steps: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for (_, earlier), (minute, later) in pairwise(steps):
        if later != earlier:
            yield minute, later


def _year(minute: int) -> int:
    return datetime.fromtimestamp(minute * 60, UTC).year


@cache
def _offsets_of(year: int, zone: tzinfo) -> tuple[tuple[int, int], ...]:
    """The offset with which a year (in UTC) begins, and those that it changes to."""
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60
    last = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp()) // 60
    found = [(first, _offset(first, zone))]
    for minute in range(first + 1440, last + 1, 1440):  # also the year's last day: Kiribati skipped that of 1994
        if _offset(minute, zone) != found[-1][1]:
            found.append(_change(minute - 1440, minute, zone))
    return tuple(found)


def _change(before: int, after: int, zone: tzinfo) -> tuple[int, int]:
    """The minute between these two from which the later one's offset holds."""
    offset = _offset(after, zone)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _offset(middle, zone) == offset else (middle, after)
    return after, offset


def _offset(minute: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(minute * 60, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def local_time(steps: list[tuple[int, int]], minute: str = "minute") -> str:
    """The minutes of local time since 1970 at a minute, in SQL."""
    cases = " ".join(
        f"WHEN {minute} < {until} THEN {minute} + ({offset})" for (_, offset), (until, _) in pairwise(steps)
    )
    last = f"{minute} + ({steps[-1][1]})"
    return f"CASE {cases} ELSE {last} END" if cases else last
