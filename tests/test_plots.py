"""What stands beside the line of a plot: marks and depths, the period before, notes; and whether it can be seen."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from test_views import MINUTE, NIGHT, Oracle, bars_of, points

from pnl.history.client import Underwater
from pnl.history.ranges import Range, parse_range
from pnl.views import figure
from pnl.views.answers import ghost, stretch, under
from pnl.views.beside import instant_columns, under_columns
from pnl.views.equity import Edges
from pnl.views.verdict import asset

FIRST = datetime.fromtimestamp(NIGHT / 1000, UTC)
TEXT, SHAPE = 4.5, 3.0  # the least contrast, WCAG 1.4.3 and 1.4.11


def under_of(*closes, bucket="1m", skipped=()):
    """What is below the highest of some whole dollars, bucket by bucket, and the bars of the same; some left out."""
    bars = bars_of(*closes, bucket=bucket, skipped=skipped)
    high = np.maximum.accumulate(bars.close)
    return Underwater(bucket, bars.start, high, bars.close - high), bars


def test_the_mark_only_rises_and_what_is_below_it_is_drawn_to_the_end_of_its_bucket():
    """At the mark nothing is."""
    below, bars = under_of(5, 3, 8)

    columns = under_columns(below, bars, UTC, Edges())

    assert points(columns, "high") == [(0, 5), (1, 5), (2, 8), (3, 8)]
    assert points(columns, "under") == [(0, 0), (1, -2), (2, 0), (3, 0)]


def test_where_nothing_was_recorded_there_is_no_mark_and_nothing_below_it():
    """A gap is a gap in the strip too."""
    below, bars = under_of(5, 3, 4, 4, skipped=[2])
    longer, its_bars = under_of(5, 3, 4, 4, 3, skipped=[2, 3])

    assert points(under_columns(below, bars, UTC, Edges()), "under") == [(0, 0), (1, -2), (3, -1), (4, -1)]
    assert points(under_columns(longer, its_bars, UTC, Edges()), "under") == [
        (0, 0), (1, -2), (2, 0), (4, -2), (5, -2)
    ]  # fmt: skip
    assert points(under_columns(longer, its_bars, UTC, Edges()), "high")[2] == (2, None)


def test_what_is_rebuilt_stays_below_the_mark_until_it_changes():
    """Records have no gaps, and what is held is held below too."""
    below, _ = under_of(5, 3, 4)
    apart = Underwater("1m", below.start * 10 - 9 * NIGHT, below.high, below.under)
    rebuilt = bars_of(5, 3, 4, rebuilt=3)
    rebuilt.start[:] = apart.start

    columns = under_columns(apart, rebuilt, UTC, Edges(held_until=NIGHT + 60 * MINUTE))

    assert points(columns, "under") == [(0, 0), (10, -2), (20, -1), (60, -1)]


def test_strip_and_live_line_meet_in_one_point():
    """From there on the browser draws it from the line."""
    below, bars = under_of(5, 3)

    columns = under_columns(below, bars, UTC, Edges(live=(NIGHT + 1.5 * MINUTE, 4.0)))

    assert points(columns, "under")[-1] == (1.5, -2)


class Periods(Oracle):
    """A history with other bars for a period, that for the rest knows what it is told."""

    def __init__(self, answers, *, otherwise=None):
        super().__init__(bars_of() if otherwise is None else otherwise)
        self.answers = answers
        self.asked = []

    async def bars(self, start=None, _end=None, **how):
        self.asked.append(how.get("filters"))
        return self.answers.get(start, self.answer)

    async def underwater(self, start=None, end=None, **how):
        self.asked_under = how["filters"]
        return await super().underwater(start, end)


def day(number):
    return FIRST + timedelta(days=number)


def two_days(before_end=1):
    return Range("this", day(1), day(2), Range("before", day(0), day(before_end)))


async def test_the_period_before_begins_when_and_where_this_one_does():
    """Moved in time and in height, so that the two are compared from one point on."""
    this, before = bars_of(100, 101, first=NIGHT + 86_400_000, bucket="1h"), bars_of(7, 9, 6, bucket="1h")

    columns = await ghost(Periods({day(1): this, day(0): before}), two_days(), UTC)

    hours = [(t / 60 - 24, usd) for t, usd in points(columns)]
    assert hours == [(0, 100), (1, 102), (2, 99), (3, 99)]


async def test_the_period_before_ends_where_this_one_does():
    """March is longer than February."""
    this, before = bars_of(1, first=NIGHT + 86_400_000), bars_of(1, 2, 3, bucket="1d")

    columns = await ghost(Periods({day(1): this, day(0): before}), two_days(3), UTC)

    assert max(columns["t"]) == NIGHT + 2 * 86_400_000


@pytest.mark.parametrize("known", [{day(1): bars_of(1)}, {day(0): bars_of(1)}, {}])
async def test_without_anything_known_of_one_of_the_two_there_is_no_ghost(known):
    """Unknown is not zero; and a range that begins with the first record has none before it."""
    assert await ghost(Periods(known), two_days(), UTC) == {"t": [], "net": []}
    assert await ghost(Periods({}), parse_range("all", zone=UTC, now=day(3)), UTC) == {"t": [], "net": []}


async def test_a_ghost_follows_the_wall_clock_over_a_change_of_it():
    """In New York clocks went back on 2026-11-01: midnight lies on midnight all the same."""
    zone = ZoneInfo("America/New_York")
    range_ = parse_range("2026-11-02", zone=zone, now=datetime(2026, 11, 3, 12, tzinfo=UTC))
    starts = [range_.before.start, range_.start]
    answers = {at: bars_of(1, bucket="1h", first=int(at.timestamp() * 1000)) for at in starts}

    columns = await ghost(Periods(answers), range_, zone)

    assert columns["t"][0] == datetime(2026, 11, 2, tzinfo=UTC).timestamp() * 1000


async def test_what_is_filtered_is_asked_for_filtered_and_no_live_line_goes_on_from_it():
    """The live line is of everything."""
    filters = (("source", "kalshi"),)
    history = Periods({None: bars_of(1, 2, rebuilt=2)})

    filtered, whole = [await stretch(history, None, None, chosen) for chosen in (filters, ())]

    assert history.asked == [filters, ()]
    assert (filtered.is_joined, whole.is_joined) == (False, True)
    assert not filtered.goes_on(whole)
    await under(history, filtered, None, UTC, None)
    assert history.asked_under == filters


def test_an_instant_is_a_row_at_its_wall_clock():
    """And none is no row."""
    zone = ZoneInfo("America/New_York")

    assert instant_columns(day(0), zone) == {"t": [NIGHT - 5 * 60 * MINUTE]}
    assert instant_columns(None, zone) == {"t": []}


def luminance(color):
    """Relative luminance as WCAG defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def tokens(name):
    """What a token of the page is, on light and on dark."""
    found = re.findall(rf"--{name}: (#[0-9a-f]+)", asset("page.css"))
    return [
        color if len(color) == len("#rrggbb") else f"#{''.join(2 * digit for digit in color[1:])}" for color in found
    ]


@pytest.mark.parametrize("name", ["GAIN", "LOSS", "TRADING", "REVENUE", "FEES", "COSTS", "GREY", "PIN"])
def test_every_shape_of_a_plot_is_seen_on_light_and_on_dark(name):
    """One colour for both: a plot is drawn once for all pages."""
    cards = tokens("card")
    assert len(set(cards)) == 2

    assert min(contrast(getattr(figure, name), card) for card in cards) >= SHAPE


def test_text_of_a_plot_is_read_on_light_and_on_dark():
    """It takes the page's own quiet colour; a number on a pin is white."""
    pairs = list(zip(tokens("quiet"), tokens("card"), strict=True))

    assert min(contrast(quiet, card) for quiet, card in pairs) >= TEXT
    assert contrast("#ffffff", figure.PIN) >= TEXT
    assert "var(--quiet" in figure.PAGE
