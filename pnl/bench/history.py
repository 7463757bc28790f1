"""How long the history takes to answer, beside plain SQLite and beside DuckDB as it comes."""

import asyncio
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Self

import typer

from pnl.bench.figures import python, rss_bytes, spread, tell
from pnl.bench.history_year import FIRST_MS, YEAR_MS, write_year
from pnl.history.buckets import bucket_that_fits
from pnl.history.client import Bars, History
from pnl.records import ZERO, Snapshot
from pnl.schema import SNAPSHOT_COLUMNS
from pnl.store import Change
from pnl.store.file import connect, migrate
from pnl.store.minutes import upsert, write_snapshots
from pnl.store.tables import write
from pnl.terminal import AsJson, progress_bars

HOUR_MS = 3_600_000
RANGES = {"hour": HOUR_MS, "day": 24 * HOUR_MS, "month": 30 * 24 * HOUR_MS, "year": YEAR_MS}
FINEST_MS = 60_000
ASKED = 40
MOST = 1000
LONGEST_S = 20.0
BATCH = 100
WRITTEN = 60_000
ONE_BY_ONE = 2_000

PLAIN = """
    SELECT bucket, opening.net_pnl_micros, high, low, closing.net_pnl_micros, total, count FROM (
        SELECT timestamp / :width AS bucket, min(timestamp) AS first, max(timestamp) AS last,
            max(net_pnl_micros) AS high, min(net_pnl_micros) AS low, sum(net_pnl_micros) AS total, count(*) AS count
        FROM pnl_snapshots WHERE timestamp >= :start AND timestamp < :end GROUP BY 1
    ) JOIN pnl_snapshots AS opening ON opening.timestamp = first
    JOIN pnl_snapshots AS closing ON closing.timestamp = last ORDER BY bucket
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One range, up to the end of the year, and the buckets that a plot of it gets."""

    name: str
    start: int
    end: int
    width: int
    bucket: str

    @property
    def values(self) -> dict[str, int]:
        """For a query."""
        return {"start": self.start, "end": self.end, "width": self.width}


