"""Several processes serve the page of one data folder: one of them collects, the others follow what it records."""

import os
import re
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from browsing import complaint, number_moves, served, settings_of, until, visit
from playwright.async_api import expect
from postgres import server
from redis_here import asked, started

from pnl.bench.kill_dashboard import collector
from pnl.bench.load_processes import children
from pnl.simulator import LivingMarket, Simulator
from pnl.store import FILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWO = ("panel", "serve", "app/", "--num-procs", "2")


@pytest_asyncio.fixture(loop_scope="module")
async def redis(tmp_path_factory):
    """A Redis server on the loop of these tests."""
    running = await started(tmp_path_factory.mktemp("redis"))
    yield running
    await running.kill()


def is_running(pid):
    """Whether there is such a process, and not only what is left of it."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_when_the_one_that_collects_is_killed_another_goes_on_and_no_row_is_lost_or_doubled(browser, tmp_path):
    """The page that it served comes back by itself; nobody outlives the one that started them."""
    async with Simulator(LivingMarket(days=3)) as simulator:
        ours = served(tmp_path, command=TWO, PNL_POLL_S="0.5", **settings_of(simulator))
        async with ours as (process, address), visit(browser, address) as page:
            await number_moves(page)
            first = collector(tmp_path)
            assert first in children(process.pid)

            os.kill(first, signal.SIGKILL)

            await until(lambda: collector(tmp_path) not in (None, first))
            await number_moves(page)
            both = children(process.pid)
            assert collector(tmp_path) in both
        await until(lambda: not any(map(is_running, both)))
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:
        [recorded] = reader.execute("SELECT count(*) FROM pnl_snapshots").fetchone()
        assert reader.execute("SELECT sum(snapshots) FROM pnl_1m").fetchone() == (recorded,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_with_a_shared_cache_that_dies_too_nothing_is_lost_and_the_pages_say_so(browser, tmp_path, redis):
    """The server goes, then the process that collects, then the server comes back: the number moves all the while."""
    said = re.compile("shared cache \\(PNL_CACHE_URL\\) is not used: it cannot be reached")
    async with Simulator(LivingMarket(days=3)) as simulator:
        shared = {"PNL_CACHE_URL": redis.url.get_secret_value()}
        ours = served(tmp_path, command=TWO, PNL_POLL_S="0.5", **settings_of(simulator), **shared)
        async with ours as (process, address), visit(browser, address) as page:
            await number_moves(page)
            first = collector(tmp_path)
            notes = page.locator('[data-text="notes"]')
            await expect(notes).not_to_contain_text(said)
            assert await asked(redis, "PUBSUB", "CHANNELS", "pnl:1:*:commits")

            await redis.kill()
            await expect(notes).to_contain_text(said)
            await number_moves(page)
            os.kill(first, signal.SIGKILL)
            await until(lambda: collector(tmp_path) not in (None, first), within_s=20)

            await redis.start()
            await expect(notes).not_to_contain_text(said)
            await until(lambda: asked(redis, "KEYS", "pnl:1:*:pnl:current"))
            await number_moves(page)
            assert complaint(process.said) == ""
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:
        [recorded] = reader.execute("SELECT count(*) FROM pnl_snapshots").fetchone()
        assert reader.execute("SELECT sum(snapshots) FROM pnl_1m").fetchone() == (recorded,)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_dashboard_whose_database_is_away_when_it_starts_goes_on_once_it_is_there(browser, tmp_path):
    """The page says why there is nothing to see, and comes to life without a click or another start of the process."""
    with server() as fragile:
        url = fragile.new_database().get_secret_value()
        fragile.stop()
        async with Simulator(LivingMarket(days=3)) as simulator:
            ours = served(tmp_path, PNL_POLL_S="0.5", PNL_STORE_URL=url, **settings_of(simulator))
            async with ours as (process, address), visit(browser, address) as page:
                await expect(page.locator("body")).to_contain_text(re.compile("cannot be opened: .* the server up"))
                fragile.start()

                await number_moves(page)

                assert complaint(process.said) == ""
