"""What is asked of the past is what plain Python makes of the rows that were written, to the last micro-dollar."""

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import (
    CALENDAR,
    KIND,
    LENGTHS_MS,
    aggregated,
    as_rows,
    at_ms,
    figures,
    instant,
    record,
    recorded,
    snapshot,
    writing,
)

from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.records import MONEY_FIELDS
from pnl.rows import to_ms
from pnl.schema import MIGRATIONS
from pnl.store import Change, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for many questions

NEW_YORK, KOLKATA = "America/New_York", "Asia/Kolkata"
BUCKETS = (*LENGTHS_MS, *CALENDAR)
FIRST_MS = to_ms(instant("2026-02-26 21:17:42.345"))
LAST_MS = to_ms(instant("2026-11-04 13:59:59.999"))


def a_long_time():
    """Snapshots from February to November: close together in the nights of both changes, else far apart."""
    random = Random(5)  # noqa: S311 - no secret
    nights = [(to_ms(instant(f"{night} 22:00")), 6 * 3_600_000) for night in ("2026-03-07", "2026-10-31")]
    instants = {FIRST_MS, LAST_MS}
    for start, length in [*nights, (FIRST_MS, LAST_MS - FIRST_MS)]:
        instants |= {start + random.randrange(length) for _ in range(900)}
    hour = to_ms(instant("2026-06-15 10:00"))
    instants |= {hour + random.randrange(3_700_000) for _ in range(400)}  # more than one in a second, here and there
    instants |= {hour - 1, hour, hour + 59_999, hour + 60_000, LAST_MS - 1, LAST_MS - 60_000}
    return [(ms, *(random.randrange(-(10**9), 10**9) for _ in range(6))) for ms in sorted(instants)]


MADE = a_long_time()
POINTS = [figures(*each) for each in MADE]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def long_time(tmp_path_factory):
    """Give the file with what `MADE` holds."""
    return await recorded(tmp_path_factory.mktemp("long"), *[Change(snapshot(*each)) for each in MADE])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def histories(long_time):
    """Give that file's history by the time zone in which days begin."""
    async with (
        History(long_time, kind=KIND, zone=NEW_YORK, deadline_s=60) as new_york,
        History(long_time, kind=KIND, zone=KOLKATA, deadline_s=60) as kolkata,
    ):
        yield {NEW_YORK: new_york, KOLKATA: kolkata}


@pytest.mark.parametrize("zone", [NEW_YORK, KOLKATA])
@pytest.mark.parametrize("bucket", BUCKETS)
async def test_every_bucket_is_what_plain_python_makes_of_the_snapshots(histories, zone, bucket):
    """Open, high, low, close, mean rounded down and count, of every money column; an empty bucket has no bar."""
    for column in MONEY_FIELDS:
        bars = await histories[zone].bars(bucket=bucket, column=column)

        assert as_rows(bars) == aggregated(POINTS, column, bucket, ZoneInfo(zone))
        assert bars.bucket == bucket
        assert not bars.rebuilt.any()
        assert len(bars) == len(bars.start)


instants = st.one_of(
    st.integers(FIRST_MS - 10**8, LAST_MS + 10**8),
    st.sampled_from([ms for ms, _ in POINTS]),
    st.sampled_from([at + by for at in (FIRST_MS, LAST_MS, POINTS[500][0]) for by in (-60_000, -1, 1, 60_000)]),
    st.none(),
)


@given(st.data())
@settings(max_examples=120)
async def test_any_range_is_cut_exactly_where_it_begins_and_ends(histories, data):
    """Half-open, aligned to nothing: in minutes that count whole, below a minute to the millisecond."""
    zone = data.draw(st.sampled_from([NEW_YORK, KOLKATA]))
    bucket, column = data.draw(st.sampled_from(BUCKETS)), data.draw(st.sampled_from(MONEY_FIELDS))
    start, end = data.draw(instants), data.draw(instants)
    asked = [None if each is None else at_ms(each) for each in (start, end)]

    bars = await histories[zone].bars(*asked, bucket=bucket, column=column)

    assert as_rows(bars) == aggregated(POINTS, column, bucket, ZoneInfo(zone), start, end)


