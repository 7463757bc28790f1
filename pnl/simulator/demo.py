"""The whole program on the simulated market: no keys, no network, a data folder of its own."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pnl.config import Settings
from pnl.engine import Engine
from pnl.simulator import LivingMarket, Simulator

SEED = 1
FOLDER = "demo"


class Demo(Engine):
    """An engine that brings the upstreams it reads, through the same HTTP path as the real ones."""

    is_demo = True

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self._given = settings

    async def open(self) -> None:
        """Start the simulator on loopback, then everything that reads it."""
        simulator = await self.resources.enter_async_context(Simulator(LivingMarket(seed=SEED)))
        self.settings = demo_settings(self._given, simulator)
        await super().open()


def engine_for(settings: Settings) -> Engine:
    """What a dashboard shows: the real thing when a source is configured, else the demo."""
    return Engine(settings, follows=True) if settings.has_source else Demo(settings, follows=True)


def shown_folder(settings: Settings) -> Path:
    """The data folder of what a dashboard with these settings shows."""
    return settings.data_dir if settings.has_source else settings.data_dir / FOLDER


def demo_settings(settings: Settings, simulator: Simulator) -> Settings:
    """The settings with every source set to the simulator, and a data folder of the demo's own."""
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir / FOLDER,
            "store_url": None,
            "store_read_url": None,
            "kalshi_url": simulator.kalshi_url,
            "kalshi_key_id": simulator.key_id,
            "kalshi_private_key_path": simulator.private_key_path,
            "anthropic_url": simulator.anthropic_url,
            "anthropic_admin_key": SecretStr(simulator.admin_key),
            "john_url": simulator.john_url,
            "john_token": SecretStr(simulator.john_token),
        }
    )
