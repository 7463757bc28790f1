"""What is recorded is on disk, exact, once and whole: also when the disk fills or the clock goes back."""

import asyncio
import json
import os
import resource
import signal
import sqlite3
import stat
import sys
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from homes import Home
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pnl.config import private_folder
from pnl.errors import StoreError, StoreHeld
from pnl.records import (
    MONEY_FIELDS,
    Batch,
    Cost,
    CostDay,
    Deal,
    Fill,
    Known,
    Mark,
    Reading,
    Result,
    Settlement,
    Snapshot,
    State,
)
from pnl.schema import MIGRATIONS
from pnl.store import Change, Store
from pnl.store.damage import Seal
from pnl.store.file import _open
from pnl.store.tables import load
from pnl.store.writer import _at_most

NOW = datetime(2026, 11, 22, 9, 30, 0, 250_000, tzinfo=UTC)
MICRO = Decimal("1e-6")
PRAGMAS = ("journal_mode", "synchronous", "mmap_size", "busy_timeout")


def fill(fill_id="f-1", ticker="KX-A", **changes):
    at = datetime(2026, 6, 11, 6, 29, 30, 164_956, tzinfo=UTC)
    count, price, fee = Decimal("2.50"), Decimal("0.5205"), Decimal("0.017501")
    return replace(Fill(fill_id, ticker, "yes", count, price, fee, is_taker=True, filled_at=at), **changes)


def settlement(ticker="KX-A"):
    amounts = map(Decimal, ("39", "16.26", "17.01", "14.450001", "22", "0.123456"))
    return Settlement(ticker, "KX", Result.SCALAR, *amounts, Decimal("0.37"), NOW)


def cost_day(*usd, day=date(2026, 11, 21), is_estimate=False):
    lines = (Cost("anthropic", day, f"line {n}", Decimal(each), is_estimate) for n, each in enumerate(usd))
    return CostDay("anthropic", day, tuple(lines), is_estimate=is_estimate)


def deal(deal_id="d-1", origin="deals:x", status="paid"):
    return Deal(origin, deal_id, Decimal("1200.5"), status, date(2026, 11, 1), NOW, "<b>", Decimal("3.2"))


def snapshot(ms=0, micros=0, **changes):
    """A snapshot so many milliseconds after a whole minute; the figures all differ from each other."""
    money = [Decimal(micros * factor + factor) * MICRO for factor in (1, -2, 3, 5, 7, 11)]
    at = NOW.replace(second=0, microsecond=0) + timedelta(milliseconds=ms)
    sources = (Reading("kalshi", State.FRESH, as_of=at), Reading("john", State.NOT_CONFIGURED))
    return Snapshot(at, *money, 3, 2, 1, sources=sources, **changes)


EVERYTHING = Batch(
    fills=(fill(), fill("f-2", "KX-B", side="no", is_taker=False)),
    settlements=(settlement(), replace(settlement("KX-C"), value_usd=None, result=Result.VOID)),
    marks=(Mark("KX-B", Decimal("0.601"), Decimal("0.62"), NOW, "Ω <script>"),),
    cost_days=(cost_day("1.2378912", "0.0000001"), cost_day("3.8", day=date(2026, 11, 22), is_estimate=True)),
    deals=(deal(), deal("d-2", "csv:y", "refunded")),
    cursors={"fills": "2026-11-22T09:30:00+00:00"},
)


@pytest.fixture(params=["sqlite", "postgres"])
def home(request, folder):
    return Home(folder, None if request.param == "sqlite" else request.getfixturevalue("postgres"))


@pytest.fixture
async def store(home):
    async with home.store() as store:
        yield store


@pytest.fixture
async def file_store(folder):
    async with Home(folder).store() as store:
        yield store


async def record(store, *changes):
    """Append changes and wait until they are on disk."""
    await asyncio.gather(*(asyncio.wrap_future(store.append(change)) for change in changes))


async def recorded(folder):
    """What the next start finds in a folder."""
    return await Home(folder).recorded()


def rows(store, query):
    return store.home.rows(query)


