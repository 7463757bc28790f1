"""A second dashboard on the same data folder shows what the first one records, and takes its place when it is gone."""

import os
import sqlite3
import subprocess
from contextlib import asynccontextmanager, closing

import pytest
from test_engine import next_snapshot, simulated

from pnl.engine import Engine
from pnl.records import MONEY_FIELDS
from pnl.simulator import LivingMarket


def figures(snapshot):
    money = tuple(getattr(snapshot, name) for name in MONEY_FIELDS)
    return (snapshot.taken_at, *money, snapshot.records, snapshot.missing, snapshot.errors, snapshot.complete)


@asynccontextmanager
async def two(folder):
    """A dashboard that records and one that follows it, both running, on one simulated market."""
    async with simulated(folder, LivingMarket(days=3)) as (simulator, settings):
        often = settings.model_copy(update={"poll_s": 0.2, "kalshi_poll_s": 0.4})
        async with Engine(often) as first, Engine(often, follows=True) as second:
            yield simulator, first, second


def follows(snapshot):
    return any(note.startswith("Recorded by process") for note in snapshot.notes)


async def test_p14_a_second_dashboard_follows_the_first_and_says_who_records(tmp_path):
    """The same numbers, their states and what is missing of them."""
    async with two(tmp_path) as (_simulator, first, second):
        recorded = {}
        first.model.param.watch(lambda event: recorded.update({event.new.taken_at: figures(event.new)}), "snapshot")
        first.start()
        second.start()
        shown = [await next_snapshot(second.model, is_wanted=lambda s: s.complete and follows(s)) for _ in range(3)]
        await first.aclose()

        assert [figures(snapshot) for snapshot in shown] == [recorded[snapshot.taken_at] for snapshot in shown]
        assert shown[0].notes[0].startswith(f"Recorded by process {os.getpid()} on this machine")
        assert second.model.ledger.fills()
        assert days_before_today(second) == days_before_today(first)


def days_before_today(engine):
    return list(engine.model.day_totals(engine.settings.zone).items())[:-1]


async def test_p14_the_follower_takes_over_when_the_first_is_gone(tmp_path):
    """Without a gap in the record beyond the time it takes, and without a row twice."""
    async with two(tmp_path) as (_simulator, first, second):
        first.start()
        second.start()
        await next_snapshot(second.model, is_wanted=follows)
        await first.aclose()

        taken_over = await next_snapshot(second.model, is_wanted=lambda s: s.complete and not follows(s))

        assert taken_over.is_recorded
        assert taken_over.taken_at > first.model.snapshot.taken_at
    with closing(sqlite3.connect(second.store.path)) as reader:
        bars = reader.execute("SELECT sum(snapshots) FROM pnl_1m").fetchone()
        assert reader.execute("SELECT count(*) FROM pnl_snapshots").fetchone() == bars


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, and a function that makes it read-only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_disk_that_cannot_be_written_shows_what_it_holds_and_says_not_recorded(disk):
    """History stays readable and the numbers live."""
    place, make_read_only = disk
    async with simulated(place) as (_simulator, settings):
        async with Engine(settings) as engine:
            before = await engine.sync()
        make_read_only()

        async with Engine(settings, follows=True) as engine:
            restored = engine.model.snapshot
            history = await engine.store.snapshots()
            engine.start()
            shown = await next_snapshot(engine.model, is_wanted=lambda s: not s.is_recorded)

    assert restored.trade_count == before.trade_count
    assert len(history) == 1
    assert shown.trade_count >= before.trade_count
