"""The disk under the cache: what outlasts a restart, what is refused, and that its loss changes no answer."""

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import zlib
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from diskcache.core import MODE_BINARY, MODE_PICKLE, MODE_RAW, MODE_TEXT

from pnl.cache import Cache
from pnl.cache.disk import LARGEST_BYTES, BytesOnly, Refused
from pnl.errors import SourceError

OPEN_TO_ALL = 0o777
NOBODY = 65_534


@pytest.fixture
def folder(tmp_path):
    """The cache's folder, which nobody has made yet."""
    return tmp_path / "cache"


@pytest.fixture
def make(clock, folder):
    def make(**settings):
        return Cache(folder, clock=clock.timestamp, wall=clock.timestamp, **settings)

    return make


async def fill(make, *keys, value=b"1", ttl_s=250):
    """Leave a folder with these keys on disk."""
    async with make() as cache:
        for key in keys:
            cache.put(key, value, ttl_s)


async def found(make, *keys):
    """What a cache that is opened anew has."""
    async with make() as cache:
        return [cache.peek(key) and cache.peek(key).value for key in keys]


async def until(claim):
    """Wait for the writer's thread."""
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110 - a thread has no event for the loop
            await asyncio.sleep(0.01)


def in_rows(folder, query, *values):
    """Do something to the rows behind the cache's back."""
    with closing(sqlite3.connect(folder / "cache.db", timeout=10)) as rows, rows:
        return rows.execute(query, values).fetchall()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# What outlasts a restart


async def test_a_value_outlasts_a_restart_with_its_age(make, clock):
    """The age is counted on, through the time when nobody was there."""
    await fill(make, "key")
    clock.advance(seconds=200)

    async with make() as cache:
        there = cache.peek("key")

    assert (there.value, there.state, there.level) == (b"1", "fresh", "disk")
    assert there.age_s == pytest.approx(200, abs=0.002)


async def test_a_value_is_not_fresh_for_longer_after_a_restart(make, clock):
    """Its TTL goes on too."""
    await fill(make, "key", ttl_s=250)
    clock.advance(seconds=251)

    assert await found(make, "key") == [None]


async def test_a_value_from_the_future_is_not_believed(make, clock):
    """The wall clock was set back between two runs: the age is unknown, and no age is negative."""
    await fill(make, "key")
    clock.advance(hours=-1)

    async with make() as cache:
        assert cache.peek("key") is None
        assert (await cache.get("key", fails, ttl_s=250)).state == "missing"


async def fails():
    raise SourceError("down")


async def test_a_jump_of_the_wall_clock_changes_no_age(folder, clock):
    """It is read once; from then on ages are counted by a clock that only grows."""
    wall = [clock.timestamp()]
    async with Cache(folder, clock=clock.timestamp, wall=lambda: wall[0]) as cache:
        wall[0] += 3600
        cache.put("key", b"1", 250)
        wall[0] -= 7200
        clock.advance(seconds=100)

        assert cache.peek("key").age_s == pytest.approx(100, abs=0.002)


async def test_an_age_is_told_across_a_reboot(folder, clock):
    """The clock that only grows begins anew with the machine; the wall clock, read at the start, ties the two."""
    async with Cache(folder, clock=lambda: 5000.0, wall=clock.timestamp) as cache:
        cache.put("key", b"1", 250)
    clock.advance(seconds=200)

    async with Cache(folder, clock=lambda: 3.0, wall=clock.timestamp) as cache:
        assert cache.peek("key").age_s == pytest.approx(200, abs=0.002)


async def test_a_drop_reaches_the_disk(make):
    """What was dropped is gone after a restart as well."""
    await fill(make, "dropped", "kept")
    async with make() as cache:
        cache.drop("dropped")

    assert await found(make, "dropped", "kept") == [None, b"1"]


async def test_a_drop_wins_over_a_write_that_is_queued(make):
    """And a later write over the drop: the last word counts."""
    async with make() as cache:
        for key in ("dropped", "kept"):
            cache.put(key, b"1", 250)
            cache.drop(key)
        cache.put("kept", b"2", 250)

    assert await found(make, "dropped", "kept") == [None, b"2"]


async def test_a_drop_counts_at_once_though_the_row_is_still_there(make, folder):
    """A read looks at what is queued first, so a disk that is slow to delete shows nothing old."""
    await fill(make, "key", value=b"old")
    async with make() as cache:
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the writer has to wait, a reader has not
            cache.drop("key")
            assert cache.peek("key") is None

            await until(lambda: cache._disk._writing or cache.stats.disk.errors)  # the thread has it in hand
            assert other.execute("SELECT COUNT(*) FROM Cache").fetchone() == (1,)
            assert cache.peek("key") is None


