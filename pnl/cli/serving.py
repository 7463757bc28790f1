"""What serves until it is stopped: the dashboard, and the three APIs on loopback."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from secrets import token_urlsafe

from pnl.config import Settings, load_settings
from pnl.errors import ConfigError
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.terminal import remark, said
from pnl.web.access import serving_advice
from pnl.web.folder import app_folder


def simulate(*, account: Path | None, speed: float | None, seed: int, port: int, key_out: Path | None) -> None:
    """Serve a living market, or a recorded account, until interrupted.

    Raises:
        ConfigError: A speed is given, and no account.
        SimulatorError: See `Simulator`.
    """
    if speed is not None and account is None:
        raise ConfigError("--speed replays a recorded account; name one with --account")
    world = LivingMarket(seed=seed) if account is None else RecordedAccount(account, speed=speed)
    asyncio.run(_simulate(Simulator(world, port=port, key_out=key_out)))


async def _simulate(simulator: Simulator) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with simulator:
        for name, value in simulator.settings.items():
            print(f"export {name}={value}")
        print(f"# Stripe's shape of the same deals: PNL_JOHN_URL={simulator.stripe_url}", flush=True)
        said.print("Serving until interrupted. The keys are made up; nothing here is real money.")
        await stopped.wait()


def serve(*, port: int, address: str, behind_proxy: bool, show: bool) -> None:
    """Become `panel serve` on the app.

    Raises:
        ConfigError: The settings make no sense, or others would see the numbers without being asked who they are.
    """
    settings = load_settings(behind_proxy=True) if behind_proxy else load_settings()
    for line in serving_advice(settings, address):
        remark(line)
    command = ["panel", "serve", str(app_folder()), "--address", address, "--port", str(port), "--warm"]
    command += ["--show"] if show else []
    os.execve(sys.executable, [sys.executable, "-m", *command], _served_with(settings))  # noqa: S606 - no shell


def _served_with(settings: Settings) -> dict[str, str]:
    """The environment of the server: secrets stand here, where the list of processes does not show them."""
    signed = {"BOKEH_SECRET_KEY": token_urlsafe(32), "BOKEH_SIGN_SESSIONS": "true"}
    alone = {} if settings.metrics_port is not None else {"PNL_METRICS_PORT": "0"}  # it is on the dashboard's own
    return {**signed, **os.environ, **alone, "PNL_BEHIND_PROXY": str(settings.behind_proxy).lower()}
