"""A second dashboard on the same data folder shows what the first one records, and takes its place when it is gone."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from recording import KIND, NOON, Bookkeeper, a_business, record, writing
from redis_here import asked
from test_engine import next_snapshot, simulated

from pnl.cache import CURRENT
from pnl.engine import Engine
from pnl.errors import ConfigError, HistoryError, StoreError, StoreNotReady
from pnl.follower import Follower
from pnl.history.client import History
from pnl.model import PnLModel
from pnl.records import MONEY_FIELDS, Batch, Mark
from pnl.schema import MIGRATIONS
from pnl.simulator import LivingMarket
from pnl.store import FILE
from pnl.store.beside import FileBeside, read_beside
from pnl.store.file import FilePlace, connect


def figures(snapshot):
    money = tuple(getattr(snapshot, name) for name in MONEY_FIELDS)
    counts = (snapshot.trade_count, snapshot.open_trade_count, snapshot.settled_market_count)
    return (snapshot.taken_at, *money, *counts, snapshot.missing, snapshot.errors, snapshot.complete)


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


async def test_a_dashboard_that_starts_while_another_makes_the_database_waits_for_it(tmp_path):
    """Two that are started together: the second one is not told to stop the first."""
    async with simulated(tmp_path) as (_simulator, settings):
        settings.data_dir.mkdir(parents=True)
        place = FilePlace(settings.data_dir, KIND, "NORMAL")
        place.hold()
        engine = Engine(settings, follows=True)
        starting = asyncio.create_task(engine.__aenter__())
        await until(lambda: engine._holder)
        with place.open_to_write():
            await starting
        await engine.aclose()
        place.release()

        assert engine.model.ledger.fill_count == 0


@pytest.mark.parametrize("steps", range(len(MIGRATIONS) + 1))
async def test_a_record_that_is_being_made_is_not_there_yet(folder, steps):
    """After each step of making it, up to the last, which is that it says what kind of numbers it holds."""
    folder.mkdir()
    with closing(connect(folder / FILE, "FULL")) as made:
        for number, script in enumerate(MIGRATIONS[:steps], start=1):
            made.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    with pytest.raises(StoreNotReady):
        read_beside(folder, None, KIND)
    async with History(folder / FILE, kind=KIND, zone="UTC") as history:
        with pytest.raises(HistoryError):
            await history.booked()


async def test_a_dashboard_starts_its_history_before_anybody_asks(tmp_path):
    """So that a first plot does not wait for libraries to load; a program that asks nothing has no process for it."""
    async with two(tmp_path) as (_simulator, program, dashboard):
        started = dashboard.history.pid

        await dashboard.history.snapshot_at(datetime.now(UTC), ())

        assert started is not None
        assert dashboard.history.pid == started
        assert program.history.pid is None
        await dashboard.aclose()
        assert dashboard.history.pid is None


async def test_a_dashboard_whose_store_cannot_be_opened_leaves_no_history_behind(tmp_path):
    """Its process ends with the attempt."""
    async with simulated(tmp_path) as (_simulator, settings):
        settings.data_dir.mkdir(parents=True)
        (settings.data_dir / FILE).mkdir()
        dashboard = Engine(settings, follows=True)

        with pytest.raises(StoreError):
            await dashboard.__aenter__()

        assert dashboard.history.pid is None


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


class FragileBeside(FileBeside):
    """The record of a folder, which cannot be read once."""

    breaks = True

    def recorded(self):
        breaks, self.breaks = self.breaks, False
        if breaks:
            raise StoreError("it is gone")
        return super().recorded()


async def test_what_could_not_be_read_is_read_at_the_next_look(tmp_path):
    """And not once something else is recorded: there may come nothing for hours."""
    async with writing(tmp_path) as store:
        await record(store, Bookkeeper().change(NOON, a_business()))
    model = PnLModel()

    with FragileBeside(tmp_path / FILE, KIND) as beside:
        follower = Follower(model, beside)
        with pytest.raises(StoreError, match="gone"):
            await follower.catch_up("process 1")
        assert model.snapshot is None

        await follower.catch_up("process 1")

    assert model.snapshot.taken_at == NOON


async def test_a_record_that_is_not_there_yet_is_read_once_it_is(tmp_path):
    """Who looks goes on looking: the record is opened by whichever look finds it."""
    with FileBeside(tmp_path / FILE, KIND) as beside:
        with pytest.raises(StoreNotReady, match="is not there yet"):
            beside.has_grown()
        async with writing(tmp_path) as store:
            await record(store, Bookkeeper().change(NOON, a_business()))

            assert beside.has_grown()
            assert beside.newest(()) is not None
            assert not beside.has_grown()


# With a server that both use


@asynccontextmanager
async def sharing(folder, redis, **others):
    """The two of them with a shared cache."""
    async with simulated(folder, LivingMarket(days=3)) as (_simulator, settings):
        given = {"poll_s": 0.2, "kalshi_poll_s": 0.4, "cache_url": redis.url, **others}
        ours = settings.model_copy(update=given)
        async with Engine(ours) as first, Engine(ours, follows=True) as second:
            first.start()
            second.start()
            yield first, second


def remarks(engine):
    return [note for note in engine.model.snapshot.notes if "PNL_CACHE_URL" in note]


async def test_a_follower_that_is_told_of_commits_does_not_wait_for_its_next_look(tmp_path, redis, monkeypatch):
    """It would look by itself after ten minutes only."""
    monkeypatch.setattr("pnl.engine.FOLLOW_S", 600)
    async with sharing(tmp_path, redis) as (first, second):
        shown = [await next_snapshot(second.model, is_wanted=follows) for _ in range(4)]

        assert len({snapshot.taken_at for snapshot in shown}) == 4
        assert shown[-1].taken_at <= first.model.snapshot.taken_at


class SlowBeside(FileBeside):
    """The record of a folder, which takes long to read."""

    def __init__(self, folder):
        super().__init__(folder / FILE, KIND)
        self.begun, self.may_end, self.is_read = threading.Event(), threading.Event(), False

    def recorded(self):
        self.begun.set()
        self.may_end.wait()
        found = super().recorded()
        self.is_read = True
        return found


async def test_who_stops_following_waits_until_nobody_reads_the_record(tmp_path):
    """To close a database that another thread still reads would end the whole process."""
    async with writing(tmp_path) as store:
        await record(store, Bookkeeper().change(NOON, a_business()))
    model = PnLModel()
    before = model.ledger

    with SlowBeside(tmp_path) as beside:
        following = asyncio.create_task(Follower(model, beside).catch_up("process 1"))
        await asyncio.to_thread(beside.begun.wait)
        following.cancel()
        await asyncio.wait({following}, timeout=0)
        waits = not following.done()
        beside.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await following
        was_read = beside.is_read

    assert waits
    assert was_read
    assert model.ledger is before  # what nobody waits for is not taken in


async def test_the_prices_of_open_positions_follow_though_no_record_came(tmp_path):
    """A price is no record; the table of positions has to fit the total above it at each snapshot."""
    book, model = Bookkeeper(), PnLModel()
    async with writing(tmp_path) as store:
        await record(store, book.change(NOON, a_business()))
        with FileBeside(tmp_path / FILE, KIND) as beside:
            follower = Follower(model, beside)
            await follower.catch_up("process 1")
            for minutes, usd in enumerate(("0.50", "0.60"), 1):
                later = NOON + timedelta(minutes=minutes)
                mark = Mark("KXB-1-1", Decimal(usd), Decimal(usd), later)

                await record(store, book.change(later, Batch(marks=(mark,))))
                await follower.catch_up("process 1")

                assert model.marks == {"KXB-1-1": mark}
                assert model.snapshot.taken_at == later


async def test_both_answer_with_the_newest_numbers_from_the_shared_cache(tmp_path, redis):
    """The one that follows asks the server before its own file."""
    async with sharing(tmp_path, redis) as (_first, second):
        await next_snapshot(second.model, is_wanted=lambda s: s.complete and follows(s))
        await until(lambda: second.cache.shared._generation)

        await until(lambda: second.cache.stats.shared.hits, doing=second.current)


async def until(claim, doing=None):
    """Wait for what is done in the background."""
    async with asyncio.timeout(60):
        while not claim():
            await (doing() if doing is not None else asyncio.sleep(0))
            await asyncio.sleep(0.02)


async def test_a_page_says_that_the_shared_cache_is_gone_and_the_numbers_go_on(tmp_path, redis):
    """On both, counted, never recorded, and taken back once it is there again."""
    async with sharing(tmp_path, redis) as (first, second):
        await next_snapshot(second.model, is_wanted=follows)
        await redis.kill()
        await until(lambda: remarks(first) and remarks(second))
        told = remarks(second)
        await next_snapshot(second.model, is_wanted=follows)
        assert remarks(first) == remarks(second) == told
        recorded = await first.store.newest(first.model.readings)
        scraped = first.metrics.scrape()[0].decode()

        await redis.start()
        await until(lambda: not remarks(first) and not remarks(second))
        await next_snapshot(second.model, is_wanted=follows)

        assert told == [
            "The shared cache (PNL_CACHE_URL) is not used: it cannot be reached. The numbers are the same without it."
        ]
        assert not [note for note in recorded.notes if "PNL_CACHE_URL" in note]
        assert "pnl_shared_cache_up 0.0" in scraped
        assert "pnl_shared_cache_losses_total 1.0" in scraped
        assert "pnl_shared_cache_up 1.0" in first.metrics.scrape()[0].decode()


async def test_the_follower_becomes_the_one_that_writes_to_the_shared_cache(tmp_path, redis):
    """With the folder, and with a generation of its own."""
    async with sharing(tmp_path, redis) as (first, second):
        await next_snapshot(second.model, is_wanted=follows)
        await first.aclose()
        await next_snapshot(second.model, is_wanted=lambda s: s.complete and not follows(s))
        await second.cache.flush()

        assert await asked(redis, "KEYS", "pnl:1:*:pnl:current")
        assert second.cache.peek(CURRENT) or (await second.current()).value


async def test_without_the_package_a_shared_cache_is_an_error_that_says_what_to_do(tmp_path, redis, monkeypatch):
    """At the start, and not somewhere later."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"PNL_CACHE_URL needs a package .*: pip install 'pnl\[redis\]'"):
        async with sharing(tmp_path, redis):
            pass
