"""What most tests stand on: a clock that moves when told, a data folder, and the three APIs on loopback."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from browsing import chromium
from hypothesis import HealthCheck, settings
from postgres import server
from redis_here import started

from pnl.simulator import LivingMarket, Simulator
from pnl.sources.transport import Transport

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

NOW = datetime(2026, 11, 22, 9, 30, 0, 250_000, tzinfo=UTC)


class Clock:
    """Stands still until it is moved; called, it tells the time as an aware datetime."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        """Tell the time."""
        return self.now

    def timestamp(self):
        """Tell the seconds, for whoever wants a wall clock or a monotonic one as a number."""
        return self.now.timestamp()

    def advance(self, **by):
        """Move on by a `timedelta`'s arguments."""
        self.now += timedelta(**by)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    """A data folder that nobody has made yet."""
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch, tmp_path):
    """No setting of the person who runs the tests reaches them, neither by environment nor by `pnl.toml`."""
    for name in [name for name in os.environ if name.startswith("PNL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def small_business():
    """Trading of both tiers, costs and deals; a function of the instant, so that all tests may ask the same one."""
    return LivingMarket(seed=3, days=65, fills_per_day=15)


@pytest.fixture
async def simulator(small_business, clock):
    """The three APIs on loopback at the time of `clock`, without request limits."""
    async with Simulator(small_business, now=clock, key_type="ed25519", limited=False) as sim:
        yield sim


@pytest.fixture
async def transport():
    async with Transport() as transport:
        yield transport


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser():
    """Chromium, for a module whose tests share one loop."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
def recorded_account():
    """The folder with a real account's history, which stays outside the project."""
    path = Path(__file__).parents[2] / "shared" / "recorded_account"
    if not path.is_dir():
        pytest.skip("the recorded account (shared/recorded_account) is absent")
    return path


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL on loopback."""
    with server() as running:
        yield running


@pytest.fixture
async def redis(tmp_path_factory):
    """A Redis server of the test's own, in a folder whose name is short enough for a socket."""
    server = await started(tmp_path_factory.mktemp("redis"))
    yield server
    await server.kill()
