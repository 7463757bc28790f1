"""The rhythm of polls: at every turn, at once when somebody wants it, and never in a burst."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pnl.sources.turn import HURRIED_EVERY_S, Turn

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
HOUR_S = 3600.0
LONG_S = 20


class Seconds:
    """Time that moves only when it is told to."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s

    def now(self):
        return NOW + timedelta(seconds=self.s)


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def turn(seconds):
    return Turn(HOUR_S, clock=seconds, now=seconds.now)


async def waiting(turn):
    """A poll loop that waits for its turn."""
    task = asyncio.create_task(turn.wait())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_a_source_that_is_wanted_is_asked_at_once_and_then_in_its_rhythm_again(turn, seconds):
    """The next turn is a whole one later: a source is not called late because somebody was curious."""
    task = await waiting(turn)
    seconds.s = 600

    assert turn.hurry()
    await asyncio.wait_for(task, LONG_S)

    await waiting(turn)
    assert turn.next_at() == NOW + timedelta(seconds=600 + HOUR_S)


async def test_sources_of_one_pace_are_asked_apart(seconds):
    """The second turn comes later by the phase, and all others keep that distance."""
    turn = Turn(10, phase_s=4, clock=seconds, now=seconds.now)
    nexts = []
    for _ in range(2):
        task = await waiting(turn)
        nexts.append(turn.next_at() - NOW)
        seconds.s = nexts[-1].total_seconds()
        turn.hurry()
        await task

    assert nexts == [timedelta(seconds=14), timedelta(seconds=24)]


async def test_nobody_floods_a_source(turn, seconds):
    """At most once in five seconds, whoever asks."""
    assert turn.hurry()
    seconds.s = HURRIED_EVERY_S - 0.01
    assert not turn.hurry()

    seconds.s = HURRIED_EVERY_S
    assert turn.hurry()


async def test_a_wish_during_a_poll_is_granted_by_that_poll(turn):
    """It is being asked already."""
    turn.hurry()

    task = await waiting(turn)

    assert not task.done()
    task.cancel()


async def test_a_poll_that_took_long_is_followed_at_once_and_by_no_burst(turn, seconds):
    """What was missed is missed."""
    seconds.s = 3.5 * HOUR_S
    await asyncio.wait_for(turn.wait(), LONG_S)

    task = await waiting(turn)

    assert not task.done()
    assert turn.next_at() == NOW + timedelta(hours=4.5)
    task.cancel()


@pytest.mark.parametrize(
    ("at_s", "rest_s", "next_s"),
    [(-1, 0, 0), (0, 0, 0), (1, 0, HOUR_S), (1, 10, HOUR_S), (1, HOUR_S, 2 * HOUR_S), (1, 5 * HOUR_S, 6 * HOUR_S)],
)
async def test_the_next_try_is_the_first_turn_that_finds_it_rested(turn, seconds, at_s, rest_s, next_s):
    """While it is asked, the turn after; while it is left alone, the one that comes then."""
    seconds.s = at_s

    assert turn.next_at(rest_s=rest_s) == NOW + timedelta(seconds=next_s)
