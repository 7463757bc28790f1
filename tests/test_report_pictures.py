"""The pictures of a report show what the figures say: gaps as gaps, every day in its place, few and round labels."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pnl.history.client import Bars
from pnl.history.figures import Figures, Part
from pnl.report.charts import spans, stretches
from pnl.report.svg import Scale, ticks, time_ticks

NEW_YORK = ZoneInfo("America/New_York")


def bars(bucket, *rows):
    """Give bars of start in minutes, close in dollars, and whether they are rebuilt."""
    start, close, rebuilt = (np.array(column) for column in zip(*rows, strict=True))
    start, close = start.astype(np.int64) * 60_000, close.astype(np.int64) * 1_000_000
    return Bars(bucket, start, close, close, close, close, close, np.ones_like(start), rebuilt.astype(np.bool_))


def test_a_gap_stays_a_gap():
    """What was recorded holds for its minute, what is rebuilt until the next change; both meet in between."""
    line = bars("1m", (0, 5, True), (90, 7, True), (100, 8, False), (101, 9, False), (200, 4, False))
    minutes = [(rebuilt, [(at / 60_000, usd) for at, usd in points]) for rebuilt, points in stretches(line)]

    assert minutes == [
        (True, [(0, 5), (90, 5), (90, 7), (100, 7)]),
        (False, [(100, 7), (100, 8), (101, 8), (101, 9), (102, 9)]),
        (False, [(200, 4), (201, 4)]),
    ]


@pytest.mark.parametrize(("days", "unit"), [(1, "day"), (190, "day"), (191, "week"), (1400, "month")])
def test_long_periods_come_in_weeks_or_months_and_sum_to_the_same(days, unit):
    """Every day without a posting has its place too."""
    parts = [
        Part(name=f"{date(2023, 1, 5) + timedelta(days=n)}", components={"total_revenue": Decimal(n)}, postings=1)
        for n in {*range(0, days, 3), days - 1}
    ]
    found_unit, found = spans(parts)

    assert found_unit == unit
    assert len(found) <= 190
    assert Figures.sum_of(span.figures for span in found if span.figures).net_usd == sum(part.net_usd for part in parts)
    assert all(first.first < second.first for first, second in pairwise(found))


@given(low=st.floats(-1e7, 1e7), size=st.floats(0.001, 1e7))
def test_ticks_are_few_and_round(low, size):
    """Whatever the amounts."""
    step, values = ticks(Scale(low, low + size))

    assert len(values) <= 6
    assert step >= 0.01
    assert all(low - step * 1e-6 <= value <= low + size + step * 1e-6 for value in values)


@given(
    start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - hypothesis wants them so
    hours=st.one_of(st.floats(0.1, 100), st.floats(100, 90_000)),
)
def test_dates_below_a_picture_are_few_and_rise(start, hours):
    """Over both changes of clocks, from minutes to ten years."""
    low = start.replace(tzinfo=NEW_YORK).timestamp() * 1000
    found = time_ticks(low, low + hours * 3_600_000, NEW_YORK)

    assert len(found) <= 10
    assert all(low <= at <= low + hours * 3_600_000 for at, _ in found)
    assert all(first[0] < second[0] for first, second in pairwise(found))
