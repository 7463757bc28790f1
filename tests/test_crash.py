"""Processes that end without a word, or too many of them: nothing acknowledged is lost, and one holds the folder."""

import asyncio
import multiprocessing
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from random import Random

import pytest
from numbered_writer import LONGEST_S, change, keep_writing, open_once, race, whole_changes

from pnl.bench.kill_checks import examine, odd_minutes
from pnl.bench.kill_dashboard import dashboard
from pnl.bench.kill_viewer import Viewer
from pnl.schema import MIGRATIONS
from pnl.store import Store

KILLS = 60
MIGRATION_KILLS = 40
RACES = 30


@pytest.fixture(scope="module")
def processes():
    """Processes that start within milliseconds: forks of one that has imported what they need, and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pnl.store", "pytest"])
    return context


@contextmanager
def running(process):
    """A process until the block ends, or until it is killed in it."""
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def wait_until(claim):
    """Wait for something that another process does."""
    end = time.monotonic() + LONGEST_S
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.001)


def last_acknowledged(path):
    """How many changes a writer said are on disk; it may say so for the first time later."""
    said = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return int(said[-1]) if said else 0


def start_anew(folder):
    """Open the folder with the real store and let it write one more change.

    Returns how many changes it found, and what it says is lost.
    """

    async def go_on():
        async with Store(folder, kind="simulated") as store:
            found = len(await store.snapshots(limit=1_000_000))
            await asyncio.wrap_future(store.append(change(found)))
            return found, store.recorded.damage

    return asyncio.run(go_on())


def test_no_kill_loses_what_was_acknowledged(tmp_path, processes):
    """In none of 60 kills under load, at any instant from the start on: no change is lost, torn or there twice."""
    random = Random(1)  # noqa: S311 - no secret
    folder, acknowledged = tmp_path / "data", tmp_path / "acknowledged"

    for _ in range(KILLS):
        before = last_acknowledged(acknowledged)
        with running(processes.Process(target=keep_writing, args=(folder, acknowledged))) as writer:
            until = before + random.choice((0, 1, 5, 20))
            wait_until(lambda until=until: last_acknowledged(acknowledged) >= until)
            time.sleep(random.uniform(0, 0.05))
            writer.kill()
            writer.join()

        found, said = start_anew(folder)

        assert found >= last_acknowledged(acknowledged)
        assert said == ()
        assert whole_changes(folder / "pnl.db") == found + 1
        recording = examine(folder / "pnl.db")
        assert (recording.damage, recording.doubled) == (frozenset(), frozenset())


def test_of_two_processes_one_gets_the_folder_and_the_other_is_told_who(tmp_path, processes):
    """In all of 30 races, also for a folder that nobody has made yet."""
    for number in range(RACES):
        folder = tmp_path / f"{number}"
        go, end = processes.Barrier(2), processes.Event()
        ears, mouths = zip(*(processes.Pipe(duplex=False) for _ in range(2)), strict=True)
        first, second = (processes.Process(target=race, args=(folder, go, mouth, end)) for mouth in mouths)
        with running(first), running(second):
            assert all(ear.poll(LONGEST_S) for ear in ears)
            told = [ear.recv() for ear in ears]
            end.set()
        for pipe in (*ears, *mouths):
            pipe.close()

        [winner] = [pid for pid, refusal in told if refusal is None]
        [refusal] = [refusal for _, refusal in told if refusal is not None]
        # Between its taking the folder and its writing down who it is, a moment passes.
        who = rf"(process {winner}|another process)"
        assert re.search(rf"the data folder .* is in use by {who}; stop it, or set PNL_DATA_DIR", refusal)


async def test_a_dashboard_that_is_asked_to_stop_writes_what_it_has_shown(tmp_path):
    """On SIGTERM every number that reached a page is on disk when the process is gone, and it ends in good order."""
    folder = tmp_path / "data"
    async with dashboard(folder, {"PNL_POLL_S": "0.2"}, log=tmp_path / "log") as served:
        viewer = Viewer(served.address)
        following = asyncio.create_task(viewer.follow())
        await asyncio.wait_for(viewer.has_record.wait(), LONGEST_S)

        await served.end(signal.SIGTERM)
        await asyncio.wait_for(following, LONGEST_S)

        path = folder / "demo" / "pnl.db"
        assert served.process.returncode == 0
        assert not path.with_name("pnl.db-wal").exists(), "the store was not closed"
        found = examine(path)
        assert viewer.shown.items() <= found.net.items()
        assert (found.damage, found.doubled) == (frozenset(), frozenset())


SNAPSHOTS = 3_000
FIRST_ROWS = f"""
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {SNAPSHOTS - 1})
    INSERT INTO pnl_snapshots SELECT 1795000000000 + 500 * n, n, 0, 0, 0, 0, 0, 0, 0, n, n, n, 0, 0, 1, '{{}}'
    FROM numbers;

    INSERT INTO pnl_1m SELECT timestamp / 60000, count(*),
        min(net_pnl_micros), max(net_pnl_micros), min(net_pnl_micros), max(net_pnl_micros), sum(net_pnl_micros),
        {"0, " * 35}
        min(net_pnl_micros), max(net_pnl_micros), min(net_pnl_micros), max(net_pnl_micros), sum(net_pnl_micros)
    FROM pnl_snapshots GROUP BY 1;

    INSERT INTO kalshi_trades SELECT 'fill-' || timestamp, timestamp, 'KX-' || timestamp % 50, 'yes', 250, 510000, 17,
        1, 'open', 1 FROM pnl_snapshots;
    INSERT INTO meta VALUES ('kind', 'simulated');
