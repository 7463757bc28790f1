"""A feed is read on from where it was read to, and again from where a row was set aside."""

from datetime import datetime, timedelta

import pytest

from pnl.sources.feed import Feed, Window

FEED = Feed("fills", overlap=timedelta(minutes=10))


def after(cursors, found):
    """The cursors that a model keeps."""
    return {**cursors, **found}


@pytest.fixture
def poll(clock):
    """Poll a feed: a function of its cursors that returns what was read and the cursors after it."""

    def read(cursors, *instants, is_refused=False):
        window = FEED.window(cursors, since=None, now=clock())
        found = FEED.advance(cursors, window, instants, is_refused=is_refused, now=clock())
        return window, after(cursors, found)

    return read


def test_the_first_poll_reads_everything_and_the_next_what_is_new(poll, clock):
    """With some overlap: what comes late is not missed."""
    first, cursors = poll({}, clock() - timedelta(hours=1))
    second, _ = poll(cursors)

    assert first == Window(None)
    assert second == Window(clock() - timedelta(hours=1, minutes=10))


def test_a_record_dated_into_the_future_moves_the_cursor_to_now_only(poll, clock):
    """Else everything until then would be skipped."""
    _, cursors = poll({}, clock() + timedelta(days=400))

    assert cursors == {"fills": clock().isoformat()}


def test_a_cursor_never_goes_back(poll, clock):
    """Late rows are older than what was read before."""
    _, cursors = poll({}, clock())
    _, later = poll(cursors, clock() - timedelta(days=3))

    assert later == cursors


def test_a_row_set_aside_is_asked_for_at_every_poll_for_minutes_then_once_an_hour(poll, clock):
    """A repair is seen at once; a row that stays bad for ever does not make every poll read all of history."""
    start, cursors = poll({}, clock(), is_refused=True)
    full = 0
    for _ in range(24 * 60):
        clock.advance(minutes=1)
        window, cursors = poll(cursors, clock(), is_refused=FEED.window(cursors, since=None, now=clock()).covers)
        full += window.start == start.start
        assert window.covers == window.is_again == (window.start == start.start)

    assert full == 9 + 23


def test_what_is_good_again_is_asked_for_no_longer(poll, clock):
    """The feed goes on from its cursor as if nothing had been."""
    _, cursors = poll({}, clock(), is_refused=True)
    again, cursors = poll(cursors, clock())
    after_that, _ = poll(cursors, clock())

    assert again == Window(None, is_again=True)
    assert after_that == Window(clock() - timedelta(minutes=10))


def test_a_cursor_that_is_a_day_is_its_midnight_in_utc(clock):
    """Reports by day keep days."""
    window = FEED.window({"fills": "2026-11-20"}, since=None, now=clock())

    assert window.start == datetime.fromisoformat("2026-11-19T23:50:00+00:00")
