"""Days, weeks and months are those of the wall calendar, in any time zone and on any day that clocks change."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pnl.errors import HistoryError
from pnl.history.buckets import BUCKETS, bucket_named, bucket_that_fits, day_start_ms, month_day, offsets

ZONES = [
    "UTC",
    "America/New_York",
    "Europe/London",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # its summer time is half an hour
    "Pacific/Apia",  # had no 2011-12-30
    "Pacific/Kiritimati",  # had no last day of 1994
    "America/Sao_Paulo",  # its clocks changed at midnight
    "America/Havana",  # has its midnight twice in autumn
    "Antarctica/Troll",  # changes by two hours
    "Africa/Casablanca",  # has summer time but for Ramadan
]
EPOCH_DAY = date(1970, 1, 1)
LAST_DAY = (date(2037, 12, 31) - EPOCH_DAY).days
LAST_MINUTE = LAST_DAY * 1440
zones = st.sampled_from(ZONES)
minutes = st.integers(2 * 525_600, LAST_MINUTE)  # from 1972 on: Apia, Monrovia and others had odd seconds before


def day_of(ms, zone):
    local = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
    return (local.astimezone(ZoneInfo(zone)).date() - EPOCH_DAY).days


def offset_at(minute, zone):
    local = (datetime.fromtimestamp(0, UTC) + timedelta(minutes=minute)).astimezone(ZoneInfo(zone))
    return local.utcoffset() // timedelta(minutes=1)


def held_at(steps, minute):
    """Give the offset that the steps say holds at a minute."""
    return [offset for since, offset in steps if since <= minute][-1]


def day_number(year, month, day):
    return (date(year, month, day) - EPOCH_DAY).days


@given(zones, st.integers(1000, LAST_DAY))
@example("Pacific/Apia", day_number(2011, 12, 29))
@example("Pacific/Apia", day_number(2011, 12, 30))
@example("Pacific/Apia", day_number(2011, 12, 31))
@example("America/Sao_Paulo", day_number(2018, 11, 4))
@example("America/Sao_Paulo", day_number(2018, 2, 18))
@example("America/Havana", day_number(2025, 11, 2))
@example("America/New_York", day_number(2026, 3, 8))
@example("America/New_York", day_number(2026, 11, 1))
@example("Australia/Lord_Howe", day_number(2026, 4, 5))
@example("Europe/London", day_number(2026, 3, 29))
def test_a_day_starts_with_the_first_instant_that_is_not_before_it(zone, day):
    """Also where its midnight never was, is there twice, or the whole day was skipped."""
    start = day_start_ms(day, ZoneInfo(zone))

    assert day_of(start, zone) >= day
    assert day_of(start - 1, zone) < day


@given(zones, minutes, st.integers(1, 800 * 1440), st.data())
def test_offsets_say_what_the_clocks_on_the_wall_say(zone, start, length, data):
    """At any minute of the range; the first step holds at its start, and no two neighbours are equal."""
    end = start + length

    steps = offsets(start, end, ZoneInfo(zone))

    asked = data.draw(st.lists(st.integers(start, end - 1), min_size=1, max_size=20))
    changes = [minute for minute, _ in steps[1:]]
    near = [minute + by for minute in changes for by in (-1, 0, 1) if start <= minute + by < end]
    for minute in [start, end - 1, *asked, *near]:
        assert held_at(steps, minute) == offset_at(minute, zone)
    assert steps[0][0] <= start
    assert changes == sorted(changes)
    assert all(start < minute < end for minute in changes)
    assert all(earlier[1] != later[1] for earlier, later in pairwise(steps))


@pytest.mark.parametrize("zone", ZONES)
def test_no_change_of_the_clocks_is_missed(zone):
    """Every half day from 1992 to 2030 has the offset that the time zone gives it, and so has each change's minute."""
    start, end = day_number(1992, 1, 1) * 1440, day_number(2030, 1, 1) * 1440
    steps = offsets(start, end, ZoneInfo(zone))
    ends = [minute for minute, _ in steps[1:]] + [end]

    for (since, offset), until in zip(steps, ends, strict=True):
        half_days = range(max(since, start), until, 720)
        assert {offset_at(minute, zone) for minute in (*half_days, until - 1)} == {offset}


def test_a_month_is_counted_from_january_1970():
    """Its first day, before 1970 too."""
    for month in range(-24, 12 * 70):
        assert EPOCH_DAY + timedelta(days=month_day(month)) == date(1970 + month // 12, month % 12 + 1, 1)


def buckets_of(bucket, zone, start_ms, end_ms):
    """Count the buckets that a range of time touches."""
    if not bucket.calendar:
        return (end_ms - 1) // bucket.length_ms - start_ms // bucket.length_ms + 1
    days = {day_of(at, zone) for at in range(start_ms, end_ms, 360 * 60_000)} | {day_of(end_ms - 1, zone)}
    names = {"1d": lambda day: day, "1w": lambda day: (day + 3) // 7}
    return len({names[bucket.name](day) for day in days})


@given(
    zones,
    st.integers(2 * 525_600, LAST_MINUTE),
    st.one_of(st.integers(1, 5000), st.integers(1, 100 * 1440)),
    st.integers(1, 40),
)
@example("America/New_York", day_number(2026, 3, 8) * 1440 + 4 * 60 + 30, 1440, 2)  # half an hour before a short day
@example("America/New_York", day_number(2026, 3, 6) * 1440 + 4 * 60 + 30, 7 * 1440, 8)
def test_a_range_is_cut_into_no_more_buckets_than_wanted(zone, start, length, most):
    """Wherever it begins, also over a day of 23 hours; months are what is left when nothing is coarse enough."""
    bucket = bucket_that_fits(length * 60_000, most)

    finer = list(BUCKETS.values())[: list(BUCKETS.values()).index(bucket)]
    if bucket.name != "1mo":
        assert buckets_of(bucket, zone, start * 60_000, (start + length) * 60_000) <= most
    assert all(length * 60_000 > (most - 2) * each.length_ms for each in finer)  # and hardly coarser than need be


def test_the_finest_bucket_that_fits_is_taken():
    """A plot of a thousand points gets a thousand where it can."""
    for name, bucket in BUCKETS.items():
        if not bucket.calendar:
            assert bucket_that_fits(999 * bucket.length_ms, 1000).name == name
            assert bucket_that_fits(999 * bucket.length_ms + 1, 1000).name != name
    assert bucket_that_fits(0, 1).name == "1s"
    assert bucket_that_fits(1, 1).name == "1mo"


def test_an_unknown_bucket_is_refused_with_the_ones_there_are():
    """Those that only fit a plot are not offered."""
    assert bucket_named("15m").length_ms == 900_000
    with pytest.raises(HistoryError, match=r"no bucket '2m'; choose one of 1s, 10s, 1m, 5m, 15m, 1h, 1d, 1w, 1mo$"):
        bucket_named("2m")