async def test_every_table_and_index_is_there(store):
    """The names are promised: a person opens the file or the database with the tools of their choice."""
    tables = "pnl_snapshots pnl_1m kalshi_trades kalshi_settlements kalshi_marks anthropic_costs john_revenue"
    assert {*tables.split(), "source_state", "meta"} <= set(store.home.columns)
    assert store.home.indexes == {
        "kalshi_trades_status_time",
        "kalshi_trades_ticker",
        "anthropic_costs_month",
        "anthropic_costs_day",
        "john_revenue_closed",
        "superseded_when",
    }


async def test_both_places_have_the_same_tables_and_columns(folder, postgres):
    """What reads one reads the other; only the number of a row is a column of its own in PostgreSQL."""
    file, database = Home(folder), Home(folder, postgres)
    for home in (file, database):
        await home.recorded()

    assert database.columns == file.columns | {"superseded": ["rowid", *file.columns["superseded"]]}


@pytest.mark.parametrize(
    ("index", "query"),
    [
        ("kalshi_trades_status_time", "SELECT * FROM kalshi_trades WHERE status = 'open' ORDER BY timestamp DESC"),
        ("anthropic_costs_month", "SELECT sum(amount_micros) FROM anthropic_costs WHERE month = '2026-11'"),
        ("john_revenue_closed", "SELECT * FROM john_revenue ORDER BY closed_date DESC LIMIT 10"),
        ("PRIMARY KEY", "SELECT * FROM pnl_snapshots WHERE timestamp BETWEEN 1 AND 2 ORDER BY timestamp"),
    ],
)
async def test_the_usual_questions_are_answered_by_an_index(file_store, index, query):
    """No scan and no sort over the whole table."""
    plan = " ".join(row[3] for row in rows(file_store, f"EXPLAIN QUERY PLAN {query}"))

    assert index in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(("setting", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_durability_is_full_unless_it_is_set(folder, setting, level):
    """WAL with FULL lost nothing in 500 simulated power cuts; a memory map would end the process on a cut file."""
    store = Store(private_folder(folder), kind="real", **({} if setting == "FULL" else {"synchronous": setting}))

    with Seal(folder / "pnl.seal") as beside:
        connection, _ = _open(store.path, "real", store._place._synchronous, beside)

    with closing(connection):
        pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    assert pragmas == {"journal_mode": "wal", "synchronous": level, "mmap_size": 0, "busy_timeout": 5000}


async def test_what_is_written_is_loaded_back_equal(store):
    """Every kind of record, to the microsecond and to seven decimals of a bill."""
    await record(store, Change(snapshot(), "kalshi", EVERYTHING, NOW), Change(origin="john"))
    await asyncio.to_thread(store.close)

    found = await store.home.recorded()

    assert set(found.fills) == set(EVERYTHING.fills)
    assert set(found.settlements) == set(EVERYTHING.settlements)
    assert found.marks == EVERYTHING.marks
    assert found.cost_days == EVERYTHING.cost_days
    assert sorted(found.deals, key=lambda deal: deal.deal_id) == list(EVERYTHING.deals)
    assert found.sources == {"kalshi": (Known(EVERYTHING.cursors), NOW), "john": (Known(), None)}


def decimals(places, least=0, most=10**9):
    return st.decimals(least, most, places=places, allow_nan=False)


instants = st.integers(0, 7 * 10**15).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
money = decimals(6, -(10**9))
any_fill = st.builds(
    Fill, texts, texts, st.sampled_from(["yes", "no"]), decimals(2), decimals(6, 0, 1), money, st.booleans(), instants
)
any_settlement = st.builds(
    *(Settlement, texts, texts, st.sampled_from(Result), decimals(2), money, decimals(2), money, money, money),
    *(st.none() | money, instants),
)
any_mark = st.builds(Mark, texts, decimals(6, 0, 1), decimals(6, 0, 1), instants, texts, closes_at=st.none() | instants)
any_deal = st.builds(
    Deal, texts, texts, money, st.sampled_from(["won", "refunded"]), st.dates(), instants, texts, money
)
any_cost = decimals(20, -(10**6), 10**6)


any_batch = st.builds(
    Batch,
    fills=st.lists(any_fill, max_size=3, unique_by=lambda fill: fill.fill_id).map(tuple),
    settlements=st.lists(any_settlement, max_size=3, unique_by=lambda row: row.ticker).map(tuple),
    marks=st.lists(any_mark, max_size=3, unique_by=lambda mark: mark.ticker).map(tuple),
    cost_days=st.lists(any_cost, min_size=1, max_size=3).map(lambda usd: (cost_day(*usd),)),
    deals=st.lists(any_deal, max_size=3, unique_by=lambda deal: (deal.origin, deal.deal_id)).map(tuple),
)
RECORDS = ("fills", "settlements", "marks", "cost_days", "deals")


@given(any_batch)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_record_is_loaded_back_equal(tmp_path_factory, batch):
    """Whatever a row may hold, the file gives it back to the last digit."""
    home = Home(tmp_path_factory.mktemp("any"))

    async def write_and_read():
        async with home.store() as store:
            await record(store, Change(origin="any", batch=batch))
        return await home.recorded()

    found = asyncio.run(write_and_read())

    assert all(set(getattr(found, kind)) == set(getattr(batch, kind)) for kind in RECORDS)


async def test_any_record_is_loaded_back_equal_by_postgres(folder, postgres):
    """The same, one after the other into one database, where a later one takes the place of those with its key."""
    home, loop = Home(folder, postgres), asyncio.get_running_loop()
    async with home.store() as store:

        async def write_and_read(batch):
            await record(store, Change(origin="any", batch=batch))
            return await asyncio.to_thread(store._place.look, load)

        @given(any_batch)
        @settings(max_examples=25)
        def is_there(batch):
            found = asyncio.run_coroutine_threadsafe(write_and_read(batch), loop).result()
            assert all(set(getattr(found, kind)) >= set(getattr(batch, kind)) for kind in RECORDS)

        await asyncio.to_thread(is_there)


def contents(store):
    """Every row of every table, but for the time at which a row arrived."""
    columns = {t: [name for name in names if name != "received_ms"] for t, names in store.home.columns.items()}
    return {table: sorted(rows(store, f"SELECT {', '.join(names)} FROM {table}")) for table, names in columns.items()}


async def test_the_same_records_twice_change_nothing(store):
    """A poll overlaps the one before, and a sync may be repeated."""
    change = Change(snapshot(), "kalshi", EVERYTHING, NOW)
    await record(store, change)
    before = contents(store)

    await record(store, change)

    after = contents(store)
    assert after.pop("chain") == [(1, 2, *before.pop("chain")[0][2:])]  # one more commit, of nothing new
    assert after == before


async def test_a_fill_is_open_until_its_market_settles(store):
    """Whichever of the two comes first."""
    status = "SELECT fill_id, status FROM kalshi_trades ORDER BY 1"

    await record(store, Change(origin="kalshi", batch=Batch(fills=(fill(), fill("f-2", "KX-B")))))
    assert rows(store, status) == [("f-1", "open"), ("f-2", "open")]

    await record(store, Change(origin="kalshi", batch=Batch(settlements=(settlement(),))))
    assert rows(store, status) == [("f-1", "settled"), ("f-2", "open")]

    await record(store, Change(origin="kalshi", batch=Batch(fills=(fill("f-3"),))))
    assert rows(store, status) == [("f-1", "settled"), ("f-2", "open"), ("f-3", "settled")]


async def test_a_bill_replaces_all_lines_of_the_estimate(store):
    """A day is replaced whole: no line of what was guessed stays beside the bill."""
    await record(store, Change(batch=Batch(cost_days=(cost_day("1", "2", "3", is_estimate=True),))))
    await record(store, Change(batch=Batch(cost_days=(cost_day("4"),))))
    await asyncio.to_thread(store.close)

    assert (await store.home.recorded()).cost_days == (cost_day("4"),)


async def test_a_whole_list_of_deals_replaces_that_of_its_origin(store):
    """A line that was deleted from the file is gone from the record, and other origins keep theirs."""
    await record(store, Change(origin="csv:y", batch=Batch(deals=(deal(), deal("d-2", "csv:y"), deal("d-3", "csv:y")))))
    await record(store, Change(origin="csv:y", batch=Batch(deals=(deal("d-3", "csv:y"),), holds_all_deals=True)))
    await asyncio.to_thread(store.close)

    assert {deal.deal_id for deal in (await store.home.recorded()).deals} == {"d-1", "d-3"}


async def test_a_failed_poll_keeps_the_time_of_the_last_good_one(store):
    """The age of what is shown after a restart is the age of the last answer."""
    await record(
        store, Change(origin="kalshi", as_of=NOW), Change(origin="kalshi", batch=Batch(cursors={"fills": "x"}))
    )
    await asyncio.to_thread(store.close)

    assert (await store.home.recorded()).sources == {"kalshi": (Known({"fills": "x"}), NOW)}


def aggregated(store):
    """The minute bars as plain SQL makes them from the snapshots."""
    parts = []
    for name in MONEY_FIELDS:
        column = f"{name}_micros"
        of_minute = "FROM pnl_snapshots AS other WHERE other.timestamp / 60000 = s.minute"
        first = f"(SELECT {column} {of_minute} ORDER BY other.timestamp LIMIT 1)"
        last = f"(SELECT {column} {of_minute} ORDER BY other.timestamp DESC LIMIT 1)"
        parts += [first, f"max({column})", f"min({column})", last, f"sum({column})"]
    return rows(
        store,
        f"SELECT s.minute, count(*), {', '.join(parts)} "
        "FROM (SELECT *, timestamp / 60000 AS minute FROM pnl_snapshots) AS s GROUP BY s.minute ORDER BY 1",
    )


@pytest.mark.parametrize(
    "batches",
    [
        [[0, 100, 59_999], [60_000, 61_000], [61_001, 120_000, 240_000]],
        [[0, 60_000, 120_000], [30_000], [30_001, 29_000, 130_000]],  # the clock went back, then on
        [[5_000], [5_000], [4_000, 5_000]],  # the same millisecond again: the later one stands
        [[59_999, 60_000, 59_998]],
    ],
)
async def test_minute_bars_are_what_plain_sql_makes_of_the_snapshots(store, batches):
    """Open, high, low, close, sum and count of every money column, over several commits and with any clock."""
    figures = iter([5, -7, 3, 11, -2, 8, 1, 13, -4, 6])

    for batch in batches:
        await record(store, *[Change(snapshot(ms, next(figures))) for ms in batch])

    assert rows(store, "SELECT * FROM pnl_1m ORDER BY minute") == aggregated(store)
    assert rows(store, "SELECT count(*) FROM pnl_1m")[0][0] > 0


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(-(10**12), 10**12)), max_size=12), st.integers(1, 5))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_minute_bars_of_any_snapshots_in_any_order(tmp_path_factory, figures, size):
    """The rollup and the rows never tell two stories."""

    async def write():
        async with Home(tmp_path_factory.mktemp("bars")).store() as store:
            for start in range(0, len(figures), size):
                await record(store, *[Change(snapshot(*each)) for each in figures[start : start + size]])
            return rows(store, "SELECT * FROM pnl_1m ORDER BY minute"), aggregated(store)

    bars, from_rows = asyncio.run(write())

    assert bars == from_rows