@given(instants, instants, st.integers(1, 400), st.sampled_from(MONEY_FIELDS))
@settings(max_examples=60)
async def test_a_plot_gets_no_more_bars_than_it_wants_and_each_is_right(histories, start, end, most, column):
    """The bucket is chosen and named; one that is coarse enough always exists but for months."""
    asked = [None if each is None else at_ms(each) for each in (start, end)]

    bars = await histories[NEW_YORK].bars(*asked, most=most, column=column)

    assert len(bars) <= most or bars.bucket == "1mo"
    assert as_rows(bars) == aggregated(POINTS, column, bars.bucket, ZoneInfo(NEW_YORK), start, end)


async def test_ranges_that_touch_share_no_snapshot_and_miss_none(histories):
    """The end of one is the start of the next."""
    cuts = [None, at_ms(POINTS[100][0]), at_ms(POINTS[700][0] + 1), at_ms(POINTS[1500][0]), None]

    for bucket in ("1s", "10s"):
        parts = [await histories[NEW_YORK].bars(*pair, bucket=bucket) for pair in pairwise(cuts)]

        assert sum(int(part.count.sum()) for part in parts) == len(POINTS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"bucket": "2m"}, "there is no bucket '2m'; choose one of 1s, "),
        ({"bucket": "1s; DROP TABLE minutes"}, "there is no bucket"),
        ({"column": "net"}, "there is no money column 'net'; choose one of net_pnl, "),
        ({"column": "net_pnl FROM minutes --"}, "there is no money column"),
        ({"column": "x" * 100_000}, "there is no money column 'x{40}'"),
    ],
)
async def test_what_is_no_bucket_and_no_column_is_refused_by_name(histories, asked, words):
    """Nothing of it reaches a statement, and the next question is answered."""
    with pytest.raises(HistoryError, match=words) as refused:
        await histories[NEW_YORK].bars(**asked)

    assert len(str(refused.value)) < 300
    assert len(await histories[NEW_YORK].bars(bucket="1mo")) == 10


async def test_an_unknown_breakdown_is_refused_by_name(histories):
    """The ones there are stand beside it."""
    with pytest.raises(HistoryError, match="no breakdown by 'colour'; choose one of source, kind, market, "):
        await histories[NEW_YORK].breakdown(by="colour")


def highs_and_falls(points, start, end):
    """Give the high-water mark, the last, and all falls of what each minute closed at, the slow way."""
    start, end = (None if each is None else at_ms(each) for each in (start, end))
    low, high = (None if each is None else to_ms(each) for each in (start, end))
    minutes = aggregated(points, "net_pnl", "1m", ZoneInfo("UTC"), low, high)
    if not minutes:
        return None, None, []
    line = [(minutes[0][0] - 60_000, minutes[0][1]), *((bar[0], bar[4]) for bar in minutes)]
    peak, falls, fall = line[0], [], None
    for ms, net in line[1:]:
        if net > peak[1]:
            if fall:
                falls.append((*fall, ms))
            peak, fall = (ms, net), None
        elif net < peak[1] and (fall is None or net < fall[2]):
            fall = (peak[1], peak[0], net, ms)
    falls += [(*fall, None)] if fall else []
    return peak, line[-1][1], falls


def told(drawdowns):
    return [
        (
            int(fall.high_usd.scaleb(6)), to_ms(fall.high_at), int(fall.low_usd.scaleb(6)), to_ms(fall.low_at),
            None if fall.recovered_at is None else to_ms(fall.recovered_at),
        )
        for fall in drawdowns.falls
    ]  # fmt: skip


async def check_drawdowns(history, points, start, end, most):
    asked = [None if each is None else at_ms(each) for each in (start, end)]
    found = await history.drawdowns(*asked, most=most)
    peak, last, falls = highs_and_falls(points, start, end)
    if peak is None:
        assert (found.high_usd, found.high_at, found.below_usd, found.falls) == (None, None, None, ())
        return
    assert (int(found.high_usd.scaleb(6)), to_ms(found.high_at)) == (peak[1], peak[0])
    assert int(found.below_usd.scaleb(6)) == peak[1] - last
    depths = sorted((fall[0] - fall[2] for fall in falls), reverse=True)[:most]
    assert [int(fall.depth_usd.scaleb(6)) for fall in found.falls] == depths
    assert set(told(found)) <= set(falls)


