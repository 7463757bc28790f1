"""The commands that serve until they are stopped: the dashboard, and the three APIs on loopback."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

import typer

from pnl.cli.said import app, said
from pnl.config import Settings, load_settings
from pnl.errors import ConfigError
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.web.access import serving_advice


@app.command()
def simulate(
    *,
    account: Annotated[
        Path | None, typer.Option(help="Serve a recorded account: a folder with fills.csv and settlements.csv.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0, help="Replay the account at this speed; without it, all of it is there.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which living market to serve when there is no account.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0: any that is free.")] = 0,
    key_out: Annotated[Path | None, typer.Option(help="Where to write the private key (mode 0600).")] = None,
) -> None:
    """Serve the three APIs on loopback: a living market, or a recorded account.

    Prints the settings that point `pnl` at it, in a form that a shell can read, and runs until it is stopped.
    """
    if speed is not None and account is None:
        raise ConfigError("--speed replays a recorded account; name one with --account")
    world = LivingMarket(seed=seed) if account is None else RecordedAccount(account, speed=speed)
    asyncio.run(_serve(Simulator(world, port=port, key_out=key_out)))


async def _serve(simulator: Simulator) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with simulator:
        for name, value in simulator.settings.items():
            print(f"export {name}={value}")
        print(f"# Stripe's shape of the same deals: PNL_JOHN_URL={simulator.stripe_url}", flush=True)
        said.print("Serving until interrupted. The keys are made up; nothing here is real money.")
        await stopped.wait()


@app.command()
def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the dashboard; 0: any that is free.")] = 5006,
    address: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a password or a proxy.")
    ] = "127.0.0.1",
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy in front asks who visitors are (PNL_BEHIND_PROXY).")
    ] = False,
    show: Annotated[bool, typer.Option(help="Open the dashboard in a browser.")] = False,
) -> None:
    """Serve the dashboard with the options that this project recommends.

    It runs `panel serve` on the app, warmed up, for this machine alone unless --address says otherwise. With
    PNL_PASSWORD_FILE set it asks for that password.
    """
    settings = load_settings(behind_proxy=True) if behind_proxy else load_settings()
    for line in serving_advice(settings, address):
        said.print(f"pnl: {line}", style="yellow", markup=False, soft_wrap=True)
    command = ["panel", "serve", str(_app_folder()), "--address", address, "--port", str(port), "--warm"]
    command += ["--show"] if show else []
    os.execve(sys.executable, [sys.executable, "-m", *command], _served_with(settings))  # noqa: S606 - no shell


def _served_with(settings: Settings) -> dict[str, str]:
    """The environment of the server: secrets stand here, where the list of processes does not show them."""
    signed = {"BOKEH_SECRET_KEY": token_urlsafe(32), "BOKEH_SIGN_SESSIONS": "true"}
    alone = {} if settings.metrics_port is not None else {"PNL_METRICS_PORT": "0"}  # it is on the dashboard's own
    return {**signed, **os.environ, **alone, "PNL_BEHIND_PROXY": str(settings.behind_proxy).lower()}


def _app_folder() -> Path:
    """The dashboard's folder, beside the package in a checkout and inside it when installed."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "app", package / "app"):
        if (folder / "main.py").exists():
            return folder
    raise ConfigError("the dashboard's folder app/ is missing from this installation; install pnl anew")
