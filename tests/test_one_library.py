"""A process that holds the live file has one SQLite library in it: a second one drops the locks of the first.

Locks of POSIX belong to a process: as soon as any library in it closes the file, all its locks are gone, and rows that
were acknowledged with them.
"""

import ast
import asyncio
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from pnl.bench.kill_dashboard import dashboard
from pnl.bench.kill_viewer import Viewer

PACKAGE = Path(__file__).parents[1] / "pnl"
OTHER_LIBRARIES = {"duckdb", "duckdb_extensions", "apsw", "apsw_sqlite3mc", "pysqlite3", "sqlean", "sqlcipher3"}
SQLITES_OWN = b"tbl_name text,rootpage int"  # how every SQLite describes its schema table, and nothing else does
LOOKS = 8


def sqlite_libraries(maps, is_sqlite):
    """Give the files with a SQLite in them that a process has loaded.

    `maps` is the text of /proc/PID/maps, and `is_sqlite` tells whether a file has one in it.
    """
    rows = (line.split(maxsplit=5) for line in maps.splitlines())
    loaded = {row[5] for row in rows if len(row) == 6 and "x" in row[1] and row[5].startswith("/")}
    return sorted(filter(is_sqlite, loaded))


def holds(links, path):
    """Whether the targets of a process's descriptors include a database or the files that belong to it."""
    return any(link.removesuffix(" (deleted)").startswith(f"{path}") for link in links)


@cache
def is_sqlite(path):
    """Whether a file on disk has a SQLite in it, whatever it is called."""
    file = Path(path)
    return file.is_file() and SQLITES_OWN in file.read_bytes()


def libraries_of(pid):
    return sqlite_libraries(Path(f"/proc/{pid}/maps").read_text(), is_sqlite)


def links_of(pid):
    return [f"{link.readlink()}" for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


def family(pid):
    """Yield a process and all that descend from it."""
    yield pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            yield from family(int(stat.parent.name))


async def test_the_dashboard_holds_its_file_through_one_library(tmp_path):
    """While pages are open and polls are recorded; its child processes have one at most, each by itself."""
    folder = tmp_path / "data"
    async with dashboard(folder, {"PNL_POLL_S": "0.5"}, log=tmp_path / "log") as served:
        viewer = Viewer(served.address)
        following = asyncio.create_task(viewer.follow())
        await asyncio.wait_for(viewer.has_record.wait(), 60)
        pid = served.process.pid
        for _ in range(LOOKS):
            viewer.has_record.clear()
            assert holds(links_of(pid), folder / "demo" / "pnl.db")
            assert len(libraries_of(pid)) == 1
            for child in list(family(pid))[1:]:
                assert len(libraries_of(child)) <= 1
            await asyncio.wait_for(viewer.has_record.wait(), 60)
        following.cancel()


def test_a_second_library_is_found_under_any_name(tmp_path):
    """What counts is the SQLite inside, not what its file is called; code that is only data is not loaded."""
    for name, content in {
        "_duckdb.so": SQLITES_OWN,
        "my lib.so": SQLITES_OWN,
        "libz.so": b"",
        "data": SQLITES_OWN,
    }.items():
        (tmp_path / name).write_bytes(b"\x7fELF" + content)
    maps = "\n".join(
        [
            f"7f60f16b5000-7f60f16db000 r--p 00000000 fe:00 339893                     {tmp_path}/_duckdb.so",
            f"7f60f16db000-7f60f17cf000 r-xp 00026000 fe:00 339893                     {tmp_path}/_duckdb.so",
            f"7f60f17cf000-7f60f180a000 r-xp 0011a000 fe:00 339893                     {tmp_path}/my lib.so",
            f"7f60f180a000-7f60f1810000 r-xp 00155000 fe:00 339893                     {tmp_path}/libz.so",
            f"7f60f1810000-7f60f1814000 rw-s 0015b000 fe:00 339893                     {tmp_path}/data",
            "7ffd3d3f6000-7ffd3d3f8000 r-xp 00000000 00:00 0                          [vdso]",
            "7f60f22cc000-7f60f22d3000 rw-p 00000000 00:00 0 ",
        ]
    )

    assert sqlite_libraries(maps, is_sqlite) == [f"{tmp_path}/_duckdb.so", f"{tmp_path}/my lib.so"]


@pytest.mark.parametrize(
    ("link", "is_held"),
    [
        ("/data/pnl.db", True),
        ("/data/pnl.db-wal", True),
        ("/data/pnl.db-shm (deleted)", True),
        ("/data/cache.db", False),
        ("socket:[12]", False),
    ],
)
def test_a_file_is_held_through_any_of_its_parts(link, is_held):
    """The log and its index are the database too."""
    assert holds(["pipe:[1]", link], Path("/data/pnl.db")) == is_held


HOLDING = """
import ctypes, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("CREATE TABLE t (x)")
beside = [ctypes.CDLL(path) for path in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path, *libraries):
    """A process that holds a database, with these libraries loaded beside Python's own."""
    command = (sys.executable, "-c", HOLDING, str(path), *map(str, libraries))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


def test_a_second_library_in_a_real_process_is_found(tmp_path):
    """A copy of Python's own under another name is another library: each has its own idea of what is locked."""
    with holder(tmp_path / "pnl.db") as pid:
        assert holds(links_of(pid), tmp_path / "pnl.db")
        [own] = libraries_of(pid)
    copy = shutil.copy(own, tmp_path / "apsw.so")

    with holder(tmp_path / "other.db", copy) as pid:
        assert libraries_of(pid) == sorted([own, str(copy)])


def test_a_child_of_a_child_is_of_the_family(tmp_path):
    """A worker is looked at wherever it stands."""
    inner = f"import subprocess, sys; subprocess.run({[sys.executable, '-c', HOLDING, str(tmp_path / 'x.db')]})"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        assert outer.stdout.readline() == b"ready\n"
        found = list(family(outer.pid))
        outer.stdin.close()

    assert len(found) == 2
    assert found[0] == outer.pid


def imports(path):
    """Yield the first part of the name of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def files_with_another_library(package):
    """Give the files of a package that import a library with a SQLite of its own; `history` has its own process."""
    rooms = {path: path.relative_to(package).parts[0].removesuffix(".py") for path in package.rglob("*.py")}
    return [path for path, room in rooms.items() if room != "history" and OTHER_LIBRARIES & set(imports(path))]


def test_only_the_history_imports_a_library_with_a_sqlite_of_its_own():
    """It runs in a process that never writes."""
    assert files_with_another_library(PACKAGE) == []


@pytest.mark.parametrize("line", ["import duckdb", "from apsw import Connection", "def f():\n    import duckdb.typing"])
def test_an_import_of_another_library_is_found(tmp_path, line):
    """Also one that waits in a function."""
    for name in ("store/writer.py", "history.py", "views/line.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("import sqlite3\n" if name == "views/line.py" else line)

    assert files_with_another_library(tmp_path) == [tmp_path / "store" / "writer.py"]
