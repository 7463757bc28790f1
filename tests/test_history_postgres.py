"""The history of a database is that of a file: the same answers, and nothing of its password anywhere."""

import os
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from homes import ZONE, Home
from postgres import PASSWORD, QUOTED, server
from pydantic import SecretStr
from recording import Bookkeeper, a_business, aggregated, as_rows, at_ms, figures, record, snapshot
from test_history import BUCKETS, FIRST_MS, MADE, POINTS, check_bars, check_drawdowns
from test_store import EVERYTHING, NOW

from pnl.errors import HistoryError
from pnl.records import MONEY_FIELDS
from pnl.store import Change

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for many questions

SECRETS = (PASSWORD, QUOTED)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(tmp_path_factory, postgres):
    """Give the history of a database with what `MADE` holds."""
    home = Home(tmp_path_factory.mktemp("long"), postgres)
    async with home.store() as store:
        await record(store, *[Change(snapshot(*each)) for each in MADE])
    async with home.history() as history:
        yield history


@pytest.fixture
def home(tmp_path, postgres):
    return Home(tmp_path, postgres)


@pytest.mark.parametrize("bucket", BUCKETS)
async def test_every_bucket_is_what_plain_python_makes_of_the_snapshots(history, bucket):
    """Every column, from the store's minutes or from its snapshots one by one."""
    for column in MONEY_FIELDS:
        bars = await history.bars(bucket=bucket, column=column)

        assert as_rows(bars) == aggregated(POINTS, column, bucket, ZoneInfo(ZONE))


async def test_any_range_and_its_falls_are_those_of_plain_python(history):
    """Short ranges are asked of the database by its keys, long ones are read through DuckDB."""
    random = Random(4)  # noqa: S311 - no secret
    for _ in range(12):
        start, end = sorted(random.sample([ms for ms, _ in POINTS], 2))
        bucket, column = random.choice(BUCKETS), random.choice(MONEY_FIELDS)

        bars = await history.bars(at_ms(start), at_ms(end), bucket=bucket, column=column)

        assert as_rows(bars) == aggregated(POINTS, column, bucket, ZoneInfo(ZONE), start, end)
        await check_drawdowns(history, POINTS, start, end, 3)


async def test_what_is_committed_is_in_the_next_answer(home):
    """Whatever the clock does."""
    random = Random(11)  # noqa: S311 - no secret
    now, points = FIRST_MS, {}
    async with home.store() as store, home.history() as history:
        assert len(await history.bars()) == 0
        for _ in range(12):
            now = max(FIRST_MS + 1, now + random.choice([700, 61_000, 5_000_000, 90_000_000, -45_000, -7_200_000]))
            made = (now, *(random.randrange(-(10**7), 10**7) for _ in range(6)))
            points |= dict([figures(*made)])
            await record(store, Change(snapshot(*made)))

            await check_bars(history, points, random)


async def answers(home):
    """What the history says of a few corrected records."""
    books = Bookkeeper()
    async with home.store() as store, home.history() as history:
        await record(store, books.change(NOW, a_business()), Change(origin="kalshi", batch=EVERYTHING, as_of=NOW))
        ledger = await history.ledger(count=100)
        parts = [await history.breakdown(by=by) for by in ("source", "market", "item", "day", "deal")]
        shown = await history.snapshot_at(NOW, ("kalshi",))
        versions = [await history.record(row.kind, row.record) for row in ledger.rows]
        told = [[(version.table, version.values, version.until) for version in some] for some in versions]
        return ledger, parts, shown, told, await history.booked(), (await history.ledger_at(NOW)).books.keys()


async def test_a_file_and_a_database_answer_alike(tmp_path, postgres):
    """Rows, parts, what was shown and what is known of a record: to the last digit."""
    of_file, of_database = await answers(Home(tmp_path / "a")), await answers(Home(tmp_path / "b", postgres))

    assert of_file == of_database


async def test_a_query_of_ones_own_reads_and_nothing_else(home):
    """No other function of DuckDB's, no change, and no way to the password."""
    async with home.store() as store, home.history() as history:
        await record(store, Change(snapshot(FIRST_MS, 4)))
        assert (await history.sql("SELECT net_pnl_micros FROM pnl_snapshots")).rows == [(4,)]
        for query in ("SELECT * FROM postgres_query('store', 'SELECT 1')", "DELETE FROM pnl_snapshots"):
            with pytest.raises(HistoryError, match=r"cannot be used here|one SELECT"):
                await history.sql(query)
        for query in ("duckdb_databases()", "duckdb_secrets()", "duckdb_settings()"):
            with pytest.raises(HistoryError, match="cannot be used here"):
                await history.sql(f"SELECT * FROM {query}")
        assert home.rows("SELECT count(*) FROM pnl_snapshots") == [(1,)]


def seen_of(pid, name):
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def test_no_part_of_the_machine_shows_the_password(home, monkeypatch):
    """Neither the worker's command line nor its environment, though ours may hold it."""
    monkeypatch.setenv("PNL_STORE_URL", home.url.get_secret_value())
    async with home.store(), home.history() as history:
        await history.bars()
        about = [seen_of(history.pid, name) for name in ("cmdline", "environ")]

    assert os.environ["PATH"].encode() in about[1]
    assert not any(secret.encode() in each for secret in SECRETS for each in about)


async def test_a_database_that_refuses_is_named_without_its_password(tmp_path, postgres):
    """DuckDB's own words would have all of it in them."""
    home = Home(tmp_path, postgres)
    home.url = SecretStr(home.url.get_secret_value().replace(QUOTED, "wr0ng"))
    async with home.history() as history:
        with pytest.raises(HistoryError, match=r"the database \w+ at \S+ cannot be read: .*password") as caught:
            await history.bars()

    assert "wr0ng" not in str(caught.value)


async def test_an_empty_database_says_that_nothing_is_recorded(home):
    """Until something is."""
    async with home.history() as history:
        with pytest.raises(HistoryError, match=r"nothing is recorded in the database .* yet; start the dashboard"):
            await history.bars()
        async with home.store() as store:
            await record(store, Change(snapshot(FIRST_MS, 4)))

        assert (await history.bars()).close.tolist() == [4]


async def test_a_server_that_was_started_anew_is_asked_again(tmp_path):
    """While it is down an error says so; then the same worker has the answers."""
    with server() as fragile:
        home = Home(tmp_path, fragile)
        async with home.store() as store, home.history() as history:
            await record(store, Change(snapshot(FIRST_MS, 4)))
            assert (await history.bars()).close.tolist() == [4]
            worker = history.pid
            fragile.stop()
            with pytest.raises(HistoryError, match=r"the database .* cannot be read"):
                await history.bars()
            fragile.start()

            assert (await history.bars()).close.tolist() == [4]
            assert history.pid == worker