"""
SUMS = """
    SELECT (SELECT count(*) FROM pnl_snapshots), (SELECT sum(net_pnl_micros) FROM pnl_snapshots),
        (SELECT sum(total_revenue_micros) FROM pnl_snapshots), (SELECT sum(net_pnl_sum) FROM pnl_1m),
        (SELECT count(*) FROM kalshi_trades), (SELECT sum(fee_micros) FROM kalshi_trades)
"""


def write_first_version(path):
    """A file as the first version of the program left it."""
    with closing(sqlite3.connect(path)) as first:
        first.execute("PRAGMA journal_mode = WAL")
        first.executescript(f"{MIGRATIONS[0]}; {FIRST_ROWS}; PRAGMA user_version = 1")
        assert list(odd_minutes(first)) == []
        return first.execute(SUMS).fetchone()


def look_into(path):
    """Give the version of a file, its tables and columns, and its sums."""
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (version,) = reader.execute("PRAGMA user_version").fetchone()
        shape = frozenset(reader.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'"))
        return version, shape, reader.execute(SUMS).fetchone()


def test_a_kill_during_a_migration_leaves_a_whole_version(tmp_path, processes):
    """The old one, the new one or a step between, never half of one: the kills gather around the migration's end."""
    random = Random(1)  # noqa: S311 - no secret
    (tmp_path / "first").mkdir()
    sums = write_first_version(tmp_path / "first" / "pnl.db")
    shapes = {}
    longest_s = 0.2

    for number in range(MIGRATION_KILLS):
        folder = shutil.copytree(tmp_path / "first", tmp_path / f"{number}")
        ear, mouth = processes.Pipe(duplex=False)
        with running(processes.Process(target=open_once, args=(folder, mouth))) as opener, ear, mouth:
            assert ear.poll(LONGEST_S)
            time.sleep(random.uniform(0, longest_s))
            opener.kill()
            opener.join()
        version, shape, found = look_into(folder / "pnl.db")
        longest_s *= 1.25 if version == 1 else 0.8  # so that they gather there on any machine

        assert found == sums
        assert shapes.setdefault(version, shape) == shape
        _, said = start_anew(folder)
        assert said == ()
        assert look_into(folder / "pnl.db")[0] == len(MIGRATIONS)
        shutil.rmtree(folder)

    assert {1, len(MIGRATIONS)} <= shapes.keys() <= {*range(1, len(MIGRATIONS) + 1)}