@given(instants, instants, st.integers(1, 8))
@settings(max_examples=60)
async def test_drawdowns_are_those_of_a_walk_along_the_line(histories, start, end, most):
    """Over any range; a fall lasts until its high is passed, and the range begins at its own first value."""
    await check_drawdowns(histories[NEW_YORK], POINTS, start, end, most)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_steps(tmp_path_factory):
    """Give points whose net is one of a few values, so that highs and lows come again, and their history."""
    random = Random(8)  # noqa: S311 - no secret
    made = [(ms, random.randrange(-3, 4)) for ms in sorted(random.sample(range(0, 400 * 60_000, 500), 700))]
    path = await recorded(tmp_path_factory.mktemp("steps"), *[Change(snapshot(*each)) for each in made])
    async with History(path, kind=KIND, zone=NEW_YORK, deadline_s=60) as history:
        yield [figures(*each) for each in made], history


@given(st.data())
@settings(max_examples=120)
async def test_a_high_that_comes_again_and_a_low_that_does_are_told_once(small_steps, data):
    """Short ranges of equal values: the high is the first of its value, the low too, and equal is not recovered."""
    points, history = small_steps
    start = data.draw(st.integers(0, 399)) * 60_000
    end = start + data.draw(st.integers(1, 40)) * 60_000

    await check_drawdowns(history, points, start, end, most=5)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def asking(path, **changes):
    return History(path, **{"kind": KIND, "zone": NEW_YORK, "deadline_s": 60} | changes)


async def check_bars(history, points, random):
    """Compare a few buckets and columns of all that is recorded."""
    points = sorted(points.items())
    for column in random.sample(MONEY_FIELDS, 1):
        for bucket in random.sample(BUCKETS, 3):
            bars = await history.bars(bucket=bucket, column=column)
            assert as_rows(bars) == aggregated(points, column, bucket, ZoneInfo(NEW_YORK))


async def test_what_is_on_disk_is_in_the_next_answer(folder):
    """Whatever the clock does: it goes on by seconds, by hours, by days, and now and then back."""
    random = Random(11)  # noqa: S311 - no secret
    now, points = FIRST_MS, {}
    async with writing(folder) as store, asking(store.path) as history:
        for _ in range(50):
            changes = []
            for _ in range(random.randrange(1, 4)):
                step = random.choice([700, 700, 20_000, 61_000, 1_900_000, 5_000_000, 90_000_000, -45_000, -7_200_000])
                now = max(FIRST_MS + 1, now + step) if points else now
                made = (now, *(random.randrange(-(10**7), 10**7) for _ in range(6)))
                points |= dict([figures(*made)])
                changes.append(Change(snapshot(*made)))
            await record(store, *changes)

            await check_bars(history, points, random)


async def test_a_snapshot_before_the_first_moves_the_beginning(folder):
    """The clock went back behind all that is recorded: those minutes are part of the past as any others."""
    points = dict([figures(FIRST_MS, 5), figures(FIRST_MS - 10_000_000, 3)])
    async with writing(folder) as store, asking(store.path) as history:
        await record(store, Change(snapshot(FIRST_MS, 5)))
        await history.bars()

        await record(store, Change(snapshot(FIRST_MS - 10_000_000, 3)))

        for bucket in BUCKETS:
            expected = aggregated(sorted(points.items()), "net_pnl", bucket, ZoneInfo(NEW_YORK))
            assert as_rows(await history.bars(bucket=bucket)) == expected


async def test_a_row_that_was_written_anew_with_the_same_sum_is_seen(folder):
    """The clock went back to the same millisecond: the total is as before, what it is made of is not."""
    async with writing(folder) as store, asking(store.path) as history:
        hours = [FIRST_MS + hour * 3_600_000 for hour in range(3)]
        await record(store, *[Change(snapshot(ms, 5)) for ms in hours])
        await history.bars()

        await record(store, Change(snapshot(hours[1], 8, 0, 3)))

        bars = await history.bars(column="kalshi_fees", bucket="1h")
        assert bars.close.tolist() == [0, 3, 0]


