"""A file that is broken is noticed, kept, and rebuilt; what is lost is said, and nothing is lost in silence."""

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from pnl.errors import StoreError
from pnl.records import Batch, Refused
from pnl.schema import MIGRATIONS
from pnl.store import Change, Store
from pnl.store.damage import LARGEST_EXAMINED_BYTES, salvage, suspicion
from pnl.store.file import connect, migrate
from pnl.store.tables import load
from tests.test_store import EVERYTHING, NOW, deal, fill, record, recorded, settlement, snapshot

SNAPSHOTS = 1200
ROUNDS = 60
SCHEMA_WITHOUT_CLOSING_TIMES = 3
EVERY_RECORD = {*EVERYTHING.fills, *EVERYTHING.deals, *EVERYTHING.settlements, *EVERYTHING.cost_days}


def copy_of(folder, to):
    """A copy of a folder whose store is open, made by another process: reading it in this one drops SQLite's locks."""
    subprocess.run(["cp", "-r", str(folder), str(to)], check=True)
    return to


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder as a crash leaves it: most of it in the database, the last commits in its log."""
    folder = tmp_path_factory.mktemp("written") / "data"

    async def write():
        async with Store(folder, kind="simulated", commit_ms=0) as store:
            await record(store, Change(origin="kalshi", batch=EVERYTHING, as_of=NOW))
            await record(store, *(Change(snapshot(100 * n, n)) for n in range(SNAPSHOTS // 2)))
        async with Store(folder, kind="simulated", commit_ms=0) as store:
            for start in range(SNAPSHOTS // 2, SNAPSHOTS, 50):
                await record(store, *(Change(snapshot(100 * n, n)) for n in range(start, start + 50)))
            return copy_of(folder, folder.parent / "copy")

    return asyncio.run(write())


def numbers(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        return dict(reader.execute("SELECT timestamp, net_pnl_micros FROM pnl_snapshots"))


@pytest.fixture(scope="module")
def acknowledged(written):
    """Every snapshot that was on disk: its instant and its net P&L."""
    folder = copy_of(written, written.parent / "looked-at")
    return numbers(folder / "pnl.db")


def overwrite(path, dice):
    """Random bytes over a random piece of a file."""
    with path.open("r+b") as file:
        file.seek(dice.randrange(max(1, path.stat().st_size)))
        file.write(dice.randbytes(dice.choice([16, 512, 4096])))


def cut(path, dice):
    """A file shortened at a random place."""
    os.truncate(path, dice.randrange(path.stat().st_size))


@pytest.mark.parametrize("harm", [overwrite, cut])
@pytest.mark.parametrize("name", ["pnl.db", "pnl.db-wal", "pnl.db-shm"])
async def test_p12_what_a_broken_file_loses_is_told(written, acknowledged, tmp_path, harm, name):
    """Each number that was on disk is there again, or its loss is named; never another one in its place."""
    losses = 0
    for seed in range(ROUNDS):
        dice = random.Random(f"{harm.__name__} {name} {seed}")  # noqa: S311 - the same harm in every run
        folder = copy_of(written, tmp_path / str(seed))
        harm(folder / name, dice)

        found = await recorded(folder)

        now = numbers(folder / "pnl.db")
        assert now.items() <= acknowledged.items()
        assert now == acknowledged or "lost" in found.damage[0] or "gone" in found.damage[0]
        assert "none is lost" not in "".join(found.damage) or now == acknowledged
        records = {*found.fills, *found.deals, *found.settlements, *found.cost_days}
        assert records in [EVERY_RECORD, *([set()] if found.damage else [])]
        assert bool(found.sources) == bool(found.fills)  # cursors that point beyond lost records would hide them
        losses += now != acknowledged
        shutil.rmtree(folder)
    assert name == "pnl.db-shm" or losses


async def test_a_file_that_is_no_database_is_kept_aside_and_a_new_one_begun(folder):
    """The sources still have the records; a person may look at what was there."""
    folder.mkdir()
    (folder / "pnl.db").write_bytes(b"not a database at all" * 100)

    found = await recorded(folder)

    (aside,) = folder.glob("pnl-damaged-*.db")
    assert aside.read_bytes().startswith(b"not a database")
    assert f"is kept as {aside.name}; 0 snapshots were saved from it; its history is lost" in found.damage[0]


async def test_a_file_that_is_gone_is_missed(written, acknowledged, tmp_path):
    """An empty store in its place would pass for a fresh start."""
    folder = copy_of(written, tmp_path / "copy")
    for path in folder.glob("pnl.db*"):
        path.unlink()

    found = await recorded(folder)

    assert "its history is lost" in found.damage[0]
    assert acknowledged


async def test_a_clean_start_tells_nothing(written, acknowledged, tmp_path):
    """Also after a crash: the log is whole, and no alarm is raised."""
    folder = copy_of(written, tmp_path / "copy")

    first, second = await recorded(folder), await recorded(folder)

    assert (first.damage, second.damage) == ((), ())
    assert numbers(folder / "pnl.db") == acknowledged


async def test_a_loss_is_told_again_at_the_next_start(written, tmp_path):
    """For some days: whoever missed the line of the log reads it on the page."""
    folder = copy_of(written, tmp_path / "copy")
    (folder / "pnl.db-wal").unlink()

    first, second = await recorded(folder), await recorded(folder)

    assert "commits that were on disk are gone, with the snapshots between 2026-11-22 09:" in first.damage[0]
    assert second.damage == first.damage


async def test_what_is_rebuilt_can_be_written_to_and_is_whole(written, tmp_path):
    """The chain starts anew from what was saved."""
    folder = copy_of(written, tmp_path / "copy")
    with (folder / "pnl.db").open("r+b") as file:
        file.truncate(40_000)
    async with Store(folder, kind="simulated") as store:
        saved = await store.snapshots(limit=9999)
        await record(store, Change(snapshot(10_000_000, 1), "kalshi", EVERYTHING, NOW))

    again = await recorded(folder)

    assert len(again.damage) == 1
    assert len(numbers(folder / "pnl.db")) == len(saved) + 1
    assert set(again.fills) == set(EVERYTHING.fills)


async def test_a_large_file_is_examined_while_it_is_used_and_repaired_at_the_next_start(folder):
    """Reading all of it takes too long for a start; the last days and all minutes are checked at once."""
    long_ago = replace(snapshot(0, 3), taken_at=NOW - timedelta(days=9), notes=("x" * LARGEST_EXAMINED_BYTES,))
    async with Store(folder, kind="simulated", commit_ms=0) as store:
        await record(store, Change(long_ago))
        await record(store, *(Change(snapshot(100 * n, n)) for n in range(9)))
    with (folder / "pnl.db").open("r+b") as file:
        file.seek(LARGEST_EXAMINED_BYTES // 2)
        file.write(b"#" * 4096)

    async with Store(folder, kind="simulated") as store, asyncio.timeout(30):
        while not suspicion(store.path).exists():  # noqa: ASYNC110 - a thread makes it
            await asyncio.sleep(0.01)
    found = await recorded(folder)

    assert store.recorded.damage == ()
    assert "was damaged" in found.damage[0]
    assert not suspicion(store.path).exists()
    assert 8 <= len(numbers(folder / "pnl.db")) <= 9  # Python steps one row ahead of what it hands out


async def test_an_older_file_is_backed_up_and_then_migrated(folder):
    """Nothing of it is lost, and the version before can still read its own copy."""
    folder.mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / "pnl.db", isolation_level=None)) as older:
        older.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {MIGRATIONS[0]}; PRAGMA user_version = 1; COMMIT;")
        older.execute("INSERT INTO meta VALUES ('kind', 'simulated')")
        older.execute("INSERT INTO john_revenue VALUES ('o', 'd', 1500000, 0, 'paid', '2026-11-01', 1, '<b>', 5)")
        older.execute(f"INSERT INTO pnl_snapshots VALUES (60000, {', '.join('7' * 9)}, 1, 1, 1, 60000, 1, '{{}}')")
        older.execute(f"INSERT INTO pnl_1m VALUES (1, 1, {', '.join('7' * 45)})")

    found = await recorded(folder)

    assert [found.damage, len(found.deals)] == [(), 1]
    assert numbers(folder / "pnl.db") == numbers(folder / "pnl-v1.db") == {60000: 7}
    with closing(sqlite3.connect(folder / "pnl-v1.db")) as backup:
        assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    assert (folder / "pnl-v1.db").stat().st_mode & 0o077 == 0


async def test_a_file_that_was_damaged_before_it_was_migrated_gives_all_its_records(folder):
    """Its tables may have fewer columns."""
    async with Store(folder, kind="simulated", commit_ms=0) as store:
        await record(store, Change(snapshot(0, 1), "kalshi", EVERYTHING, NOW))
    aside, path = (folder / "pnl.db").rename(folder / "aside.db"), folder / "pnl.db"
    with closing(sqlite3.connect(aside, isolation_level=None)) as older:
        older.execute("ALTER TABLE kalshi_marks DROP COLUMN closes_at")

    with closing(connect(path, "FULL")) as connection:
        migrate(connection, path, 0)
        saved = salvage(aside, connection, (1, 0))
        found = load(connection)

    assert saved == "1 snapshots were saved from it; none is lost"
    assert set(found.fills) == set(EVERYTHING.fills)
    assert found.marks == EVERYTHING.marks


async def test_a_mark_of_an_older_file_has_no_closing_time(folder):
    """Unknown, until the next poll tells."""
    folder.mkdir(mode=0o700)
    with closing(connect(folder / "pnl.db", "FULL")) as older:
        for script in MIGRATIONS[:SCHEMA_WITHOUT_CLOSING_TIMES]:
            older.executescript(script)
        older.execute(f"PRAGMA user_version = {SCHEMA_WITHOUT_CLOSING_TIMES}")
        older.execute("INSERT INTO meta VALUES ('kind', 'simulated')")
        older.execute("INSERT INTO kalshi_marks VALUES ('KX-A', 400000, 500000, 7, 'A')")

    found = await recorded(folder)

    assert [(mark.ticker, mark.title, mark.closes_at) for mark in found.marks] == [("KX-A", "A", None)]


async def test_a_correction_replaces_what_it_corrects_and_the_old_record_is_kept(folder):
    """What was known at a past time can be told later; what a page showed then stays in its snapshots."""
    changed = replace(settlement(), revenue_usd=Decimal("1.5"))
    async with Store(folder, kind="simulated", commit_ms=0) as store:
        await record(store, Change(snapshot(0, 1), "kalshi", EVERYTHING, NOW))
        corrected = Batch(settlements=(changed,), fills=(fill(fee_usd=Decimal(1)),), deals=(deal(status="refunded"),))
        await record(store, Change(snapshot(10, 2), "kalshi", corrected, NOW))

    found = await recorded(folder)

    assert changed in found.settlements
    assert len(found.settlements) == len(EVERYTHING.settlements)
    assert len(numbers(folder / "pnl.db")) == 2
    with closing(sqlite3.connect(folder / "pnl.db")) as reader:
        kept = reader.execute("SELECT name, json_extract(record, '$[0]') FROM superseded ORDER BY 1").fetchall()
    assert kept == [("john_revenue", "deals:x"), ("kalshi_settlements", "KX-A"), ("kalshi_trades", "f-1")]


async def test_rows_that_were_set_aside_are_named_until_they_are_read_again_and_good(folder):
    """Over restarts, with the row as it came."""
    bad = Refused("fill", "f-9", "count_fp is 'NaN'", '{"fill_id": "f-9"}')
    other = Refused("market", "KX-Z", "no price")
    async with Store(folder, kind="simulated", commit_ms=0) as store:
        await record(store, Change(origin="kalshi", batch=Batch(refused=(bad, other))))
    first = await recorded(folder)
    async with Store(folder, kind="simulated", commit_ms=0) as store:
        await record(store, Change(origin="kalshi", batch=Batch(reread=frozenset({"market"}))))
    second = await recorded(folder)

    assert set(first.refused["kalshi"]) == {bad, other}
    assert second.refused == {"kalshi": (bad,)}


async def test_a_folder_that_cannot_be_written_ends_in_words(tmp_path):
    """And not in a writer that nobody hears of."""
    (tmp_path / "pnl.seal").mkdir()

    with pytest.raises(StoreError, match=r"pnl\.db cannot be opened: .*; is its folder"):
        await recorded(tmp_path)