async def test_a_process_that_was_killed_leaves_nothing_to_believe(make, folder, clock):
    """Its last drops may not have reached the disk, though an earlier one may have ended well."""
    await fill(make, "earlier")
    program = f"""
import asyncio, os, signal
from pathlib import Path
from pnl.cache import Cache
def clock():
    return {clock.timestamp()}
async def main():
    async with Cache(Path({str(folder)!r}), clock=clock, wall=clock) as cache:
        cache.put("key", b"1", 250)
        await cache.flush()
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=60, check=False)

    assert ended.returncode == -signal.SIGKILL
    assert in_rows(folder, "SELECT COUNT(*) FROM Cache") == [(2,)]
    async with make() as cache:
        assert [cache.peek(key) for key in ("key", "earlier")] == [None, None]
        assert cache.stats.disk.errors == 0


async def test_the_least_recently_used_rows_make_room(make, clock):
    """A row that was read since is not among them; the limit counts entries."""
    async with make(disk_entries=50) as cache:
        for number in range(50):
            cache.put(f"{number}", b"1", 250)
            await cache.flush()  # so that each is written after the one before
        clock.advance(seconds=1)
        assert cache.peek("0").level == "disk"
        cache.put("50", b"1", 250)
        await cache.flush()
        evictions = cache.stats.disk.evictions

    kept = await found(make, *map(str, range(51)))
    assert evictions == kept.count(None) > 0
    assert kept[0] == kept[50] == b"1"
    assert kept[1] is None


async def test_a_value_too_large_for_a_row_stays_in_memory(make):
    """Nor does the row that it replaces stay behind it."""
    async with make() as cache:
        cache.put("key", b"small", 250)
        cache.put("key", bytes(LARGEST_BYTES + 1), 250)
        assert len(cache.peek("key").value) == LARGEST_BYTES + 1

    assert await found(make, "key") == [None]


async def test_a_burst_beyond_the_queue_loses_writes_and_no_drop(make, folder):
    """What is not written is deleted: an older row must not outlive a newer value."""
    await fill(make, "last", value=b"old")
    async with make() as cache:
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nothing is written meanwhile
            for number in range(3000):
                cache.put(f"{number}", b"1", 250)
            cache.put("last", b"new", 250)
            other.execute("COMMIT")
        await cache.flush()

    assert (await found(make, "last"))[0] != b"old"


# Whose folder it is


async def test_folder_and_files_are_closed_to_others(make, folder):
    """Even where the process makes everything open."""
    before = os.umask(0)
    try:
        await fill(make, "key")
    finally:
        os.umask(before)

    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == {"cache.db": 0o600, "cache.lock": 0o600}


@pytest.mark.parametrize("opened", ["", "cache.db", "cache.lock"])
async def test_what_others_could_write_is_closed_and_not_believed(make, folder, opened):
    """Somebody may have put a row there, and it would look like any other."""
    await fill(make, "key")
    (folder / opened).chmod(OPEN_TO_ALL)

    assert await found(make, "key") == [None]
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("foreign", ["", "cache.db"])
async def test_what_belongs_to_someone_else_is_left_alone(make, folder, caplog, foreign):
    """The cache goes without a disk, and says so once."""
    await fill(make, "key")
    os.chown(folder / foreign, NOBODY, NOBODY)

    async with make() as cache:
        assert cache.peek("key") is None
        cache.put("key", b"2", 250)
        assert cache.peek("key").value == b"2"
    assert caplog.text.count("belongs to someone else") == 1


async def test_a_link_is_not_followed(make, folder, tmp_path):
    """It may lead anywhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)

    assert await found(make, "key") == [None]
    assert not list(elsewhere.iterdir())


async def test_who_takes_over_a_folder_believes_nothing_in_it(make, clock, monkeypatch):
    """What was dropped while the other one had it never reached those rows."""
    monkeypatch.setattr("pnl.cache.disk.RETRY_S", 0.05)
    async with AsyncExitStack() as first_to_leave, AsyncExitStack() as last_to_leave:
        first = await first_to_leave.enter_async_context(make())
        first.put("key", b"1", 250)
        second = await last_to_leave.enter_async_context(make())
        second.drop("key")
        await first_to_leave.aclose()

        await until(lambda: lands_on_disk(second, clock))
        assert second.peek("key") is None


