"""What is recorded in a file is brought into a database whole and compared, or not at all."""

import asyncio
import os
import signal
import sys

import pytest
from homes import Home
from test_store import EVERYTHING, NOW, deal, record, snapshot

from pnl.cli.moving import migrate_store
from pnl.errors import ConfigError, StoreError, StoreHeld
from pnl.records import Batch
from pnl.store import Change
from pnl.store.move import move


@pytest.fixture
async def file(folder):
    """A file with every kind of row, one that was replaced, and minutes that were written anew."""
    home = Home(folder)
    async with home.store() as store:
        await record(store, Change(snapshot(60_000, 7), "kalshi", EVERYTHING, NOW), Change(snapshot(0, 5)))
        await record(store, Change(snapshot(1_000, 6)))
        await record(store, Change(origin="x", batch=Batch(deals=(deal(status="refunded"),))))
    return home


@pytest.fixture
def database(tmp_path, postgres):
    return Home(tmp_path / "other", postgres)


def contents(home):
    tables = {table: names for table, names in home.columns.items() if table not in ("meta", "chain")}
    return {
        table: sorted(map(repr, home.rows(f"SELECT {', '.join(n for n in names if n != 'rowid')} FROM {table}")))
        for table, names in tables.items()
    }


async def test_everything_is_there_afterwards_and_is_gone_on_with(file, database):
    """Every row of every table; a store goes on where the file's ended, and the history answers alike."""
    told = []
    chain = file.rows("SELECT * FROM chain")

    counts = move(file.folder, database.url, lambda *each: told.append(each))

    assert contents(database) == contents(file)
    assert database.rows("SELECT * FROM chain") == chain
    assert counts["kalshi_trades"] == 2
    assert counts["superseded"] == 1
    assert ("pnl_snapshots", 3, 3) in told
    async with database.store() as store, database.history() as of_database, file.history() as of_file:
        assert len((await of_database.ledger()).rows) > 3
        assert await of_database.ledger() == await of_file.ledger()
        await record(store, Change(snapshot(120_000, 9)))
        assert len(await store.snapshots()) == 4


async def test_a_database_that_is_not_empty_is_refused_and_left_alone(file, database):
    """Also the second time."""
    move(file.folder, database.url)
    before = contents(database)

    with pytest.raises(StoreError, match="is not empty; set PNL_STORE_URL to a new database"):
        move(file.folder, database.url)

    assert contents(database) == before


async def test_while_a_process_records_nothing_is_moved(file, database):
    """Neither out of a file that grows nor into a database that does; and it says who."""
    async with file.store():
        with pytest.raises(StoreHeld, match=f"the data folder .* in use by process {os.getpid()}"):
            move(file.folder, database.url)
    async with database.store():
        with pytest.raises(StoreHeld, match=r"the database .* in use by process"):
            move(file.folder, database.url)


async def test_what_differs_afterwards_is_found_and_nothing_is_kept(file, database):
    """Here a trigger spoils a row on its way."""
    await database.recorded()
    database.rows(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.net_pnl_micros := NEW.net_pnl_micros + 1; RETURN NEW; END'"
    )
    database.rows("CREATE TRIGGER spoil BEFORE INSERT ON pnl_snapshots FOR EACH ROW EXECUTE FUNCTION spoil()")

    with pytest.raises(StoreError, match="does not hold what pnl_snapshots of the file holds; nothing is kept"):
        move(file.folder, database.url)

    assert not any(contents(database).values())


KILLED = """
import os, signal, sys
from pathlib import Path
from pydantic import SecretStr
from pnl.store.move import move

def on_rows(table, done, whole):
    if table == sys.argv[2] and done == whole:
        os.kill(os.getpid(), signal.SIGKILL)

move(Path(sys.argv[1]), SecretStr(sys.stdin.readline()), on_rows)
"""


async def test_a_move_that_was_killed_is_repeated(file, database):
    """Nothing of the first try is there, and it holds nobody up."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, file.folder, "pnl_snapshots"), stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(database.url.get_secret_value().encode())
    assert process.returncode == -signal.SIGKILL
    assert not any(contents(database).values())

    await asyncio.to_thread(move, file.folder, database.url)

    assert contents(database) == contents(file)


async def test_the_command_says_what_was_copied(file, database, monkeypatch, capsys):
    """And what is missing before it can."""
    monkeypatch.setenv("PNL_DATA_DIR", str(file.folder))
    with pytest.raises(ConfigError, match="PNL_STORE_URL is not set"):
        migrate_store()
    monkeypatch.setenv("PNL_STORE_URL", database.url.get_secret_value())

    migrate_store()

    assert "kalshi_trades: 2 rows, equal" in capsys.readouterr().out


async def test_a_folder_without_a_record_is_named(tmp_path, database):
    """There is nothing to copy."""
    with pytest.raises(StoreError, match="nothing is recorded in"):
        move(tmp_path / "none", database.url)
