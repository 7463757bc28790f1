"""One that collects, others that stand by and two pages, as processes: each is killed in turn, and nothing is lost."""

import asyncio
import time
from random import Random

from browsing import settings_of
from postgres import server
from test_engine import simulated

from pnl.bench.kill_fleet import Fleet
from pnl.engine import Engine
from pnl.simulator import LivingMarket
from pnl.store import read_beside

EACH_ROLE = 3  # who collects, who serves a page, who only stands by
FAULTS = ("lost", "corrupt_files", "duplicate_rows")
QUICK = {"PNL_POLL_S": "0.3", "PNL_KALSHI_POLL_S": "0.5"}


async def killed_in_turn(folder, *, database=None, **shared):
    """Kill one of each role, and the server of their database; gives what `pnl bench kill --fleet` tells of it."""
    async with simulated(folder / "venue", LivingMarket(days=3)) as (simulator, settings):
        fleet = Fleet(folder, settings_of(simulator) | QUICK | shared, Random(1))  # noqa: S311 - no secret
        async with fleet.running():
            for _ in range(EACH_ROLE):
                await fleet.kill()
            if database is not None:
                await check_restart(database, fleet)
        figures = await fleet.figures()
        await check_no_gap(fleet, settings)
    return figures


async def check_restart(database, fleet):
    """All of them go on once it is back, whoever records then."""
    await asyncio.to_thread(database.stop)
    await asyncio.to_thread(database.start)
    since_ms = time.time() * 1000
    async with asyncio.timeout(60):
        await asyncio.gather(*(visitor.sees_after(since_ms) for visitor in fleet.visitors))


async def check_no_gap(fleet, settings):
    """Every fill of the venue is recorded, up to the last one that is: none is missing from between."""
    recorded = {fill.fill_id: fill for fill in read_beside(fleet.folders[0], fleet.url, "simulated").fills}
    last = max(fill.filled_at for fill in recorded.values())
    async with Engine(settings) as engine:
        await engine.sync()
        truth = {fill.fill_id: fill for fill in engine.model.ledger.fills() if fill.filled_at <= last}
    assert recorded == truth
    assert len(truth) > 0


def check(figures):
    """Nothing is lost or doubled, and all went on; how soon is measured, for others may use the machine."""
    assert {name: figures[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert figures["times"] == EACH_ROLE
    assert figures["received_as_recorded"] > 0
    assert figures["takeover_ms"]
    assert figures["viewers_back_ms"]


async def test_on_one_data_folder_with_a_shared_cache_the_others_go_on_and_nothing_is_lost(tmp_path, redis):
    """SQLite, and Redis beside it."""
    check(await killed_in_turn(tmp_path, PNL_CACHE_URL=redis.url.get_secret_value()))


async def test_on_one_database_with_folders_of_their_own_the_others_go_on_and_nothing_is_lost(tmp_path, redis):
    """PostgreSQL and Redis, as on machines of their own; at last the database itself dies and is back."""
    shared = {"PNL_CACHE_URL": redis.url.get_secret_value()}
    with server() as fragile:
        url = fragile.new_database().get_secret_value()
        check(await killed_in_turn(tmp_path, database=fragile, PNL_STORE_URL=url, **shared))
