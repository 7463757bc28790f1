"""A month of raw snapshots as a Parquet file, whole and compared before it takes its name."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pnl.errors import HistoryError
from pnl.history.duck import Duck, quoted
from pnl.schema import SNAPSHOT_COLUMNS

FOLDER = "archive"
TEXTS = frozenset({"sources", "said"})


def archive(duck: Duck, folder: Path, *, month: str, start_ms: int, until_ms: int) -> Mapping[str, Any]:
    """Write the snapshots of a month to its file; one that is there from a try before is written anew.

    Returns:
        `file`, relative to the data folder; `rows` and `net_micros` of what is in it.

    Raises:
        HistoryError: It cannot be written, or does not hold what the store holds.
    """
    file = folder / FOLDER / f"snapshots-{month}.parquet"
    unfinished = file.with_suffix(".part")
    columns = ", ".join(SNAPSHOT_COLUMNS)
    recorded = f"FROM store.pnl_snapshots WHERE timestamp >= {start_ms} AND timestamp < {until_ms}"
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        query = f"SELECT {columns} {recorded} ORDER BY timestamp"
        duck.rows(f"COPY ({query}) TO {quoted(str(unfinished))} (FORMAT parquet, COMPRESSION zstd)")
        [written] = duck.rows(f"SELECT {_sums()} FROM read_parquet({quoted(str(unfinished))})")
        [wanted] = duck.rows(f"SELECT {_sums()} {recorded}")
        if written != wanted:
            raise HistoryError(f"{unfinished} does not hold what is recorded of {month}; nothing is deleted")
        _settle(unfinished, file)
    except OSError as error:
        raise HistoryError(f"{file} cannot be written ({error.strerror}); nothing is deleted") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return {"file": f"{FOLDER}/{file.name}", "rows": written[0], "net_micros": int(written[2] or 0)}


def _sums() -> str:
    """What tells two sets of snapshots apart: how many, and the sum of every column."""
    sums = [f"sum(hash({name}))" if name in TEXTS else f"sum({name})" for name in SNAPSHOT_COLUMNS]
    return ", ".join(["count(*)", *sums])


def _settle(unfinished: Path, file: Path) -> None:
    """Give a file its name once it is on disk, and the name too."""
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