async def test_the_last_snapshots_are_read_oldest_first(store):
    """Milliseconds and micro-dollars of one money column, while the writer goes on."""
    await record(store, *[Change(snapshot(ms, micros)) for ms, micros in ((0, 1), (500, 2), (1000, 3))])
    start = int(snapshot().taken_at.timestamp() * 1000)

    found = await store.snapshots(column="billed_costs", limit=2)

    assert found == [(start + 500, 15), (start + 1000, 20)]
    with pytest.raises(ValueError, match="'x; DROP TABLE meta' is no money column; there are net_pnl, "):
        await store.snapshots(column="x; DROP TABLE meta")


async def test_a_snapshot_row_says_how_far_each_source_can_be_believed(store):
    """Sums are of the parts beside them; a source that is not configured is left out."""
    stale = Reading("anthropic", State.STALE, as_of=snapshot().taken_at - timedelta(seconds=9))
    await record(store, Change(snapshot(missing=("a row",), ms=7)), Change(replace(snapshot(8), sources=(stale,))))
    columns = "net_pnl_micros, kalshi_pnl_micros, total_costs_micros, timestamp - as_of, complete, sources"
    start = int(snapshot().taken_at.timestamp() * 1000)

    found = rows(store, f"SELECT {columns} FROM pnl_snapshots ORDER BY timestamp")

    assert [row[:5] for row in found] == [(-5, -4, 12, 0, 0), (-5, -4, 12, 9008, 0)]
    assert [json.loads(row[5]) for row in found] == [
        {"kalshi": ["fresh", start + 7]},
        {"anthropic": ["stale", start - 9000]},
    ]