async def test_a_second_cache_in_the_folder_goes_without(make, caplog):
    """Two would not see each other's drops; the first is not disturbed."""
    async with make() as first:
        first.put("key", b"1", 250)
        await first.flush()

        assert await found(make, "key") == [None]
    assert "another process uses it" in caplog.text
    assert await found(make, "key") == [b"1"]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nowhere"])
async def test_without_a_folder_that_can_be_made_memory_goes_on(clock, tmp_path, caplog, where):
    """A read-only place costs speed; it is said once, and counted."""
    (tmp_path / "file").write_text("in the way")
    async with Cache(tmp_path / where, clock=clock.timestamp) as cache:
        cache.put("key", b"1", 250)
        assert cache.peek("key").level == "memory"
        assert cache.stats.disk.errors > 0

    assert caplog.text.count("is off") == 1
    assert (tmp_path / "file").read_text() == "in the way"


async def test_a_folder_with_a_variable_in_its_name_is_not_used(clock, tmp_path, caplog):
    """Diskcache would put its value in, and work in a folder that nobody has closed to others."""
    folder = tmp_path / "$HOME"
    async with Cache(folder, clock=clock.timestamp) as cache:
        cache.put("key", b"1", 250)

    assert not folder.exists()
    assert "another folder" in caplog.text


async def test_a_relative_folder_is_taken_as_it_stands(monkeypatch, tmp_path):
    """A ~ at its start is a name like any other."""
    monkeypatch.chdir(tmp_path)
    async with Cache(Path("~")) as cache:
        cache.put("key", b"1", 250)

    assert (tmp_path / "~" / "cache.db").exists()


# Damage


@pytest.mark.parametrize("content", [b"", b"garbage", b"SQLite format 3\0" + bytes(5000)])
async def test_a_damaged_file_is_replaced_when_it_is_opened(make, folder, content):
    """Empty, garbage, or a head without a body."""
    await fill(make, "key")
    (folder / "cache.db").write_bytes(content)

    assert await found(make, "key") == [None]
    await fill(make, "key")
    assert await found(make, "key") == [b"1"]


async def test_a_damaged_file_is_counted_and_said_once(make, folder, caplog):
    """It is news the first time."""
    await fill(make, "key")
    (folder / "cache.db").write_bytes(b"garbage" * 1000)

    async with make() as cache:
        assert cache.stats.disk.errors == 1
    assert [record.levelno for record in caplog.records if record.name == "pnl.cache"] == [logging.WARNING]


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
async def test_every_file_damaged_under_a_running_cache_is_a_miss(make, folder, clock, content):
    """It begins anew by itself; a file that is cut short must not end the process either."""
    async with make() as cache:
        for number in range(300):
            cache.put(f"{number}", bytes(2000), 250)
        await cache.flush()
        clock.advance(seconds=1)
        assert cache.peek("0").level == "disk"
        for path in folder.iterdir():
            path.write_bytes(content)

        assert cache.peek("1") is None
        await until(lambda: lands_on_disk(cache, clock))
        assert cache.stats.disk.errors == 1


def lands_on_disk(cache, clock):
    """Put a value, and look whether memory's end leaves it."""
    cache.put("probe", b"1", 250)
    clock.advance(seconds=1)
    again = cache.peek("probe")
    return again is not None and again.level == "disk"


async def test_a_folder_deleted_under_a_running_cache_is_made_again(make, folder, clock):
    """Nothing is raised, and what is put from then on is kept."""
    async with make() as cache:
        cache.put("key", b"1", 250)
        await cache.flush()
        shutil.rmtree(folder)

        await until(lambda: lands_on_disk(cache, clock) and folder.exists())
        await cache.flush()
        assert cache.stats.disk.errors == 1
    assert await found(make, "probe") == [b"1"]
    assert mode(folder) == 0o700


async def test_a_drop_is_not_undone_by_losing_the_folder(make, folder, clock):
    """The file that is still open behind it must not answer with what was dropped."""
    async with make() as cache:
        cache.put("key", b"old", 250)
        await cache.flush()
        clock.advance(seconds=1)
        shutil.rmtree(folder)
        cache.drop("key")

        assert cache.peek("key") is None
        await until(folder.exists)
        await cache.flush()
        assert cache.peek("key") is None


