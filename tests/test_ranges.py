"""What a person types is a range with a start before its end, or an error that says what can be typed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pnl.errors import HistoryError
from pnl.history.ranges import HELP, PRESETS, Range, parse_range

NEW_YORK = ZoneInfo("America/New_York")
ZONES = [NEW_YORK, UTC, *map(ZoneInfo, ("Asia/Kolkata", "Pacific/Apia", "America/Sao_Paulo", "Australia/Lord_Howe"))]
NOW = datetime(2026, 11, 22, 14, 30, 15, tzinfo=UTC)  # 09:30:15 in New York, on a Sunday


def local(text, zone=NEW_YORK):
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def ends(range_):
    """Give the two ends as local wall clock time."""
    return [
        None if at is None else at.astimezone(NEW_YORK).replace(tzinfo=None).isoformat(" ") for at in bounds(range_)
    ]


def bounds(range_):
    return range_.start, range_.end


def parsed(text, now=NOW, zone=NEW_YORK):
    return parse_range(text, zone=zone, now=now)


@pytest.mark.parametrize(
    ("text", "range_", "before"),
    [
        ("today", ("2026-11-22 00:00:00", None), ("2026-11-21 00:00:00", "2026-11-21 09:30:15")),
        ("7d", ("2026-11-16 00:00:00", None), ("2026-11-09 00:00:00", "2026-11-15 09:30:15")),
        ("30d", ("2026-10-24 00:00:00", None), ("2026-09-24 00:00:00", "2026-10-23 09:30:15")),
        ("mtd", ("2026-11-01 00:00:00", None), ("2026-10-01 00:00:00", "2026-10-22 09:30:15")),
        ("ytd", ("2026-01-01 00:00:00", None), ("2025-01-01 00:00:00", "2025-11-22 09:30:15")),
        ("all", (None, None), None),
        ("", (None, None), None),
        ("last 12h", ("2026-11-21 21:30:15", None), ("2026-11-21 09:30:15", "2026-11-21 21:30:15")),
        ("90d", ("2026-08-24 09:30:15", None), ("2026-05-26 09:30:15", "2026-08-24 09:30:15")),
        ("LAST 2 weeks", ("2026-11-08 09:30:15", None), ("2026-10-25 09:30:15", "2026-11-08 09:30:15")),
        ("last 3 months", ("2026-08-22 09:30:15", None), ("2026-05-22 09:30:15", "2026-08-22 09:30:15")),
        ("1y", ("2025-11-22 09:30:15", None), ("2024-11-22 09:30:15", "2025-11-22 09:30:15")),
        ("2026", ("2026-01-01 00:00:00", "2027-01-01 00:00:00"), ("2025-01-01 00:00:00", "2026-01-01 00:00:00")),
        ("2026-Q3", ("2026-07-01 00:00:00", "2026-10-01 00:00:00"), ("2026-04-01 00:00:00", "2026-07-01 00:00:00")),
        ("2026q1", ("2026-01-01 00:00:00", "2026-04-01 00:00:00"), ("2025-10-01 00:00:00", "2026-01-01 00:00:00")),
        ("2026-07", ("2026-07-01 00:00:00", "2026-08-01 00:00:00"), ("2026-06-01 00:00:00", "2026-07-01 00:00:00")),
        ("2026-12", ("2026-12-01 00:00:00", "2027-01-01 00:00:00"), ("2026-11-01 00:00:00", "2026-12-01 00:00:00")),
        ("2026-07-04", ("2026-07-04 00:00:00", "2026-07-05 00:00:00"), ("2026-07-03 00:00:00", "2026-07-04 00:00:00")),
        ("day-1", ("2026-11-21 00:00:00", "2026-11-22 00:00:00"), ("2026-11-20 00:00:00", "2026-11-21 00:00:00")),
        ("week-0", ("2026-11-16 00:00:00", "2026-11-23 00:00:00"), ("2026-11-09 00:00:00", "2026-11-16 00:00:00")),
        ("month-1", ("2026-10-01 00:00:00", "2026-11-01 00:00:00"), ("2026-09-01 00:00:00", "2026-10-01 00:00:00")),
        ("quarter-1", ("2026-07-01 00:00:00", "2026-10-01 00:00:00"), ("2026-04-01 00:00:00", "2026-07-01 00:00:00")),
        ("year-2", ("2024-01-01 00:00:00", "2025-01-01 00:00:00"), ("2023-01-01 00:00:00", "2024-01-01 00:00:00")),
    ],
)
def test_every_form_is_the_range_that_a_person_means(text, range_, before):
    """Days begin in the reporting time zone; the period before it is as long, or reaches as far into its own."""
    found = parsed(f"  {text}\n")

    assert ends(found) == list(range_)
    assert (None if found.before is None else ends(found.before)) == (None if before is None else list(before))
    assert found.is_live == (range_[1] is None)


@pytest.mark.parametrize(
    ("text", "range_"),
    [
        ("2026-07-04..2026-07-06", ("2026-07-04 00:00:00", "2026-07-07 00:00:00")),
        ("2026-07..2026-Q3", ("2026-07-01 00:00:00", "2026-10-01 00:00:00")),
        ("2025 .. 2026-02", ("2025-01-01 00:00:00", "2026-03-01 00:00:00")),
        ("month-2..month-1", ("2026-09-01 00:00:00", "2026-11-01 00:00:00")),
        ("2026-07-04T10:30..2026-07-04 11:00:01.5", ("2026-07-04 10:30:00", "2026-07-04 11:00:01.500000")),
        ("2026-07-04T10:30Z..2026-07-04T16:30+05:30", ("2026-07-04 06:30:00", "2026-07-04 07:00:00")),
        ("2026-07-04..", ("2026-07-04 00:00:00", None)),
        ("2026-07-04..now", ("2026-07-04 00:00:00", None)),
        ("..2026-07-04", (None, "2026-07-05 00:00:00")),
        ("..", (None, None)),
        ("now..2026-12-01", ("2026-11-22 09:30:15", "2026-12-02 00:00:00")),
    ],
)
def test_two_ends_make_a_range_and_a_day_named_as_the_end_is_part_of_it(text, range_):
    """An open end is the first record, or the newest; what has both has a range of the same length before it."""
    found = parsed(text)

    assert ends(found) == list(range_)
    if None in range_:
        assert found.before is None
    else:
        assert found.before.end == found.start
        assert found.start.astimezone(UTC) - found.before.start == found.end.astimezone(UTC) - found.start.astimezone(
            UTC
        )


def test_the_help_names_only_what_can_be_typed():
    """Every example in it is one."""
    examples = HELP.removesuffix(", or two of these with .. between").split(", ")

    for text in (*examples, *PRESETS, "2026-07..2026-07-04T10:00"):
        assert isinstance(parsed(text), Range)


@pytest.mark.parametrize(
    ("now", "text", "before"),
    [
        ("2026-03-31 10:00", "mtd", ("2026-02-01 00:00:00", "2026-03-01 00:00:00")),  # February has no 31st
        ("2026-07-31 10:00", "mtd", ("2026-06-01 00:00:00", "2026-07-01 00:00:00")),
        ("2026-01-31 10:00", "mtd", ("2025-12-01 00:00:00", "2025-12-31 10:00:00")),
        ("2028-02-29 10:00", "ytd", ("2027-01-01 00:00:00", "2027-03-01 10:00:00")),  # the 60th day of both
        ("2028-12-31 10:00", "ytd", ("2027-01-01 00:00:00", "2028-01-01 00:00:00")),  # the 366th, of 365
        ("2026-03-31 10:00", "1m", ("2026-01-28 10:00:00", "2026-02-28 10:00:00")),
        ("2028-02-29 10:00", "1y", ("2026-02-28 10:00:00", "2027-02-28 10:00:00")),
        ("2028-03-01 10:00", "day-1", ("2028-02-28 00:00:00", "2028-02-29 00:00:00")),
    ],
)
def test_months_and_years_of_different_lengths_are_compared_as_far_as_they_go(now, text, before):
    """Never into the range itself, never an error on the 31st or on a leap day."""
    found = parsed(text, now=local(now))

    assert ends(found.before) == list(before)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("2026-03-08", 23), ("2026-11-01", 25), ("2026-03", 31 * 24 - 1), ("2026-11", 30 * 24 + 1), ("2026-02", 28 * 24)],
)
def test_a_day_on_which_the_clocks_change_is_as_long_as_it_was(text, hours):
    """23 or 25 hours, and the months that it is in too."""
    found = parsed(text)

    assert found.end.astimezone(UTC) - found.start.astimezone(UTC) == timedelta(hours=hours)


def test_hours_are_counted_by_the_clock_and_days_by_the_calendar():
    """Over the night of a change, 24 hours are not one day."""
    now = local("2026-03-08 12:00")

    assert ends(parsed("24h", now=now)) == ["2026-03-07 11:00:00", None]
    assert ends(parsed("last 1d", now=now)) == ["2026-03-07 12:00:00", None]


@pytest.mark.parametrize(
    "text",
    [
        *("2026-13", "2026-00", "2026-Q5", "2026-Q0", "2026-02-29", "2026-04-31", "0000", "0000-01", "0", "-1d", "0d"),
        *("last", "last d", "99999y", "999999d", "9" * 5000 + "d", "9999", "9999-12-31", "month-9999", "year-2100"),
        *("tomorrow", "7 d d", "2026-07-04-05", "20260704", "2026/07/04", "...", "....", "2026..2027..2028", ".. ..x"),
        *("2026-07-04T25:00..", "..2026-07-04T10:00+99:00", "0001-01-01T00:00+14:00..", "\ud800", "²", "nan", "\x00"),
        *("2026-07-04..x", "x..2026-07-04", "today..now..today", "9999..", "all..all"),
        *(
            "2026-07-05..2026-07-04",
            "2026-07-04T10:00..2026-07-04T10:00",
            "2027..2026",
            "2026-07-04T10:00:01..2026-07-03",
        ),
        *("2026-11-01T01:30-05:00..2026-11-01T01:45-04:00", "now..2026-07-04", "now..2026-11-21"),
        *("2026-03-08T02:30..2026-03-08T03:15", "x" * 10_000_000, "1" * 10_000_000, "last" + " " * 10_000_000 + "x"),
        *("2026-" + "0" * 10_000_000, ".." * 5_000_000, "2026-07-04.." + "9" * 10_000_000),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_means_nothing_is_refused_in_one_short_line(text):
    """It says what can be typed, or that the end is not behind the start; ten megabytes of it are no burden."""
    with pytest.raises(HistoryError, match=r"is no range of time; type today, |ends before it begins") as refused:
        parsed(text)

    assert len(str(refused.value)) < 500


def test_a_day_that_was_skipped_is_no_range():
    """Samoa had no 2011-12-30; the days beside it are whole, and compared with nothing that never was."""
    zone = ZoneInfo("Pacific/Apia")

    with pytest.raises(HistoryError):
        parsed("2011-12-30", zone=zone)
    day_before, day_after = parsed("2011-12-29", zone=zone), parsed("2011-12-31", zone=zone)
    assert day_before.end.astimezone(UTC) == day_after.start.astimezone(UTC) == datetime(2011, 12, 30, 10, tzinfo=UTC)
    assert day_after.before is None


@pytest.mark.parametrize(
    ("text", "same"),
    [("\u0662\u0660\u0662\u0666-\u0660\u0667", "2026-07"), ("last \u0669\u0660d", "90d"), ("２０２６", "2026")],  # noqa: RUF001
)
def test_digits_of_any_script_are_digits(text, same):
    """Whoever types them means numbers."""
    assert bounds(parsed(text)) == bounds(parsed(same))


WORDS = [
    *("last", "today", "mtd", "now", "..", " ", "-", "q", "Q3", "T", "Z", ":", "+", "month", "week", "year", "day"),
    *(
        "h",
        "d",
        "w",
        "m",
        "mo",
        "y",
        "0",
        "1",
        "7",
        "12",
        "30",
        "31",
        "02",
        "29",
        "2026",
        "2028",
        "9999",
        "0001",
        "2011",
    ),
    *("00:00", "02:30", "2026-03-08", "2026-11-01T01:30", "2011-12-30", "2018-11-04", "+05:30"),
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=9).map("".join))
instants = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(texts, st.sampled_from(ZONES), instants)
@example("2026-03-08T02:30..2026-03-08T03:15", NEW_YORK, NOW)
@example("mtd", NEW_YORK, local("2026-11-01 00:00"))
@example("today", NEW_YORK, local("2026-11-01 00:00"))
@example("today", ZoneInfo("America/Sao_Paulo"), datetime(2018, 11, 4, 3, tzinfo=UTC))
@example("day-1", ZoneInfo("Pacific/Apia"), datetime(2011, 12, 31, 10, tzinfo=UTC))
@example("2011-12-31", ZoneInfo("Pacific/Apia"), NOW)
@example("now..", NEW_YORK, NOW)
def test_any_text_is_a_range_or_an_error_of_the_history(text, zone, now):
    """Nothing else is raised, a start is before its end in real time, and so it is in the period before."""
    try:
        found = parse_range(text, zone=zone, now=now)
    except HistoryError:
        return

    for each in (found, found.before):
        if each is not None and each.start is not None:
            assert each.start.tzinfo is not None
            assert each.start.astimezone(UTC) < (each.end or datetime.max.replace(tzinfo=UTC)).astimezone(UTC)
    if found.before is not None:
        assert found.before.end.astimezone(UTC) <= found.start.astimezone(UTC)


@given(st.sampled_from([*PRESETS, "last 5h", "3d", "2w", "4m", "2y"]), st.sampled_from(ZONES), instants)
def test_what_goes_up_to_now_never_begins_after_it(text, zone, now):
    """Also at midnight, on leap days, and where midnight was skipped."""
    found = parse_range(text, zone=zone, now=now)

    assert found.is_live
    assert found.start is None or found.start.astimezone(UTC) <= now
