"""One that collects, others that stand by and two pages, as processes: each is killed in turn, and nothing is lost."""

from random import Random

from browsing import settings_of
from test_engine import simulated

from pnl.bench.kill_fleet import Fleet
from pnl.engine import Engine
from pnl.simulator import LivingMarket
from pnl.store import read_beside

EACH_ROLE = 3  # who collects, who serves a page, who only stands by
FAULTS = ("lost", "corrupt_files", "duplicate_rows")
QUICK = {"PNL_POLL_S": "0.3", "PNL_KALSHI_POLL_S": "0.5"}


async def killed_in_turn(folder, **shared):
    """Kill one of each role; gives what `pnl bench kill --fleet` tells of it."""
    async with simulated(folder / "venue", LivingMarket(days=3)) as (simulator, settings):
        fleet = Fleet(folder, settings_of(simulator) | QUICK | shared, Random(1))  # noqa: S311 - no secret
        async with fleet.running():
            for _ in range(EACH_ROLE):
                await fleet.kill()
        figures = await fleet.figures()
        await check_no_gap(fleet, settings)
    return figures


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


async def test_on_one_database_with_folders_of_their_own_the_others_go_on_and_nothing_is_lost(
    tmp_path, redis, postgres
):
    """PostgreSQL and Redis, as on machines of their own."""
    shared = {"PNL_CACHE_URL": redis.url.get_secret_value()}
    url = postgres.new_database()
    check(await killed_in_turn(tmp_path, PNL_STORE_URL=url.get_secret_value(), **shared))