async def test_a_folder_that_cannot_be_made_again_leaves_memory(make, folder, clock):
    """A file stands in its place: no disk from then on, and no error to the caller."""
    async with make() as cache:
        cache.put("key", b"1", 250)
        await cache.flush()
        shutil.rmtree(folder)
        folder.write_text("in the way")

        await until(lambda: not lands_on_disk(cache, clock))
        cache.put("key", b"2", 250)
        assert cache.peek("key").value == b"2"
    assert folder.read_text() == "in the way"


async def test_a_locked_file_is_a_miss(make, folder, clock, caplog):
    """After one short wait reads leave the disk alone for a while; the loop has other things to do."""
    async with make() as cache:
        cache.put("key", b"1", 250)
        await cache.flush()
        clock.advance(seconds=1)
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")

            assert [cache.peek("key") for _ in range(3)] == [None] * 3
            assert cache.stats.disk.errors == 1
        assert cache.peek("key") is None
        clock.advance(seconds=1)
        assert cache.peek("key").level == "disk"
    assert "locked" in caplog.text


async def test_a_file_that_is_locked_at_the_start_is_left_behind(make, folder):
    """Diskcache by itself would wait for a minute, and the program with it."""
    await fill(make, "key")
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        async with asyncio.timeout(30):
            assert await found(make, "key") == [None]


async def test_a_write_lock_that_stays_is_left_behind(make, folder, clock):
    """A row that cannot be deleted cannot be believed: the cache begins anew in a new file."""
    async with make() as cache:
        cache.put("key", b"old", 250)
        await cache.flush()
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            cache.drop("key")

            await until(lambda: lands_on_disk(cache, clock) and cache.stats.disk.errors)
            assert cache.peek("key") is None


async def test_one_flipped_bit_is_a_miss_wherever_it_is(make, folder):
    """SQLite does not notice one inside a row, and a number or an age would be wrong."""
    keys = [f"{number}" for number in range(20)]
    await fill(make, *keys, value=b"1234")
    rows = dict(in_rows(folder, "SELECT key, value FROM Cache"))
    assert len(rows["0"]) == len(keys)
    for place, key in enumerate(keys):
        row = bytearray(rows[key])
        row[place] ^= 1
        in_rows(folder, "UPDATE Cache SET value = ? WHERE key = ?", bytes(row), key)

    assert await found(make, *keys) == [None] * len(keys)


@pytest.mark.parametrize("row", [b"", b"1", zlib.crc32(b"key").to_bytes(4)])
async def test_a_row_that_was_cut_short_is_a_miss(make, folder, row):
    """Even one whose checksum is right."""
    await fill(make, "key")
    in_rows(folder, "UPDATE Cache SET value = ?", row)

    assert await found(make, "key") == [None]


async def test_a_row_of_another_key_is_a_miss(make, folder):
    """A value belongs to the key that it was stored for."""
    await fill(make, "key")
    in_rows(folder, "UPDATE Cache SET key = 'other'")

    assert await found(make, "other") == [None]


# Poison: what diskcache as it comes would run, read or delete

RUNS_A_COMMAND = b"cposix\nsystem\n(S'touch %s'\ntR."
"""The pickle of a call of `os.system`, as bytes."""


@pytest.fixture
def poisoned(make, folder, tmp_path):
    """Change the row of `key` to what a stranger might write; returns the file that must not come to be."""

    async def poisoned(change, value=None):
        await fill(make, "key", "innocent")
        sign = tmp_path / "executed"
        pickled = RUNS_A_COMMAND.replace(b"%s", str(sign).encode())
        in_rows(folder, f"UPDATE Cache SET {change} WHERE key = 'key'", pickled if value is None else value)
        return sign

    return poisoned


async def test_the_poison_is_poison(tmp_path):
    """Loaded in a process of its own, the bytes do run their command; else the tests below would prove nothing."""
    sign = tmp_path / "executed"
    program = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    poison = RUNS_A_COMMAND.replace(b"%s", str(sign).encode())
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], input=poison, timeout=60, check=True)

    assert sign.exists()


