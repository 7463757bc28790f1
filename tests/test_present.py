"""What one present lacks of another: enough to make the one out of the other, and nothing that is there already."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pnl.journal import COMPONENTS
from pnl.stream.present import GAP_MS, LINE_POINTS, Line, Patch, Present, day_columns, patch

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
NOW_MS = NOW.timestamp() * 1000
ZONE = ZoneInfo("America/New_York")
NO_DAYS = day_columns({})

texts = st.lists(st.sampled_from(["", "1", "2"]), min_size=3, max_size=3).map(tuple)
steps = st.lists(st.floats(-1e6, 1e6), max_size=5)


def line_of(*usd, first_ms=NOW_MS, before=None):
    """A line with points a second apart."""
    points = [(first_ms + 1000 * number, dollars) for number, dollars in enumerate(usd)]
    return (before or Line.empty()).with_points(points, UTC, t0=1.0)


def applied(shown, lacks):
    """What a page shows once a patch came, as a browser makes it."""
    texts, line, days = shown
    texts, days = list(texts), {name: list(column) for name, column in days.items()}
    for place, text in lacks.texts:
        texts[place] = text
    if lacks.points is not None:
        line = {name: (line[name] + lacks.points[name])[-LINE_POINTS:] for name in line}
    for name, amounts in (lacks.amounts or {}).items():
        for place, usd in amounts:
            days[name][place] = usd
    return tuple(texts), lacks.line or line, lacks.days or days


def seen(present):
    return present.texts, present.line.columns, present.days


@given(texts, texts, steps, steps)
def test_a_page_that_is_patched_shows_the_present(old, new, first, then):
    """Every text and every point of it."""
    before = Present(old, line_of(*first), NO_DAYS)
    after = Present(new, line_of(*then, first_ms=NOW_MS + 60_000, before=before.line), NO_DAYS)

    assert applied(seen(before), patch(before, after)) == seen(after)


@given(texts, steps)
def test_what_is_equal_is_not_sent(same, usd):
    """Not even as nothing."""
    present = Present(same, line_of(*usd), NO_DAYS)

    assert not patch(present, Present(same, present.line, NO_DAYS))


def test_a_changed_price_is_its_texts_and_one_point():
    """Nothing is drawn anew."""
    before = Present(("a", "b", "c"), line_of(1.0), NO_DAYS)
    after = Present(("a", "B", "c"), line_of(2.0, first_ms=NOW_MS + 1000, before=before.line), NO_DAYS)

    assert patch(before, after) == Patch(((1, "B"),), points={"t": [NOW_MS + 1000], "net": [2.0], "t0": [1.0]})


def test_a_page_of_which_nobody_knows_what_it_shows_gets_everything_anew():
    """Whatever it had."""
    present = Present(("a", "b", "c"), line_of(1.0, 2.0), NO_DAYS)

    assert applied((("?", "?", "?"), line_of(9.0).columns, {}), patch(None, present)) == seen(present)


def test_a_line_that_begins_earlier_is_put_anew():
    """What was recorded before the start is read while pages are open already."""
    before = Present((), line_of(3.0), NO_DAYS)
    longer = Line.empty(era=1).with_points([(NOW_MS - 2000, 1.0)], UTC).followed_by(before.line)

    lacks = patch(before, Present((), longer, NO_DAYS))

    assert lacks == Patch(line={"t": [NOW_MS - 2000, NOW_MS], "net": [1.0, 3.0], "t0": [NOW_MS - 2000, 1.0]})


def test_a_page_that_was_away_for_longer_than_the_line_gets_all_of_it():
    """Streamed with the same limit, it takes the place of what was there."""
    before = Present((), line_of(1.0), NO_DAYS)
    after = Present(
        (), line_of(*map(float, range(LINE_POINTS + 10)), first_ms=NOW_MS + 1000, before=before.line), NO_DAYS
    )

    lacks = patch(before, after)

    assert len(lacks.points["t"]) == LINE_POINTS
    assert applied(seen(before), lacks) == seen(after)


def day_of(**parts):
    """What a day made, by component."""
    return dict.fromkeys(COMPONENTS, Decimal(0)) | {name: Decimal(usd) for name, usd in parts.items()}


TODAY, TOMORROW = NOW.date(), NOW.date() + timedelta(days=1)


def present_of(days):
    return Present((), Line.empty(), day_columns(days))


def test_a_new_day_puts_the_days_anew():
    """They stand in other places."""
    after = present_of({TODAY: day_of(total_revenue=1)})

    assert patch(present_of({}), after) == Patch(days=after.days)


def test_of_days_that_are_there_only_the_amounts_that_changed_are_sent():
    """A fill changes one day, and a year of them is not sent for it."""
    before = present_of({TODAY: day_of(kalshi_fees=1), TOMORROW: day_of(kalshi_fees=1)})
    after = present_of({TODAY: day_of(kalshi_fees=1), TOMORROW: day_of(kalshi_fees="1.25")})

    lacks = patch(before, after)

    assert lacks == Patch(amounts={"fees": [(1, -1.25)], "net": [(1, -1.25)]})
    assert applied(seen(before), lacks) == seen(after)


def test_a_pause_is_a_gap_in_the_line():
    """Time that nothing was recorded in is not drawn over."""
    line = Line.empty().with_points([(1_000_000, 5.0), (1_002_000, 6.0), (1_002_001 + GAP_MS, 7.0)], UTC)

    assert [None if math.isnan(usd) else usd for usd in line.net] == [5.0, 6.0, None, 7.0]
    assert line.count == 4


def test_points_stand_at_the_wall_clock_of_the_reporting_zone():
    """Plots have no time zones: nine in the morning in New York is drawn at nine."""
    line = Line.empty().with_points([(NOW_MS, 0.0)], ZONE)

    assert datetime.fromtimestamp(line.t[0] / 1000, UTC).hour == 9
    assert line.t0 == [NOW_MS]


def test_the_parts_of_a_day_are_what_they_add_to_its_net():
    """Fees and costs below zero, billed and estimated ones apart."""
    day = day_of(kalshi_realized=-3, kalshi_fees="0.5", billed_costs=2, estimated_costs=1, total_revenue=8)

    columns = day_columns({TODAY: day})

    assert columns.pop("day") == [datetime(2026, 11, 22, tzinfo=UTC).timestamp() * 1000]
    assert columns == {
        "trading": [-3.0], "revenue": [8.0], "fees": [-0.5], "billed": [-2.0], "estimated": [-1.0], "net": [1.5]
    }  # fmt: skip