async def test_a_second_writer_is_refused_and_told_who_is_first(store):
    """Two writers would each roll up half the minutes."""
    who = f"the data(base| folder) .* is in use by process {os.getpid()}( on .*)?; stop it, or set PNL_"
    with pytest.raises(StoreHeld, match=who):
        async with store.home.store():
            pass

    await record(store, Change(snapshot()))
    assert len(await store.snapshots()) == 1


async def test_a_place_is_free_again_once_its_store_is_closed(home):
    """Also after a start that failed."""
    async with home.store(kind="real"):
        pass
    with pytest.raises(StoreError, match=r"holds real numbers, and the sources are simulated now; set PNL_\w+ to"):
        async with home.store():
            pass
    async with home.store(kind="real"):
        pass


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_a_file_of_a_newer_version_is_refused_and_left_untouched(folder, journal_mode):
    """Not a byte of it changes: the newer version must find what it wrote."""
    async with Store(folder, kind="simulated") as store:
        await record(store, Change(snapshot()))
    with closing(sqlite3.connect(store.path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        newer.execute(f"PRAGMA journal_mode = {journal_mode}")
    before = store.path.read_bytes()

    with pytest.raises(
        StoreError, match=r"written by a newer version of pnl \(schema \d+, this one knows \d+\); it was"
    ):
        await Home(folder).recorded()

    assert store.path.read_bytes() == before


async def test_a_folder_name_may_hold_any_letters(tmp_path):
    """Also the ones that mean something in an address."""
    folder = tmp_path / "100% mine? #1 & más"
    async with Store(folder, kind="simulated") as store:
        await record(store, Change(snapshot()))

        assert len(await store.snapshots()) == 1
    assert (folder / "pnl.db").exists()


@pytest.fixture
def full_disk():
    """A function that keeps every file of this process from growing past a size; None lets it go again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


async def test_what_a_full_disk_refuses_is_kept_and_written_later(file_store, full_disk):
    """The caller hears of it at once; with the next change after there is room, nothing is missing."""
    await record(file_store, Change(snapshot(0, 1)))
    full_disk(file_store.path.with_name("pnl.db-wal").stat().st_size)

    with pytest.raises(StoreError, match=r"pnl\.db cannot be written: .*; what waits is kept and written later"):
        await record(file_store, Change(snapshot(10, 2), "kalshi", EVERYTHING, NOW))
    with pytest.raises(StoreError):
        await record(file_store, Change(snapshot(20, 3)))
    assert len(await file_store.snapshots()) == 1

    full_disk(None)
    await record(file_store, Change(snapshot(30, 4)))

    assert [micros for _, micros in await file_store.snapshots(column="kalshi_realized")] == [2, 3, 4, 5]
    assert rows(file_store, "SELECT count(*) FROM kalshi_trades") == [(2,)]
    assert rows(file_store, "SELECT * FROM pnl_1m") == aggregated(file_store)


async def test_what_waits_when_the_store_is_closed_is_written_then(folder, full_disk):
    """Closing is the last chance, and it is used."""
    async with Home(folder).store() as store:
        await record(store, Change(snapshot(0)))
        full_disk(store.path.with_name("pnl.db-wal").stat().st_size)
        with pytest.raises(StoreError):
            await record(store, Change(snapshot(10)))
        full_disk(None)

    assert rows(store, "SELECT count(*) FROM pnl_snapshots") == [(2,)]


async def test_a_value_that_cannot_be_held_ends_in_an_error_and_not_in_silence(store):
    """The writer lives on: whoever waits for a commit hears of it."""
    for impossible in (fill(fee_usd=Decimal("1e15")), fill(fee_usd=Decimal("NaN")), fill(ticker="\ud800")):
        with pytest.raises(StoreError, match="cannot be written"):
            await record(store, Change(batch=Batch(fills=(impossible,))))


async def test_a_change_that_cannot_be_held_holds_up_no_other_and_comes_again(store):
    """Its source does not move on in the record, so that the next start reads it again."""
    bad = Batch(fills=(fill(fee_usd=Decimal("1e15")),), cursors={"fills": "beyond it"})
    with pytest.raises(StoreError, match="read again from there at the next start"):
        await record(store, Change(snapshot(0), "kalshi", bad, NOW))

    await record(store, Change(snapshot(10), "kalshi", EVERYTHING, NOW), Change(origin="john", as_of=NOW))
    await asyncio.to_thread(store.close)

    found = await store.home.recorded()
    assert set(found.fills) == set(EVERYTHING.fills)
    assert set(found.sources) == {"john"}
    assert len(await store.snapshots()) == 1


async def test_a_long_queue_lets_go_of_its_oldest_snapshots_and_of_no_record():
    """A disk that stays full must not fill the memory."""
    waiting = [(Change(snapshot(n), "kalshi" if n == 1 else ""), Future()) for n in range(5)]

    left = _at_most(waiting, 2)

    assert [(change.snapshot is not None, change.origin) for change, _ in left] == [
        (False, "kalshi"),
        (True, ""),
        (True, ""),
    ]


async def test_many_changes_at_once_are_one_commit(home):
    """Group commit: what arrives while one commit is made shares the next."""
    async with home.store(commit_ms=60_000, commit_rows=50) as store:
        await record(store, Change(snapshot(0)))
        later = [store.append(Change(snapshot(10 * n))) for n in range(1, 50)]
        assert not any(done.done() for done in later)

        await asyncio.wrap_future(store.append(Change(snapshot(600))))

        assert all(done.done() for done in later)


async def test_files_are_for_their_owner_alone(file_store, folder):
    """Mode 0700 for the folder, 0600 for what is in it, the write-ahead log included."""
    await record(file_store, Change(snapshot()))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert modes == dict.fromkeys(["pnl.db", "pnl.db-shm", "pnl.db-wal", "pnl.lock", "pnl.seal"], 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_closing_twice_is_closing_once(file_store, folder):
    """A signal and the end of a block may both do it; what was appended before is on disk."""
    done = file_store.append(Change(snapshot()))

    await asyncio.to_thread(file_store.close)
    await asyncio.to_thread(file_store.close)

    assert done.result() is None
    assert [path.name for path in folder.iterdir() if "wal" in path.name] == []
    assert rows(file_store, "SELECT count(*) FROM pnl_snapshots") == [(1,)]


WRITING = """
import asyncio, sys
from datetime import datetime, timedelta, UTC
from decimal import Decimal
from pathlib import Path
from pydantic import SecretStr
from pnl.records import Snapshot
from pnl.store import Change, Store

async def main():
    url = SecretStr(sys.argv[3]) if len(sys.argv) > 3 else None
    async with Store(Path(sys.argv[1]), kind="simulated", url=url, commit_ms=0) as store:
        at = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=int(sys.argv[2]))
        while True:
            taken_at = [at + timedelta(milliseconds=n) for n in range(3)]
            done = [store.append(Change(Snapshot(each, *[Decimal(1)] * 6, 0, 0, 0, ()))) for each in taken_at]
            await asyncio.gather(*map(asyncio.wrap_future, done))
            at += timedelta(milliseconds=3)
            print(int(at.timestamp() * 1000), flush=True)

asyncio.run(main())
"""


async def test_a_kill_loses_no_snapshot_that_was_acknowledged(home):
    """The future is done only once the rows are on disk; the place is free again, and the bars fit the rows."""
    arguments = [] if home.is_file else [home.url.get_secret_value()]
    for round_number in range(3):
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITING, str(home.folder), str(round_number), *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(20):
            await writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = (await writer.stdout.read()).split(b"\n")[-2:-1]
        await writer.wait()

        async with home.store() as store:
            newest = (await store.snapshots())[-1][0]
            assert newest >= int(acknowledged[0] if acknowledged else 0) - 1
            assert len(await store.snapshots()) >= 60 * (round_number + 1)
            assert rows(store, "SELECT * FROM pnl_1m ORDER BY minute") == aggregated(store)