@pytest.mark.parametrize(
    "change",
    [
        f"mode = {MODE_PICKLE}, value = ?",
        f"mode = {MODE_PICKLE}, filename = 'poison.val', value = ? || NULL",
        f"mode = {MODE_RAW}, value = ?",
        f"mode = {MODE_BINARY}, value = ?",
        f"mode = {MODE_TEXT}, value = ?",
        "mode = 'raw', value = ?",
        "filename = 'poison.val' || substr(?, 1, 0)",
        "mode = NULL, value = ?",
        "raw = 0, key = ?",
        "raw = 0, mode = 4, value = ?",
    ],
)
async def test_a_planted_pickle_is_a_miss_and_never_loaded(make, folder, poisoned, change):
    """Whatever the row says it is; the rows beside it still answer."""
    sign = await poisoned(change)
    (folder / "poison.val").write_bytes(RUNS_A_COMMAND.replace(b"%s", str(sign).encode()))

    async with make() as cache:
        assert cache.peek("key") is None
        assert cache.peek("innocent").value == b"1"
        cache.put("key", b"2", 250)
    assert await found(make, "key") == [b"2"]
    assert not sign.exists()


@pytest.mark.parametrize("kind", [MODE_RAW, MODE_BINARY, MODE_TEXT, MODE_PICKLE])
@pytest.mark.parametrize("file", ["{outside}/victim", "../victim", "victim"])
async def test_a_row_that_names_a_file_neither_reads_nor_deletes_it(make, folder, poisoned, kind, file):
    """As it comes, diskcache reads it, and deletes it when the row is replaced or dropped, wherever it lies."""
    await poisoned(f"mode = {kind}, value = NULL, filename = ?", file.format(outside=folder.parent))
    victims = [folder.parent / "victim", folder / "victim"]
    for victim in victims:
        victim.write_text("precious")

    async with make() as cache:
        assert cache.peek("key") is None  # and drops the row
    await poisoned(f"mode = {kind}, value = NULL, filename = ?", file.format(outside=folder.parent))
    async with make() as cache:
        cache.put("key", b"2", 250)

    assert await found(make, "key") == [b"2"]
    assert [victim.read_text() for victim in victims] == ["precious"] * 2


async def test_a_poisoned_row_is_counted_deleted_and_said_once(make, folder, poisoned, caplog):
    """The next reader does not stumble over it again."""
    await poisoned(f"mode = {MODE_PICKLE}, value = ?")

    async with make() as cache:
        cache.peek("key")
        await cache.flush()
        cache.peek("key")
        assert cache.stats.disk.errors == 1
        assert in_rows(folder, "SELECT key FROM Cache") == [("innocent",)]
    assert caplog.text.count("will not read") == 1


async def test_a_row_poisoned_under_a_running_cache_is_a_miss(make, folder, clock):
    """Each read is checked, not only the first."""
    async with make() as cache:
        cache.put("key", b"1", 250)
        await cache.flush()
        clock.advance(seconds=1)
        in_rows(folder, "UPDATE Cache SET mode = 4, value = ?", RUNS_A_COMMAND)

        assert cache.peek("key") is None


async def test_planted_settings_are_not_believed(make, folder):
    """As it comes, diskcache runs what begins with sqlite_ as pragmas, and sets the rest as attributes of itself."""
    await fill(make, "key")
    planted = {"sqlite_query_only": 1, "get": 1, "disk_directory": "/etc", "statistics": 1, "cull_limit": "x"}
    for setting in planted.items():
        in_rows(folder, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", *setting)

    assert await found(make, "key") == [b"1"]
    left = dict(in_rows(folder, "SELECT key, value FROM Settings"))
    assert not {"sqlite_query_only", "get", "disk_directory"} & left.keys()
    assert (left["statistics"], left["cull_limit"]) == (0, 0)


@pytest.mark.parametrize("value", [1, 1.5, "text", None, [b"1"], bytearray(b"1")])
def test_the_disk_stores_nothing_but_bytes(tmp_path, value):
    """The refusal does not rest on reading alone."""
    disk = BytesOnly(str(tmp_path))

    with pytest.raises(Refused, match="a value is bytes"):
        disk.store(value, read=False)
    with pytest.raises(Refused, match="a key is text"):
        disk.put(value if value != "text" else b"text")


def test_large_values_make_no_files(tmp_path):
    """As it comes, diskcache puts them beside its rows, where no checks are."""
    assert BytesOnly(str(tmp_path)).store(bytes(1 << 20), read=False)[2] is None
    assert not list(tmp_path.iterdir())


async def test_cancelling_the_opening_stops_the_thread(make):
    """The folder is free again for the next one."""
    cache = make()
    opening = asyncio.create_task(cache.__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    await asyncio.to_thread(cache._disk._thread.join, 20)
    assert not cache._disk._thread.is_alive()
