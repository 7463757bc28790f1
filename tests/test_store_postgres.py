"""What a store in PostgreSQL lives through: a server that goes away, and another writer meanwhile."""

import asyncio
from decimal import Decimal

import psycopg
import pytest
from homes import Home
from postgres import PASSWORD, QUOTED, free_port, server
from pydantic import SecretStr
from test_store import EVERYTHING, NOW, aggregated, deal, fill, record, snapshot

from pnl.config import load_settings
from pnl.errors import ConfigError, StoreError, StoreHeld
from pnl.records import Batch
from pnl.schema import MIGRATIONS
from pnl.store import Change
from pnl.store.address import Address
from pnl.store.beside import beside_of


@pytest.fixture(scope="module")
def fragile():
    """A server that may be stopped and started again."""
    with server() as running:
        yield running


@pytest.fixture
def home(folder, postgres):
    return Home(folder, postgres)


def cut_off(home, postgres):
    """End all sessions in a database, as a network or a person would."""
    name = Address.of(home.url).database
    postgres.rows(
        postgres.url("postgres"),
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s",
        (name,),
    )


async def test_what_is_written_while_the_server_is_down_is_there_once_it_is_back(folder, fragile):
    """Nothing that was acknowledged is lost; what waits says so, and is written by itself, without another change."""
    home = Home(folder, fragile)
    async with home.store() as store:
        await record(store, Change(snapshot(0, 1)))
        fragile.stop()
        with pytest.raises(StoreError, match=r"cannot be written: .+; what waits is kept and written later"):
            await record(store, Change(snapshot(10, 2), "kalshi", EVERYTHING, NOW))
        assert store.waiting == 1
        assert store.stuck_s > 0

        fragile.start()
        while store.waiting:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.02)

        assert store.stuck_s == 0
        assert len(await store.snapshots()) == 2
    assert home.rows("SELECT count(*) FROM kalshi_trades") == [(2,)]
    assert home.rows("SELECT * FROM pnl_1m") == aggregated(store)


async def test_a_connection_that_was_cut_is_made_anew(home, postgres):
    """With the lock; what was acknowledged before and after is there once."""
    async with home.store() as store:
        await record(store, Change(snapshot(0)))
        cut_off(home, postgres)
        with pytest.raises(StoreError, match="written later"):
            await record(store, Change(snapshot(10)))

        await record(store, Change(snapshot(20)))

        assert len(await store.snapshots()) == 3
        assert store.lost_to is None
        with pytest.raises(StoreHeld):
            await home.recorded()


async def test_who_lost_its_connection_cannot_write_over_another(home, postgres):
    """The lock is of the session that writes: the other one has it now, and says so."""
    async with home.store() as first:
        await record(first, Change(origin="x", batch=Batch(deals=(deal(status="paid"),))))
        cut_off(home, postgres)
        async with home.store() as second:
            await record(second, Change(origin="x", batch=Batch(deals=(deal(status="refunded"),))))
            with pytest.raises(StoreError):
                await record(first, Change(origin="x", batch=Batch(deals=(deal(status="paid"),))))
            with pytest.raises(StoreError, match=r"in use by process .*; that process records now"):
                await record(first, Change(snapshot(0)))
            assert "process" in first.lost_to

        with pytest.raises(StoreError, match="in use by another process"):  # free again, but not as it was left
            await record(first, Change(snapshot(0)))

    assert [each.status for each in (await home.recorded()).deals] == ["refunded"]
    assert home.rows("SELECT count(*) FROM pnl_snapshots") == [(0,)]


async def test_a_correction_replaces_and_what_it_replaces_is_kept(home):
    """For what was known at a past instant; the chain counts each commit."""
    async with home.store() as store:
        for fee in ("0.01", "0.02", "0.02"):
            await record(store, Change(origin="kalshi", batch=Batch(fills=(fill(fee_usd=Decimal(fee)),))))

    assert home.rows("SELECT fee_micros FROM kalshi_trades") == [(20_000,)]
    assert [name for (name,) in home.rows("SELECT name FROM superseded")] == ["kalshi_trades"]
    assert home.rows("SELECT commits FROM chain") == [(3,)]


