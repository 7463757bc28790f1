"""Dashboards on one database: one records, the others follow, and whoever is cut off gives way."""

import asyncio
import re
import threading
import time
from contextlib import asynccontextmanager
from decimal import Decimal

import psycopg
from postgres import server
from test_engine import next_snapshot, simulated
from test_follower import figures, until

from pnl.doctor.database import database_found
from pnl.engine import FOLLOW, TAKE_OVER, Engine, history_of
from pnl.simulator import LivingMarket, RecordedAccount
from pnl.store.postgres import LOCK

RECORDED = "SELECT count(*), count(DISTINCT timestamp) FROM pnl_snapshots"


def follows(snapshot):
    return any("in the same database; this page follows it" in note for note in snapshot.notes)


def records(snapshot):
    return snapshot.complete and snapshot.is_recorded and not follows(snapshot)


@asynccontextmanager
async def two(folder, url):
    """A dashboard that records and one that follows it, on machines of their own as far as files tell."""
    async with simulated(folder, LivingMarket(days=3)) as (_simulator, settings):
        often = settings.model_copy(update={"store_url": url, "poll_s": 0.2, "kalshi_poll_s": 0.4})
        elsewhere = often.model_copy(update={"data_dir": folder / "elsewhere"})
        async with Engine(often, follows=True) as first, Engine(elsewhere, follows=True) as second:
            first.start()
            second.start()
            yield first, second


async def test_a_second_dashboard_follows_and_takes_over_within_five_seconds(tmp_path, postgres):
    """The same numbers, who records, and no row twice."""
    url = postgres.new_database()
    async with two(tmp_path, url) as (first, second):
        recorded = {}
        first.model.param.watch(lambda event: recorded.update({event.new.taken_at: figures(event.new)}), "snapshot")
        shown = await next_snapshot(second.model, is_wanted=lambda s: s.taken_at in recorded and follows(s))
        found = [finding.said async for finding in database_found(second.settings)]
        assert figures(shown) == recorded[shown.taken_at]
        assert "process" in shown.notes[0]
        assert "records in it" in found[0]

        await first.aclose()
        free_since = time.monotonic()
        await next_snapshot(second.model, is_wanted=records)

        assert time.monotonic() - free_since < 5
        assert len(await second.history.bars(bucket="1s")) > 0
    [(rows, instants)] = postgres.rows(url, RECORDED)
    assert rows == instants > 0


async def test_who_follows_does_not_try_for_a_database_that_is_held(tmp_path, postgres):
    """Each try would be a new connection, twice a second; who holds it is asked on the one that is there."""
    async with two(tmp_path, postgres.new_database()) as (_first, second):
        await next_snapshot(second.model, is_wanted=follows)
        untried = second.store
        for _ in range(4):
            await next_snapshot(second.model, is_wanted=follows)

        assert second.store is untried


def takes_the_place(postgres, url):
    """A process elsewhere that waits for the lock, so that it is the next to have it; gives its connection."""
    connection = psycopg.connect(
        url.get_secret_value(), application_name="pnl-x process 1 on elsewhere", autocommit=True
    )
    ours = connection.info.backend_pid
    taken = threading.Thread(target=connection.execute, args=("SELECT pg_advisory_lock(%s::int, %s::int)", LOCK))
    taken.start()
    while not postgres.rows(url, "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted", (ours,)):
        pass
    holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
    postgres.rows(url, holder + "(SELECT oid FROM pg_database WHERE datname = current_database())")
    taken.join()
    connection.execute("UPDATE meta SET value = 'another' WHERE key = 'writer'")
    return connection


