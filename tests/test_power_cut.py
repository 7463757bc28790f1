"""A power cut at any instant: what the store acknowledged is on the disk, and what is on the disk is whole."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import numbered_writer
import pytest
from numbered_writer import change, whole_changes
from synced_disk import STRACE, SyncedDisk, calls_of

from pnl.bench.kill_checks import odd_minutes
from pnl.store import Store

CUTS = 200
CUTS_BESIDE = 40
SESSIONS = (150, 600)  # changes that are there when the first and the second process end
STDOUT = "1"


def record(tmp_path, synchronous):
    """Let the real store write, in two processes one after the other; every call they made of the system."""
    if shutil.which("strace") is None:
        give_up("strace is not installed")
    (tmp_path / "written").mkdir()
    calls = []
    for until in SESSIONS:
        log = tmp_path / f"{until}.log"
        program = (sys.executable, numbered_writer.__file__, str(tmp_path / "written"), str(until), synchronous)
        done = subprocess.run([*STRACE, str(log), *program], capture_output=True, text=True, timeout=60, check=False)
        if "ptrace" in done.stderr.lower():
            give_up(f"strace may not trace here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        calls += calls_of(log)
    return calls


def give_up(why):
    (pytest.fail if "CI" in os.environ else pytest.skip)(why)


def cuts(calls, folder, count):
    """Yield how many changes were acknowledged at each of some instants, and the files that a cut may leave then."""
    random = Random(count)  # noqa: S311 - no secret
    at = set(random.sample(range(len(calls)), count))
    disk, acknowledged = SyncedDisk(folder), 0
    for place, call in enumerate(calls):
        if place in at:
            yield acknowledged, disk.after_cut(random)
        if call.name == "write" and call.args[0] == STDOUT:
            acknowledged = int(call.text(1))
        disk.do(call)


def restore(files, folder):
    """Put the files of a cut into a new folder; what was only mapped into memory may hold anything."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(os.urandom(32_768) if name.endswith("-shm") else content)
    return folder


async def go_on(folder):
    """Start the real store on what a cut left, let it write one more change, and count what is there.

    Returns how many changes it found, and what it says is lost.
    """
    async with Store(folder, kind="simulated") as store:
        found = len(await store.snapshots(limit=1_000_000))
        await asyncio.wrap_future(store.append(change(found)))
        said = store.recorded.damage
    assert whole_changes(folder / "pnl.db") == found + 1
    with closing(sqlite3.connect(folder / "pnl.db")) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert list(odd_minutes(reader)) == []
    return found, said


async def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    """In none of 200 cuts: the first so many changes are there, whole, with all that were acknowledged; no false alarm.

    The cuts fall into two lives of the store, one with a checkpoint in the middle of its work.
    """
    calls = record(tmp_path, "FULL")
    assert checkpoints(calls) >= len(SESSIONS) + 1

    for number, (acknowledged, files) in enumerate(cuts(calls, tmp_path / "written", CUTS)):
        folder = restore(files, tmp_path / f"cut-{number}")
        found, said = await go_on(folder)
        assert found >= acknowledged
        assert said == ()
        shutil.rmtree(folder)


def checkpoints(calls):
    """How often the log was copied into the database: runs of writes that go to no other file."""
    fds, runs, last = {}, 0, ""
    for call in calls:
        if call.name == "openat":
            fds[str(call.result)] = Path(os.fsdecode(call.text(1))).name
        if call.name == "pwrite64":
            name = fds.get(call.args[0], "")
            runs += name == "pnl.db" != last
            last = name
    return runs


async def test_such_cuts_find_a_store_that_does_not_wait_for_the_disk(tmp_path):
    """With NORMAL a commit is acknowledged before it is synced, and many cuts lose some: the test above can fail."""
    calls = record(tmp_path, "NORMAL")
    lost = []

    for number, (acknowledged, files) in enumerate(cuts(calls, tmp_path / "written", CUTS_BESIDE)):
        folder = restore(files, tmp_path / f"cut-{number}")
        found, _ = await go_on(folder)
        lost.append(acknowledged - found)
        shutil.rmtree(folder)

    assert sum(each > 0 for each in lost) > CUTS_BESIDE / 4
