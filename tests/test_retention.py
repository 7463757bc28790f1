"""Old snapshots move into files by the month: nothing is lost at any step, and readers see no difference."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from homes import Home
from hypothesis import given
from hypothesis import strategies as some

from pnl.errors import HistoryError, StoreError
from pnl.records import Reading, Snapshot, State
from pnl.store import Archived, Change
from pnl.store.retention import DAY_MS, due, month_of

FIRST = datetime(2026, 5, 31, 23, 50, tzinfo=UTC)
LAST = datetime(2026, 7, 1, 0, 10, tzinfo=UTC)
MAY, JUNE = "2026-05", "2026-06"


def snapshot(at, net):
    return Snapshot(
        taken_at=at,
        kalshi_realized=Decimal(net),
        kalshi_unrealized=Decimal("0.000001"),
        kalshi_fees=Decimal(0),
        billed_costs=Decimal(0),
        estimated_costs=Decimal(0),
        total_revenue=Decimal(0),
        trade_count=0,
        open_trade_count=0,
        settled_market_count=0,
        sources=(Reading("kalshi", State.FRESH, as_of=at),),
        missing=("a row",) if net % 2 else (),
    )


@pytest.fixture(params=["sqlite", "postgres"])
def home(request, tmp_path):
    return Home(tmp_path, None if request.param == "sqlite" else request.getfixturevalue("postgres"))


@asynccontextmanager
async def opened(home):
    async with home.store(synchronous="NORMAL") as store, home.history() as asked:
        yield store, asked


async def record(store):
    """Some snapshots about the ends of three months, not at whole seconds."""
    instants = [FIRST + timedelta(seconds=37.313 * n) for n in range(40)]
    instants += [LAST - timedelta(seconds=37.313 * n) for n in range(39, -1, -1)]
    changes = [Change(snapshot(at, n * (-1) ** n)) for n, at in enumerate(instants)]
    await asyncio.gather(*(asyncio.wrap_future(store.append(change)) for change in changes))
    return instants


async def archive(asked, name):
    month = month_of(round(datetime.fromisoformat(f"{name}-01T00:00+00:00").timestamp() * 1000))
    written = await asked.archive(name, start_ms=month.start_ms, until_ms=month.until_ms)
    return Archived(name, month.until_ms, **written)


async def all_of(asked, instants):
    """Everything that a reader can see of the snapshots."""
    bars = [await asked.bars(bucket=bucket) for bucket in ("1s", "10s", "1m", "1d")]
    part = await asked.bars(FIRST + timedelta(minutes=5), LAST - timedelta(minutes=3), bucket="1s", column="kalshi_pnl")
    shown = [await asked.snapshot_at(at + timedelta(milliseconds=1), ("kalshi",)) for at in instants[::7]]
    early = await asked.snapshot_at(FIRST - timedelta(seconds=1), ("kalshi",))
    columns = ("start", "open", "high", "low", "close", "mean", "count")
    return [[getattr(each, name).tolist() for name in columns] for each in (*bars, part)], shown, early


def raw_count(home):
    return home.rows("SELECT count(*) FROM pnl_snapshots")[0][0]


async def test_readers_see_the_same_before_between_and_behind_every_step(home):
    """A file that is not noted yet is not read; rows that are noted as archived are not read twice."""
    async with opened(home) as (store, asked):
        instants = await record(store)
        whole = await all_of(asked, instants)
        assert len(whole[0][0][0]) == 80

        may = await archive(asked, MAY)
        assert await all_of(asked, instants) == whole
        await store.retire(may)
        assert await all_of(asked, instants) == whole
        assert raw_count(home) == 80 - may.rows
        await store.retire(await archive(asked, JUNE))
        assert await all_of(asked, instants) == whole
        assert 0 < raw_count(home) < 40

    async with opened(home) as (store, asked):  # the check at the start finds nothing wrong
        assert store.recorded.damage == ()
        assert await all_of(asked, instants) == whole


async def test_a_process_that_died_before_the_rows_were_deleted_leaves_no_row_twice(home):
    """They are deleted by the next one."""
    async with opened(home) as (store, asked):
        instants = await record(store)
        whole = await all_of(asked, instants)
        store.drop_archived = lambda: asyncio.sleep(0)  # as if it had died here
        await store.retire(await archive(asked, MAY))
        assert raw_count(home) == 80
        assert await all_of(asked, instants) == whole

    async with opened(home) as (store, asked):
        assert store.recorded.damage == ()
        await store.drop_archived()
        assert raw_count(home) < 80
        assert await all_of(asked, instants) == whole


async def test_a_file_that_does_not_hold_what_is_recorded_deletes_nothing(home):
    """Whatever happened to it, or to the store, in between."""
    async with opened(home) as (store, asked):
        instants = await record(store)
        whole = await all_of(asked, instants)
        may = await archive(asked, MAY)

        for wrong in (replace(may, rows=may.rows - 1), replace(may, net_micros=may.net_micros + 1)):
            with pytest.raises(StoreError, match="nothing is deleted"):
                await store.retire(wrong)

        assert raw_count(home) == 80
        assert await all_of(asked, instants) == whole


async def test_where_the_archive_cannot_be_written_the_rows_stay(tmp_path):
    """And it is said which file."""
    async with opened(Home(tmp_path)) as (store, asked):
        await record(store)
        (tmp_path / "archive").write_text("not a folder")

        with pytest.raises(HistoryError, match="archive"):
            await archive(asked, MAY)

        assert raw_count(Home(tmp_path)) == 80


async def test_what_is_archived_is_for_its_owner_alone(tmp_path):
    """As the rest of the record."""
    async with opened(Home(tmp_path)) as (store, asked):
        await record(store)
        may = await archive(asked, MAY)

    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "archive", tmp_path / may.file)] == [0o700, 0o600]
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["snapshots-2026-05.parquet"]


async def test_a_clock_that_went_back_into_the_archive_changes_no_older_minute(home):
    """To the bar of such a minute is added; the chain still holds at the next start."""
    async with opened(home) as (store, asked):
        await record(store)
        await store.retire(await archive(asked, MAY))
        before = await asked.bars(bucket="1m")
        await asyncio.wrap_future(store.append(Change(snapshot(FIRST + timedelta(seconds=1), 1000))))
        after = await asked.bars(bucket="1m")

        assert after.count.sum() == before.count.sum() + 1
        assert after.open[0] == before.open[0]
        assert after.high[0] == 1_000_000_001

    async with opened(home) as (store, asked):
        assert store.recorded.damage == ()


async def test_a_damaged_store_keeps_the_minutes_of_its_archive(tmp_path):
    """The raw rows of them are in files, so nothing of them can be read from the damaged one."""
    async with opened(Home(tmp_path)) as (store, asked):
        instants = await record(store)
        await store.retire(await archive(asked, MAY))
        whole = await all_of(asked, instants)
    with closing(sqlite3.connect(tmp_path / "pnl.db")) as breaker:
        breaker.execute("DROP INDEX kalshi_trades_ticker")
        breaker.execute("UPDATE chain SET net_micros = net_micros + 1")
        breaker.commit()

    async with opened(Home(tmp_path)) as (store, asked):
        assert "kept as" in store.recorded.damage[0]
        assert "none is lost" in store.recorded.damage[0]
        assert await all_of(asked, instants) == whole


@given(
    some.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=some.just(UTC)),  # noqa: DTZ001
    some.integers(0, 1500),
    some.integers(3, 400),
)
def test_only_months_that_are_over_for_long_enough_are_due(first, age_days, keep_days):
    """Whole months of UTC, one after the other, from the oldest row's."""
    first_ms = round(first.timestamp() * 1000)
    now_ms = first_ms + age_days * DAY_MS

    months = list(due(first_ms, now_ms, keep_days))

    assert all(month.until_ms + keep_days * DAY_MS <= now_ms for month in months)
    assert all(earlier.until_ms == later.start_ms for earlier, later in pairwise(months))
    if months:
        assert months[0].start_ms <= first_ms < months[0].until_ms
    following = month_of(months[-1].until_ms if months else first_ms)
    assert following.until_ms + keep_days * DAY_MS > now_ms
    assert list(due(None, now_ms, keep_days)) == []