async def test_what_another_process_records_is_seen_beside_it(home, postgres):
    """As of one instant, and also after the connection was cut."""
    async with home.store() as store:
        with beside_of(home.folder, home.url, "simulated") as beside:
            await record(store, Change(snapshot(0), "kalshi", EVERYTHING, NOW))
            assert beside.has_grown()
            assert not beside.has_grown()
            assert beside.newest(("kalshi",)).taken_at == snapshot(0).taken_at
            assert set(beside.recorded().fills) == set(EVERYTHING.fills)
            assert beside.marks() == EVERYTHING.marks
            cut_off(home, postgres)
            with pytest.raises(StoreError, match=r"the database .* cannot be read"):
                beside.has_grown()
            assert not beside.has_grown()
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                beside._open.execute("DELETE FROM pnl_snapshots")


async def test_a_database_of_a_newer_version_is_left_untouched(home):
    """And one of another program."""
    await home.recorded()
    home.rows(f"UPDATE meta SET value = '{len(MIGRATIONS) + 1}' WHERE key = 'schema'")
    with pytest.raises(StoreError, match=r"written by a newer version of pnl .*; it was left untouched"):
        await home.recorded()
    home.rows("DELETE FROM meta WHERE key = 'schema'")
    with pytest.raises(StoreError, match="holds tables of another program"):
        await home.recorded()


async def test_a_damaged_record_is_named_at_the_start(home):
    """A row that somebody changed by hand is no record."""
    async with home.store() as store:
        await record(store, Change(origin="kalshi", batch=EVERYTHING))
    home.rows("UPDATE kalshi_trades SET fee_micros = fee_micros + 1")

    with pytest.raises(StoreError, match=r"does not hold what was written to it .*; restore a backup"):
        await home.recorded()


@pytest.mark.parametrize("wrong", ["password", "port", "database"])
async def test_a_database_that_cannot_be_opened_says_why_and_no_secret(folder, postgres, wrong):
    """Neither in the text nor in what caused it."""
    home = Home(folder, postgres)
    port = free_port() if wrong == "port" else postgres.port
    name = "nowhere" if wrong == "database" else Address.of(home.url).database
    secret = "s3cret" if wrong == "password" else QUOTED
    home.url = SecretStr(f"postgresql://pnl:{secret}@127.0.0.1:{port}/{name}")

    with pytest.raises(StoreError, match=f"the database {name} at 127.0.0.1:{port} cannot be opened: ") as caught:
        await home.recorded()

    causes = repr(caught.value) + repr(caught.value.__cause__) + str(caught.value)
    assert not any(each in causes for each in ("s3cret", QUOTED, PASSWORD))


@pytest.mark.parametrize(
    "url",
    [
        *("mysql://u:s3cret@h/d", "postgresql://u:s3/cret@h/d", "postgresql://u:1/s3cret@h/d", "postgresql://u@h/"),
        *("postgresql://u:s3#cret@h/d", "postgresql://u:s3?cret@h/d", "postgresql://u:s3cret@h/d?password=s3cret"),
        *("postgresql://u:s3cret@h/d?options=-c", "postgresql://h/d", "postgresql://u:s3 cret@h/d", "s3cret"),
    ],
)
def test_an_address_that_is_none_is_refused_and_not_shown(monkeypatch, url):
    """A letter that has to be written otherwise would put the password into another part."""
    monkeypatch.setenv("PNL_STORE_URL", url)

    with pytest.raises(ConfigError, match=r"PNL_STORE_URL: should ") as caught:
        load_settings()

    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value).replace("secret", "")


def test_an_address_is_taken_apart():
    """Beyond this machine it is encrypted unless somebody says otherwise; no text of it has the password."""
    near = Address.of(SecretStr(f"postgres://pnl:{QUOTED}@127.0.0.1/pnl"))
    far = Address.of(SecretStr("postgresql://me:secret@db.example:6543/pnl?target_session_attrs=read-write"))

    assert (near.password, near.port, near.options) == (PASSWORD, "5432", {})
    assert far.options == {"sslmode": "require", "target_session_attrs": "read-write"}
    assert str(far) == "the database pnl at db.example:6543"
    assert "secret" not in repr(far)
