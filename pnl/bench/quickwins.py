"""The eight quick wins that every tuning guide promises, switched off and on: what was claimed beside what is."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from inspect import isawaitable
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from pnl.bench.figures import tell
from pnl.bench.history import made_up_snapshots
from pnl.cache import Cache, kept_s, minute_key
from pnl.config import load_settings
from pnl.ledger import Ledger
from pnl.model import PnLModel
from pnl.records import CENT
from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.demo import demo_settings
from pnl.sources import open_sources
from pnl.sources.transport import Transport
from pnl.store.file import connect, migrate
from pnl.store.minutes import write_snapshots
from pnl.stream import changed, fields_of
from pnl.terminal import AsJson, progress_bars

COMMITS = 20
BATCH = 100
LOOKUPS = 1000
REQUESTS = 20
DAYS = 10
AWAY_S = 0.05  # how long a request is on its way to an API that is elsewhere, and back
REFILL_S = 0.5  # the venue's limit of requests, which its source keeps by itself, must not be what is measured
LEAST_GAIN = 1.1  # less is noise

STATUS_TIME = "SELECT * FROM kalshi_trades WHERE status = 'open' ORDER BY timestamp DESC LIMIT 50"
LAST_MINUTES = """
    SELECT timestamp / 60000 AS minute, min(net_pnl_micros), max(net_pnl_micros) FROM pnl_snapshots
    WHERE timestamp >= (SELECT max(timestamp) - 300000 FROM pnl_snapshots) GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Ways:
    """The same work without the quick win and with it; each is called many times, and `calls` pieces are done in one.

    What they return is looked at where bytes are measured, and else only the time that they take.
    """

    off: Callable[[], Awaitable[object] | object]
    on: Callable[[], Awaitable[object] | object]
    calls: int = 1
    rest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Win:
    """One promise, and how to try it.

    Attributes:
        name: Short, for the figures' names.
        claim: What is promised.
        ratio: The least that this promises, off over on; 1 where no figure was given and any gain is one.
        means: What is off and what is on.
        ways: Opens what is needed in a folder of its own, for so many rows.
    """

    name: str
    claim: str
    ratio: float
    means: str
    ways: Callable[[Path, int], AbstractAsyncContextManager[Ways]]
    unit: Literal["ms", "bytes"] = "ms"


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it: medians over all pairs, in the win's unit; `ratio` is the median of the pairs' own."""

    win: Win
    off: float
    on: float
    ratio: float

    @property
    def verdict(self) -> str:
        """Whether the claim is true on this machine, and if not, what is."""
        if self.ratio >= max(self.win.ratio, LEAST_GAIN):
            return "holds"
        if self.ratio >= LEAST_GAIN:
            return "false here: less than claimed"
        return "false here: no gain" if self.ratio > 1 / LEAST_GAIN else "false here: a loss"

    @property
    def figures(self) -> Mapping[str, object]:
        """By name, for programs."""
        found = {
            "claim": self.win.claim,
            "claimed_ratio": self.win.ratio,
            "measured_ratio": round(self.ratio, 2),
            f"off_{self.win.unit}": round(self.off, 4),
            f"on_{self.win.unit}": round(self.on, 4),
            "verdict": self.verdict,
        }
        return {f"{self.win.name}_{name}": value for name, value in found.items()}


def quickwins(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of each, off and on by turns.")] = 5,
    rows: Annotated[int, typer.Option(min=1000, help="Rows of the tables that are searched.")] = 50_000,
    as_json: AsJson = False,
) -> None:
    """Switch each of eight well-known quick wins off and on by turns, and hold what it brings against what is claimed.

    Both ways do the same work, with the parts of this program where it has them; `off` and `on` are medians, and the
    ratio is the median over the pairs. The claims are those of a tuning guide for such dashboards. Indexes are tried
    twice, as one of the two that it names makes things worse, and so are parallel calls, which bring nothing where an
    answer takes no time. No Redis is asked: the local cache stands in its place.
    """
    with TemporaryDirectory(prefix="pnl-quickwins-") as folder:
        tried = asyncio.run(_try_all(Path(folder), rounds, rows))
    if as_json:
        tell("", {name: value for one in tried for name, value in one.figures.items()}, as_json=True)
    else:
        Console().print(as_table(tried))


async def _try_all(folder: Path, rounds: int, rows: int) -> list[Tried]:
    tried = []
    with progress_bars() as progress:
        for win in progress.track(WINS, description="switching off and on"):
            own = folder / win.name
            own.mkdir()
            async with win.ways(own, rows) as ways:
                tried.append(await _try(win, ways, rounds))
    return tried


async def _try(win: Win, ways: Ways, rounds: int) -> Tried:
    pairs = []
    for number in range(rounds):
        order = ("off", "on") if number % 2 == 0 else ("on", "off")  # neither always comes first
        cost = {name: await _cost(win, getattr(ways, name), ways.calls) for name in order}
        pairs.append((cost["off"], cost["on"]))
        await asyncio.sleep(ways.rest_s)
    off, on = zip(*pairs, strict=True)
    return Tried(win, median(off), median(on), median(without / with_ for without, with_ in pairs))


async def _cost(win: Win, work: Callable[[], Awaitable[object] | object], calls: int) -> float:
    """Milliseconds, or bytes, of one piece."""
    began = time.perf_counter()
    made = work()
    if isawaitable(made):
        made = await made
    took_ms = (time.perf_counter() - began) * 1000
    return float(len(made)) if isinstance(made, bytes) and win.unit == "bytes" else took_ms / calls


def as_table(tried: Iterable[Tried]) -> Table:
    """For people: a row for each, what is false in another colour."""
    table = Table(title="Quick wins, claimed and measured here", caption="off and on: ms, or bytes where it says so")
    for name in ("quick win", "off → on", "claimed", "off", "on", "measured", "verdict"):
        table.add_column(name, justify="right" if name in {"off", "on", "measured"} else "left")
    for one in tried:
        unit = " B" if one.win.unit == "bytes" else ""
        costs = (f"{cost:.3g}{unit}" if cost < 1000 else f"{cost:.0f}{unit}" for cost in (one.off, one.on))  # noqa: PLR2004
        style = None if one.verdict == "holds" else "yellow"
        name = one.win.name.replace("_", " ")
        table.add_row(name, one.win.means, one.win.claim, *costs, f"{one.ratio:.3g}x", one.verdict, style=style)
    return table


# --- the store


@contextmanager
def _opened(path: Path, *, journal: str = "WAL") -> Iterator[sqlite3.Connection]:
    with closing(connect(path, "FULL")) as connection:
        migrate(connection, path, 0)
        connection.execute(f"PRAGMA journal_mode = {journal}")
        yield connection


def _commit(connection: sqlite3.Connection, rows: Iterator[tuple[Any, ...]], *, count: int = 1) -> None:
    connection.execute("BEGIN IMMEDIATE")
    write_snapshots(connection, list(islice(rows, count)))
    connection.execute("COMMIT")


@asynccontextmanager
async def _wal(folder: Path, _rows: int) -> AsyncIterator[Ways]:
    with _opened(folder / "off.db", journal="DELETE") as off, _opened(folder / "on.db") as on:
        without, with_ = made_up_snapshots(), made_up_snapshots()

        def write(connection: sqlite3.Connection, left: Iterator[tuple[Any, ...]]) -> None:
            for _ in range(COMMITS):
                _commit(connection, left)

        yield Ways(lambda: write(off, without), lambda: write(on, with_), calls=COMMITS)


@asynccontextmanager
async def _batch_writes(folder: Path, _rows: int) -> AsyncIterator[Ways]:
    with _opened(folder / "pnl.db") as connection:
        left = made_up_snapshots()

        def one_by_one() -> None:
            for _ in range(BATCH):
                _commit(connection, left)

        yield Ways(one_by_one, lambda: _commit(connection, left, count=BATCH), calls=BATCH)


@asynccontextmanager
async def _indexes(folder: Path, rows: int) -> AsyncIterator[Ways]:
    with _opened(folder / "off.db") as off, _opened(folder / "on.db") as on:
        for connection in (off, on):
            _add_fills(connection, rows)
        off.execute("DROP INDEX kalshi_trades_status_time")
        yield Ways(lambda: off.execute(STATUS_TIME).fetchall(), lambda: on.execute(STATUS_TIME).fetchall())


def _add_fills(connection: sqlite3.Connection, rows: int) -> None:
    status = ("open", "settled", "settled", "settled")
    fills = ((f"{n}", n, f"M{n % 500}", "yes", 100, 500_000, 0, 1, status[n % len(status)], 0) for n in range(rows))
    with connection:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO kalshi_trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", fills)
    connection.execute("ANALYZE")


@asynccontextmanager
async def _minute_index(folder: Path, rows: int) -> AsyncIterator[Ways]:
    with _opened(folder / "off.db") as off, _opened(folder / "on.db") as on:
        for connection in (off, on):
            _commit(connection, made_up_snapshots(), count=rows)
        on.execute("CREATE INDEX minutes ON pnl_snapshots (timestamp / 60000 DESC)")
        for connection in (off, on):
            connection.execute("ANALYZE")
        yield Ways(lambda: off.execute(LAST_MINUTES).fetchall(), lambda: on.execute(LAST_MINUTES).fetchall())


@asynccontextmanager
async def _local_cache(folder: Path, rows: int) -> AsyncIterator[Ways]:
    async with Cache(folder / "cache", ttl_s=3600) as cache:
        with _opened(folder / "pnl.db") as connection:
            _commit(connection, made_up_snapshots(), count=rows)
            query = "SELECT * FROM pnl_snapshots WHERE timestamp = ?"
            row = connection.execute("SELECT * FROM pnl_snapshots ORDER BY timestamp DESC LIMIT 1").fetchone()
            key = minute_key(row[0])
            cache.put(key, json.dumps(row).encode(), kept_s(key))

            def repeat(look: Callable[[], object]) -> None:
                for _ in range(LOOKUPS):
                    look()

            def ask() -> object:
                return connection.execute(query, row[:1]).fetchone()

            yield Ways(lambda: repeat(ask), lambda: repeat(lambda: cache.peek(key)), calls=LOOKUPS)


# --- the sources


class Away(Transport):
    """Every answer takes as long as from a server that is elsewhere."""

    async def get(self, *where: Any, **options: Any) -> Any:
        """As it comes, later."""
        await asyncio.sleep(AWAY_S)
        return await super().get(*where, **options)


@asynccontextmanager
async def _simulated() -> AsyncIterator[Simulator]:
    async with Simulator(LivingMarket(days=DAYS), key_type="ed25519", limited=False) as simulator:
        yield simulator


@asynccontextmanager
async def _polled(transport: Transport) -> AsyncIterator[PnLModel]:
    """A model that has read everything once."""
    async with _simulated() as simulator, transport:
        model = PnLModel().read_from(*open_sources(demo_settings(load_settings(), simulator), transport))
        await model.poll()
        await asyncio.sleep(REFILL_S)
        yield model


@asynccontextmanager
async def _parallel(transport: Transport) -> AsyncIterator[Ways]:
    async with _polled(transport) as model:

        async def one_after_the_other() -> None:
            for name in model.sources:
                await model.pull(name)

        yield Ways(one_after_the_other, model.pull_all, rest_s=REFILL_S)


def _parallel_calls(_folder: Path, _rows: int) -> AbstractAsyncContextManager[Ways]:
    return _parallel(Away())


def _parallel_calls_on_loopback(_folder: Path, _rows: int) -> AbstractAsyncContextManager[Ways]:
    return _parallel(Transport())


@asynccontextmanager
async def _connection_pooling(_folder: Path, _rows: int) -> AsyncIterator[Ways]:
    async with _simulated() as simulator, Transport() as pool:
        address = f"{simulator.anthropic_url}/simulator/requests"

        async def ask(transport: Transport) -> None:
            await transport.get(address, source="simulator", headers={})

        async def connect_each_time() -> None:
            for _ in range(REQUESTS):
                async with Transport() as once:
                    await ask(once)

        async def reuse() -> None:
            for _ in range(REQUESTS):
                await ask(pool)

        yield Ways(connect_each_time, reuse, calls=REQUESTS)


# --- the page


@asynccontextmanager
async def _delta(_folder: Path, _rows: int) -> AsyncIterator[Ways]:
    async with _polled(Transport()) as model:
        before = fields_of(model.put_together())
        await model.pull("kalshi")
        polled = model.put_together()
        after = fields_of(replace(polled, kalshi_unrealized=polled.kalshi_unrealized + CENT))
        yield Ways(lambda: _encoded(after), lambda: _encoded(changed(before, after)))


def _encoded(fields: Mapping[str, str]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


@asynccontextmanager
async def _memoisation(_folder: Path, _rows: int) -> AsyncIterator[Ways]:
    async with _polled(Transport()) as model:
        fills = model.ledger.fills()

        def fold_anew() -> None:
            ledger = Ledger()
            ledger.add(fills)
            ledger.totals(model.marks)

        yield Ways(fold_anew, lambda: model.ledger.totals(model.marks))


WINS = (
    Win("wal", "3x faster writes", 3, "rollback journal → WAL, a row per commit", _wal),
    Win("indexes", "10-100x faster queries", 10, "no index → status and time, the last 50 open fills", _indexes),
    Win(
        "minute_index", "10-100x faster queries", 10, "no index → timestamp / 60000, the last 5 minutes", _minute_index
    ),
    Win("local_cache", "10x faster lookups", 10, "SQLite by key → memory (no Redis)", _local_cache),
    Win("batch_writes", "5x throughput", 5, f"a row per commit → {BATCH}", _batch_writes),
    Win(
        "parallel_calls",
        "3x faster aggregation",
        3,
        f"one source after the other → at once, {AWAY_S * 1000:.0f} ms away",
        _parallel_calls,
    ),
    Win(
        "parallel_calls_on_loopback",
        "3x faster aggregation",
        3,
        "the same, the APIs on this machine",
        _parallel_calls_on_loopback,
    ),
    Win("delta", "10x smaller payloads", 10, "all texts → those that a new price changed", _delta, unit="bytes"),
    Win("memoisation", "no needless renders", 1, "every market folded anew for a price → kept folded", _memoisation),
    Win("connection_pooling", "connections reused", 1, "a connection per request, no TLS → kept", _connection_pooling),
)