def history(
    *,
    rows: Annotated[int, typer.Option(min=10_000, help="Snapshots of a made-up year.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Ask for the last hour, day, month and year of a made-up year, as a page does, and hold every bar against SQLite.

    Beside it the same question to plain SQLite by its key, and to DuckDB over an attached file; the same right after a
    commit, which the answer then holds; and how fast snapshots are written with their minutes. Times are the p50 in
    milliseconds, from the program to the worker and back.
    """
    with TemporaryDirectory(prefix="pnl-history-") as name:
        path = Path(name) / "pnl.db"
        _make(path, rows)
        figures: dict[str, Any] = {"rows": rows, "file_mb": round(path.stat().st_size / 1e6, 1)}
        figures |= asyncio.run(_compare(path))
        figures |= _writing(Path(name))
    tell("The history of a year", figures, as_json=as_json)
    if not figures["equal_to_plain_sqlite"]:
        raise typer.Exit(1)


def _make(path: Path, rows: int) -> None:
    with progress_bars() as progress:
        task = progress.add_task("writing a year", total=rows)
        for written in write_year(path, rows):
            progress.update(task, completed=written)


def _ranges() -> Iterator[Asked]:
    end = FIRST_MS + YEAR_MS
    for name, length in RANGES.items():
        bucket = bucket_that_fits(length, MOST)
        width = max(FINEST_MS, bucket.length_ms)
        yield Asked(name, end - length, end, width, bucket.name if bucket.length_ms >= FINEST_MS else "1m")


async def _compare(path: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    equal = True
    with _naive(path) as naive, closing(_reader(path)) as plain, Committing(path) as commits:
        async with History(path, kind="simulated", zone="UTC", version=lambda: commits.version) as asked:
            began = time.perf_counter()
            await asked.bars()
            figures["first_answer_ms"] = round((time.perf_counter() - began) * 1000, 1)
            for each in _ranges():
                bars, times = await _ours(asked, each)
                _, after_commit = await _ours(asked, each, before=commits.commit)
                rows, plain_ms = _timed(lambda each=each: plain.execute(PLAIN, each.values).fetchall())  # type: ignore[misc]
                equal = equal and _rows(bars, each.width) == rows
                naive_ms = naive(each)
                figures[f"{each.name}_bucket"] = each.bucket
                figures[f"{each.name}_ms"] = round(median(times), 2)
                figures[f"{each.name}_spread_ms"] = spread(times, digits=2)
                figures[f"{each.name}_after_commit_ms"] = round(median(after_commit), 2)
                figures[f"{each.name}_plain_sqlite_ms"] = round(plain_ms, 2)
                figures[f"{each.name}_naive_attach_ms"] = round(naive_ms, 2)
                figures[f"{each.name}_over_plain_sqlite"] = round(plain_ms / median(times), 1)
                figures[f"{each.name}_over_naive_attach"] = round(naive_ms / median(times), 1)
            figures["shared"] = await _at_once(path)
            figures["worker_mb"] = round(rss_bytes(asked.pid or 0) / 1e6, 1)
    return {"equal_to_plain_sqlite": equal, **figures}


class Committing:
    """A writer of a year that goes on: each commit adds one snapshot behind all others; `with`."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, "NORMAL")
        self.version = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def commit(self) -> None:
        """As the store's writer does."""
        self.version += 1
        at = datetime.fromtimestamp((FIRST_MS + YEAR_MS + 100 * self.version) / 1000, UTC)
        snapshot = Snapshot(at, Decimal(self.version), ZERO, ZERO, ZERO, ZERO, ZERO, 0, 0, 0, sources=())
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            write(self._connection, [Change(snapshot)])


async def _ours(asked: History, each: Asked, *, before: Callable[[], None] = lambda: None) -> tuple[Bars, list[float]]:
    times = []
    for number in range(ASKED):
        before()
        most = MOST + number  # so that no answer is one that was given before
        began = time.perf_counter()
        bars = await asked.bars(_instant(each.start), _instant(each.end), bucket=each.bucket, most=most)
        times.append((time.perf_counter() - began) * 1000)
    return bars, times


async def _at_once(path: Path) -> dict[str, Any]:
    """A hundred sessions ask for the same four ranges."""
    async with History(path, kind="simulated", zone="UTC", version=lambda: 1) as shared:
        await shared.bars()
        times: list[float] = []

        async def ask(each: Asked) -> None:
            began = time.perf_counter()
            await shared.bars(_instant(each.start), _instant(each.end), bucket=each.bucket)
            times.append((time.perf_counter() - began) * 1000)

        ranges = list(_ranges())
        await asyncio.gather(*(ask(ranges[number % len(ranges)]) for number in range(100)))
        return {"asked": 100, "queries": shared.queries.timings()["bars"].count - 1, "ms": spread(times, digits=1)}


def _rows(bars: Bars, width: int) -> list[tuple[int, ...]]:
    """Bars as plain SQLite gives them; sums do not leave the worker, so the means are compared."""
    columns = (bars.start // width, bars.open, bars.high, bars.low, bars.close, bars.mean, bars.count)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _timed(ask: Callable[[], list[Any]]) -> tuple[list[tuple[Any, ...]], float]:
    """The answer, and the median time of a few askings, or of one that takes long."""
    times: list[float] = []
    while len(times) < 5 and sum(times) < LONGEST_S * 250:  # noqa: PLR2004 - a few
        began = time.perf_counter()
        found = ask()
        times.append((time.perf_counter() - began) * 1000)
    rows = [
        (bucket, first, high, low, last, total // count, count)
        for bucket, first, high, low, last, total, count in found
    ]
    return rows, median(times)


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


@contextmanager
def _naive(path: Path) -> Iterator[Callable[[Asked], float]]:
    command = [python(), "-m", "pnl.bench.history_naive", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(each: Asked) -> float:
            times: list[float] = []
            while len(times) < 3 and sum(times) < LONGEST_S * 250:  # noqa: PLR2004 - a few
                print(json.dumps(each.values), file=process.stdin, flush=True)
                times.append(float(process.stdout.readline()) if process.stdout else 0)
            return median(times)

        yield ask
        if process.stdin is not None:
            process.stdin.close()


# --- writing


def _writing(folder: Path) -> dict[str, Any]:
    """Rows a second with their minutes, and the time of a commit: as set by default, without FULL, and otherwise."""
    ways: dict[str, Callable[[], tuple[float, list[float]]]] = {
        "full": lambda: _write(folder / "full.db", "FULL", BATCH, WRITTEN),
        "normal": lambda: _write(folder / "normal.db", "NORMAL", BATCH, WRITTEN),
        "one_by_one": lambda: _write(folder / "one.db", "FULL", 1, ONE_BY_ONE),
        "seed": lambda: _write_as_the_seed(folder / "seed.db"),
    }
    figures = {}
    for name, measure in ways.items():
        per_s, commits = measure()
        figures[name] = {"rows_per_s": round(per_s), "commit_ms": spread(commits)}
    return {"writing": figures}


def made_up_snapshots() -> Iterator[tuple[Any, ...]]:
    """Rows of snapshots, one every 100 ms, without an end."""
    return ((FIRST_MS + 100 * n, n, n, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, n, 1, "{}", "{}") for n in count())


def _write(path: Path, synchronous: str, batch: int, rows: int) -> tuple[float, list[float]]:
    with closing(connect(path, synchronous)) as connection:
        migrate(connection, path, 0)
        snapshots = list(islice(made_up_snapshots(), rows))
        return _batches(connection, snapshots, batch, lambda some: write_snapshots(connection, some))


def _write_as_the_seed(path: Path) -> tuple[float, list[float]]:
    """Its pragmas and its two indexes, no rollup."""
    with closing(connect(path, "NORMAL")) as connection:
        migrate(connection, path, 0)
        for pragma in ("cache_size = -64000", "mmap_size = 268435456"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE INDEX newest ON pnl_snapshots (timestamp DESC)")
        connection.execute("CREATE INDEX minutes ON pnl_snapshots (timestamp / 60000)")
        statement = upsert("pnl_snapshots", SNAPSHOT_COLUMNS)
        rows = list(islice(made_up_snapshots(), WRITTEN))
        return _batches(connection, rows, BATCH, lambda some: connection.executemany(statement, some))


def _batches(
    connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], batch: int, write: Callable[[Any], object]
) -> tuple[float, list[float]]:
    times = []
    for start in range(0, len(rows), batch):
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        write(rows[start : start + batch])
        connection.execute("COMMIT")
        times.append((time.perf_counter() - began) * 1000)
    return len(rows) / sum(times) * 1000, times
