"""History from a replica of PostgreSQL (`PNL_STORE_READ_URL`): while the primary is down, and how old it is."""

import pytest
from browsing import until
from homes import Home
from postgres import replica, server
from recording import record, snapshot
from test_engine import next_snapshot, simulated
from test_history import FIRST_MS

from pnl.engine import Engine
from pnl.errors import StoreError
from pnl.history.client import database_at
from pnl.store import Change
from pnl.store.address import Address


@pytest.fixture
def primary():
    with server() as running:
        yield running


@pytest.fixture
def copy(primary):
    with replica(primary) as running:
        yield running


def same(url, server):
    """The address of the same database on another server."""
    return server.url(Address.of(url).database)


async def until_shown(history, *closes):
    """Wait until the history's bars of a minute are these."""

    async def are_shown():
        return (await history.bars(bucket="1m")).close.tolist() == list(closes)

    await until(are_shown)


async def test_history_is_answered_by_the_replica_while_the_primary_is_down(tmp_path, primary, copy):
    """As of the last commit; what is written once the primary is back is there by itself."""
    home = Home(tmp_path, primary)
    async with home.store() as store, home.history(database=database_at(same(home.url, copy))) as history:
        await record(store, Change(snapshot(FIRST_MS, 4)))
        await until_shown(history, 4)
        primary.stop()
        with pytest.raises(StoreError, match="written later"):
            await record(store, Change(snapshot(FIRST_MS + 60_000, 5)))

        assert (await history.bars(bucket="1m")).close.tolist() == [4]
        primary.start()

        await until_shown(history, 4, 5)


def ends_before(snapshot):
    return any(note.startswith("The history ends ") for note in snapshot.notes)


def does_not_answer(snapshot):
    return any("its replica (PNL_STORE_READ_URL) does not answer" in note for note in snapshot.notes)


async def test_a_page_says_how_old_its_history_is_when_the_replica_falls_behind(tmp_path, primary, copy, monkeypatch):
    """And that it does not answer; both are taken back by themselves."""
    monkeypatch.setattr("pnl.engine.upkeep.REPLICA_S", 0.1)
    monkeypatch.setattr("pnl.engine.upkeep.MOST_BEHIND_S", 2)
    url = primary.new_database()
    async with simulated(tmp_path) as (_simulator, settings):
        often = settings.model_copy(update={"store_url": url, "store_read_url": same(url, copy), "poll_s": 0.2})
        async with Engine(often, follows=True) as engine:
            engine.start()
            await next_snapshot(engine.model, is_wanted=lambda s: s.complete and s.is_recorded)
            copy.rows(copy.url("postgres"), "SELECT pg_wal_replay_pause()")
            await next_snapshot(engine.model, is_wanted=ends_before)
            copy.rows(copy.url("postgres"), "SELECT pg_wal_replay_resume()")
            await next_snapshot(engine.model, is_wanted=lambda s: not ends_before(s))

            copy.stop()
            await next_snapshot(engine.model, is_wanted=does_not_answer)
            copy.start()
            await next_snapshot(engine.model, is_wanted=lambda s: not does_not_answer(s))