async def test_an_empty_store_has_an_empty_past(folder):
    """No bar, nothing booked, no fall and no snapshot; the first snapshot is seen."""
    async with writing(folder) as store, asking(store.path) as history:
        for asked in ({}, {"bucket": "1s"}, {"bucket": "1mo"}, {"start": at_ms(5), "end": at_ms(9)}):
            bars = await history.bars(**asked)
            assert (len(bars), bars.bucket) == (0, asked.get("bucket", "1m"))
        booked = await history.booked()
        assert (booked.net_usd, booked.open_before_usd, booked.open_change_usd) == (0, None, None)
        assert await history.breakdown(by="day") == ()
        assert (await history.drawdowns()).falls == ()
        assert await history.snapshot_at(at_ms(LAST_MS), ()) is None
        assert not (await history.ledger_at(at_ms(LAST_MS))).books

        await record(store, Change(snapshot(FIRST_MS, -7)))

        assert (await history.bars(bucket="1s")).close.tolist() == [-7]
        assert (await history.snapshot_at(at_ms(FIRST_MS), ())).net_pnl == snapshot(0, -7).net_pnl


async def test_a_folder_in_which_nothing_is_recorded_says_so_until_something_is(folder):
    """With what to do; asking makes no file."""
    async with asking(folder / "pnl.db") as history:
        for _ in range(2):
            with pytest.raises(HistoryError, match=r"nothing is recorded in .*data yet; start the dashboard, or run"):
                await history.bars()
        assert not folder.exists()

        await recorded(folder, Change(snapshot(FIRST_MS, 4)))

        assert (await history.bars()).close.tolist() == [4]
        (folder / "pnl.db").rename(folder / "moved.db")
        with pytest.raises(HistoryError, match="nothing is recorded"):
            await history.bars()


async def test_numbers_of_the_other_kind_are_refused(folder):
    """Simulated ones are never shown for real ones; also when they take their place while the program runs."""
    simulated, real = folder / "pnl.db", folder / "real.db"
    await recorded(folder, Change(snapshot(FIRST_MS, 1)))
    with closing(sqlite3.connect(simulated)) as source, closing(sqlite3.connect(real)) as target:
        source.backup(target)
        target.execute("UPDATE meta SET value = 'real' WHERE key = 'kind'")
        target.execute("UPDATE pnl_1m SET net_pnl_close = 99")
        target.execute("UPDATE chain SET commits = 99")
        target.commit()
    async with asking(simulated) as history:
        assert (await history.bars()).close.tolist() == [1]

        simulated.rename(folder / "aside.db")
        real.rename(simulated)
        for _ in range(2):
            with pytest.raises(HistoryError, match="data holds real numbers, and simulated ones are asked for"):
                await history.bars()

        simulated.rename(real)
        (folder / "aside.db").rename(simulated)
        assert (await history.bars()).close.tolist() == [1]


@pytest.mark.parametrize(("age_s", "is_looked_into"), [(-3600, True), (3600, False)])
async def test_only_files_that_were_written_lately_are_looked_into_once_more(folder, age_s, is_looked_into):
    """A commit may leave number, size and time of the files as they were when the last question was asked.

    What is lately lies in the future here, or the test would have to be quick.
    """
    path = await recorded(folder, Change(snapshot(FIRST_MS, 1)))
    at_s = time.time() - age_s
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        written_at(writer, path, at_s)
        async with asking(path) as history:
            assert (await history.bars(bucket="1m")).close.tolist() == [1]

            writer.execute("UPDATE pnl_1m SET net_pnl_close = 2")
            writer.execute("UPDATE chain SET commits = commits + 1")
            written_at(writer, path, at_s)

            assert (await history.bars(bucket="1m")).close.tolist() == [2 if is_looked_into else 1]


def written_at(writer, path, at_s):
    """Let both files look as if they had been written at an instant."""
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in (path, path.with_name(f"{path.name}-wal")):
        os.utime(file, (at_s, at_s))


