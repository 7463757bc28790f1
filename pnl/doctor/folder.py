"""The data folder: whether it can be written, who can read it, and how much room is left."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pnl.doctor.findings import Finding, Mark
from pnl.errors import StoreError
from pnl.schema import MIGRATIONS
from pnl.store import FILE
from pnl.store.beside import known_version

LITTLE_ROOM_BYTES = 1 << 30
NO_ROOM_BYTES = 100 << 20
OTHERS = stat.S_IRWXG | stat.S_IRWXO

Found = partial(Finding, "Data folder")


def folder_found(folder: Path) -> Iterator[Finding]:
    """The folder, its files, and the disk that they are on."""
    if not folder.is_dir():
        yield Found("folder", f"{folder} is not there yet", Mark.SKIPPED, "`pnl sync` makes it")
        return
    yield _folder(folder)
    yield disk_found(shutil.disk_usage(folder).free)
    yield from (_file(path) for path in sorted(folder.glob("*")) if path.is_file())
    yield from _archive(folder / "archive")
    if (folder / FILE).exists():
        yield _schema(folder / FILE)


def _folder(folder: Path) -> Finding:
    if not os.access(folder, os.W_OK):
        advice = "give yourself the right to write there, or set PNL_DATA_DIR to another folder"
        return Found("folder", f"{folder} cannot be written", Mark.FAILED, advice)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & OTHERS:
        return Found(
            "folder", f"{folder}, which others can enter (mode {mode:04o})", Mark.WARNING, "run: chmod 700 on it"
        )
    return Found("folder", f"{folder}, mode {mode:04o}")


def disk_found(free_bytes: int) -> Finding:
    """Whether there is room for what will be recorded."""
    said = f"{free_bytes / 1e9:,.1f} GB free"
    if free_bytes >= LITTLE_ROOM_BYTES:
        return Found("disk", said)
    mark = Mark.WARNING if free_bytes >= NO_ROOM_BYTES else Mark.FAILED
    return Found("disk", said, mark, "make room: what cannot be recorded is lost when the dashboard stops")


def _file(path: Path) -> Finding:
    found = path.stat()
    said = f"{found.st_size / 1e6:,.1f} MB"
    if found.st_mode & OTHERS:
        return Found(path.name, f"{said}, and others can read it", Mark.FAILED, f"run: chmod 600 '{path}'")
    if "damaged" in path.name:
        return Found(path.name, f"{said}, set aside as damaged", Mark.FAILED, "once looked at, move it elsewhere")
    return Found(path.name, said)


def _archive(folder: Path) -> Iterator[Finding]:
    if files := sorted(folder.glob("*.parquet")):
        size = sum(file.stat().st_size for file in files)
        yield Found("archive", f"{len(files)} months, {size / 1e6:,.1f} MB, {files[0].name} to {files[-1].name}")


def _schema(path: Path) -> Finding:
    try:
        version = known_version(path)
    except (StoreError, sqlite3.Error) as error:
        return Found("schema", str(error), Mark.FAILED)
    if version < len(MIGRATIONS):
        said = f"version {version}; this program writes {len(MIGRATIONS)}"
        return Found("schema", said, Mark.WARNING, "the next start copies the file and migrates it")
    return Found("schema", f"version {version}, the newest")