async def test_a_dashboard_that_was_cut_off_follows_whoever_records_now(tmp_path, postgres):
    """It cannot write any more, says so, and takes its turn again later."""
    url = postgres.new_database()
    async with simulated(tmp_path, LivingMarket(days=3)) as (_simulator, settings):
        often = settings.model_copy(update={"store_url": url, "poll_s": 0.2})
        async with Engine(often, follows=True) as engine:
            engine.start()
            await next_snapshot(engine.model, is_wanted=records)
            other = await asyncio.to_thread(takes_the_place, postgres, url)
            await asyncio.wait_for(until_followed(engine), 20)
            assert engine._holder == "process 1 on elsewhere"
            assert not engine.paces

            other.close()

            assert records(await next_snapshot(engine.model, is_wanted=records))
    [(rows, instants)] = postgres.rows(url, RECORDED)
    assert rows == instants > 0


async def until_followed(engine):
    while engine._holder is None:  # noqa: ASYNC110 - nothing tells; a poll finds out
        await asyncio.sleep(0.02)


async def test_a_page_says_that_nothing_is_recorded_while_the_server_is_down(tmp_path):
    """As with a disk that is full; and takes it back."""
    with server() as fragile:
        async with simulated(tmp_path) as (_simulator, settings):
            changed = settings.model_copy(update={"store_url": fragile.new_database(), "poll_s": 0.2})
            async with Engine(changed, follows=True) as engine:
                engine.start()
                await next_snapshot(engine.model, is_wanted=records)
                fragile.stop()
                await next_snapshot(engine.model, is_wanted=lambda s: not s.is_recorded)
                assert engine.unwritten_s > 0
                fragile.start()

                await next_snapshot(engine.model, is_wanted=records)

                assert engine.unwritten_s == 0


def cannot_be_read(snapshot):
    return any(note.startswith(FOLLOW) for note in snapshot.notes)


async def test_who_begins_to_follow_while_the_server_is_down_goes_on_once_it_is_back(tmp_path, caplog):
    """The page says so, the log says why, and only once; then it takes over as if nothing had been."""
    with server() as fragile:
        url = fragile.new_database()
        async with begun(tmp_path, url) as (first, second):
            fragile.stop()
            second.start()
            await next_snapshot(second.model, is_wanted=cannot_be_read)
            await first.aclose()
            await until(lambda: second._troubles.get(TAKE_OVER))
            fragile.start()

            recorded = await next_snapshot(second.model, is_wanted=records)

            assert not cannot_be_read(recorded)
            assert caplog.text.count(f"{FOLLOW}: the database") == len(set(re.findall(f"{FOLLOW}: .*", caplog.text)))
        [(rows, instants)] = fragile.rows(url, RECORDED)
        assert rows == instants > 1


@asynccontextmanager
async def begun(folder, url):
    """A dashboard that has recorded, and one that has read that and does not follow yet."""
    async with simulated(folder, LivingMarket(days=3)) as (_simulator, settings):
        often = settings.model_copy(update={"store_url": url, "poll_s": 0.2})
        async with Engine(often, follows=True) as first:
            await first.sync()
            async with Engine(often.model_copy(update={"data_dir": folder / "elsewhere"}), follows=True) as second:
                yield first, second


async def test_the_recorded_account_is_the_same_in_a_file_and_in_a_database(tmp_path, postgres, recorded_account):
    """To the last digit: what is shown, and what the history makes of it."""
    async with simulated(tmp_path, RecordedAccount(recorded_account)) as (_simulator, settings):
        of_database = settings.model_copy(
            update={"store_url": postgres.new_database(), "data_dir": tmp_path / "database"}
        )
        found = [await totals(each) for each in (settings, of_database)]

    assert found[0] == found[1]
    assert found[1][0][1:3] == (Decimal("-9002.824700"), Decimal("-2873.713070"))


async def totals(settings):
    """The figures of an account after a start that finds all of it recorded, and its parts by the history."""
    async with Engine(settings) as engine:
        await engine.sync()
    async with Engine(settings) as engine:
        shown = engine.model.put_together()
    async with history_of(settings) as history:
        booked, parts = await history.booked(), await history.breakdown(by="event")
    names = ("net_pnl", "kalshi_pnl", "kalshi_realized", "kalshi_fees", "trade_count", "settled_market_count")
    return tuple(getattr(shown, name) for name in names), booked, parts