async def test_a_folder_that_was_deleted_and_made_anew_is_another_one(folder):
    """Its kind is looked at again: simulated numbers are gone, real ones are not shown in their place."""
    path = await recorded(folder, Change(snapshot(FIRST_MS, 1)))
    async with asking(path) as history:
        assert (await history.bars()).close.tolist() == [1]

        for file in [*folder.iterdir()]:
            file.unlink()
        async with Store(folder, kind="real") as store:
            await record(store, Change(snapshot(FIRST_MS, 99)))

        with pytest.raises(HistoryError, match="holds real numbers"):
            await history.bars()


@pytest.mark.parametrize("by", [-1, 1])
async def test_a_file_of_another_version_is_refused(folder, by):
    """It says which version it is of, and what to do."""
    path = await recorded(folder, Change(snapshot(FIRST_MS, 1)))
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + by}")

    async with asking(path) as history:
        with pytest.raises(
            HistoryError,
            match=rf"of another version of pnl \(schema {len(MIGRATIONS) + by}, this one reads {len(MIGRATIONS)}\); ",
        ):
            await history.bars()


async def test_a_file_that_is_no_database_is_an_error_and_not_the_end(folder):
    """Once a good one is there, it is read."""
    folder.mkdir()
    path = folder / "pnl.db"
    path.write_bytes(b"no database at all" * 1000)
    async with asking(path) as history:
        with pytest.raises(HistoryError, match="cannot be read"):
            await history.bars()
        pid = history.pid

        path.unlink()
        await recorded(folder, Change(snapshot(FIRST_MS, 4)))

        assert (await history.bars()).close.tolist() == [4]
        assert history.pid == pid


async def test_a_store_in_the_place_of_another_is_read_from_its_beginning(folder, tmp_path):
    """A damaged file is set aside while the program runs: nothing of it stays in the answers."""
    path = await recorded(folder, Change(snapshot(FIRST_MS, 1)), Change(snapshot(FIRST_MS + 90_000_000, 2)))
    later = [(FIRST_MS + 5_000_000 + n * 1_000_000, n) for n in range(6)]
    earlier = [(FIRST_MS - 50_000_000, -1)]
    for number, made in enumerate((later, earlier)):
        await recorded(tmp_path / f"{number}", *[Change(snapshot(*each)) for each in made])
    async with asking(path) as history:
        assert len(await history.bars(bucket="1d")) == 2

        for number, made in enumerate((later, earlier)):
            path.rename(tmp_path / f"aside-{number}.db")
            (tmp_path / f"{number}" / "pnl.db").rename(path)
            points = [figures(*each) for each in made]
            for bucket in BUCKETS:
                bars = await history.bars(bucket=bucket)
                assert as_rows(bars) == aggregated(points, "net_pnl", bucket, ZoneInfo(NEW_YORK))


async def test_huge_figures_and_their_sums_are_exact(folder):
    """Nine trillion dollars, a thousand times: no sum overflows, no mean is off by one."""
    huge = 9_000_000_000_000_000
    made = [(FIRST_MS + n * 1000, huge - n if n % 2 else n - huge) for n in range(1000)]
    path = await recorded(folder, *[Change(snapshot(*each)) for each in made])

    async with asking(path) as history:
        for bucket in ("1s", "1m", "1h", "1mo"):
            points = [figures(*each) for each in made]
            assert as_rows(await history.bars(bucket=bucket)) == aggregated(
                points, "net_pnl", bucket, ZoneInfo(NEW_YORK)
            )


async def test_many_questions_at_once_get_each_their_own_answer(histories):
    """They wait for their turn, and no answer is taken for another's."""
    asked = [(bucket, column) for bucket in ("1h", "1d", "1mo") for column in MONEY_FIELDS]

    found = await asyncio.gather(*(histories[NEW_YORK].bars(bucket=b, column=c) for b, c in asked))

    for (bucket, column), bars in zip(asked, found, strict=True):
        assert as_rows(bars) == aggregated(POINTS, column, bucket, ZoneInfo(NEW_YORK))
