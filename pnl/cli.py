"""The `pnl` command."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pnl import __version__
from pnl.bench.commands import bench
from pnl.config import Settings, load_settings
from pnl.engine import Engine
from pnl.errors import ConfigError, PnlError, StoreHeld
from pnl.model import as_json
from pnl.records import Snapshot, money
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.sources.transport import OnAnswer
from pnl.web.access import serving_advice

EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL = 0, 1, 3

app = typer.Typer(
    help="One live number you can trust: Kalshi trading − Anthropic cost + revenue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.add_typer(bench, name="bench", no_args_is_help=True)
said = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command; a failure that was foreseen is one line, without a traceback."""
    logging.basicConfig(level=os.environ.get("PNL_LOG_LEVEL", "WARNING"), format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except PnlError as error:
        _fail(str(error))


def _fail(text: str) -> NoReturn:
    said.print(f"pnl: {text}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(EXIT_ERROR)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own signature
    if wanted:
        print(f"pnl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del version


@app.command()
def snapshot(*, as_json_object: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Pull every configured source once, print the numbers, record them.

    Ends with 0 when they are complete, 3 when a part is missing (it is named), 1 when there are none. Beside a running
    dashboard on the same data folder it records nothing: the dashboard does.
    """
    taken = asyncio.run(_pull_or_look(load_settings()))
    if as_json_object:
        print(json.dumps(as_json(taken, datetime.now(UTC)), indent=2))
    else:
        Console().print(_table(taken))
    raise typer.Exit(_tell(taken))


@app.command()
def sync() -> None:
    """Backfill all history into the data folder; safe to repeat and to interrupt.

    What was read before is not read again, and what comes twice changes nothing.
    """
    with _progress() as on_answer:
        taken = asyncio.run(_pull(load_settings(), on_answer))
    Console().print(_table(taken))
    raise typer.Exit(_tell(taken))


async def _pull(settings: Settings, on_answer: OnAnswer | None = None, *, records: bool = True) -> Snapshot:
    async with Engine(settings, records=records, on_answer=on_answer) as engine:
        return await engine.sync()


async def _pull_or_look(settings: Settings) -> Snapshot:
    """Beside a running dashboard the numbers are the same; recording them is its work."""
    try:
        return await _pull(settings)
    except StoreHeld as held:
        said.print(f"pnl: not recorded: {held}", style="yellow", markup=False, soft_wrap=True)
        return await _pull(settings, records=False)


@contextmanager
def _progress() -> Iterator[OnAnswer]:
    """A line for each source that answers: how many pages, and the last one's path."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    pages: Counter[str] = Counter()
    with Progress(*columns, console=said, transient=True) as progress:
        lines = {}

        def on_answer(source: str, path: str) -> None:
            pages[source] += 1
            if source not in lines:
                lines[source] = progress.add_task(source, total=None)
            progress.update(lines[source], description=f"{source}: {pages[source]} pages, {path}")

        yield on_answer


def _table(taken: Snapshot) -> Table:
    table = Table(title="Net P&L", caption=f"as of {taken.as_of.astimezone():%Y-%m-%d %H:%M:%S %Z}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    rows = (
        ("trading, realized", taken.kalshi_realized),
        ("trading, open", taken.kalshi_unrealized),
        ("fees", -taken.kalshi_fees),
        ("costs, billed", -taken.billed_costs),
        ("costs, estimated", -taken.estimated_costs),
        ("revenue", taken.total_revenue),
    )
    for name, usd in rows:
        table.add_row(name, money(usd, signed=True))
    table.add_section()
    table.add_row("net" if taken.complete else "net, partial", money(taken.net_pnl), style="bold")
    table.add_section()
    for reading in taken.sources:
        table.add_row(reading.source, f"{reading.state.value.replace('_', ' ')}")
    return table


def _tell(taken: Snapshot) -> int:
    """Say what is missing or odd, one line each, beside the numbers; returns the exit code that says the same."""
    for line in (*taken.errors, *taken.missing, *taken.notes):
        said.print(f"pnl: {line}", style="yellow", markup=False, soft_wrap=True)
    if taken.is_empty:
        return EXIT_ERROR
    return EXIT_COMPLETE if taken.complete else EXIT_PARTIAL


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
        print(
            f"export PNL_KALSHI_URL={simulator.kalshi_url}\n"
            f"export PNL_KALSHI_KEY_ID={simulator.key_id}\n"
            f"export PNL_KALSHI_PRIVATE_KEY_PATH={simulator.private_key_path}\n"
            f"export PNL_ANTHROPIC_URL={simulator.anthropic_url}\n"
            f"export PNL_ANTHROPIC_ADMIN_KEY={simulator.admin_key}\n"
            f"export PNL_JOHN_URL={simulator.john_url}\n"
            f"export PNL_JOHN_TOKEN={simulator.john_token}\n"
            f"# Stripe's shape of the same deals: PNL_JOHN_URL={simulator.stripe_url}",
            flush=True,
        )
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
    return {**signed, **os.environ, "PNL_BEHIND_PROXY": str(settings.behind_proxy).lower()}


def _app_folder() -> Path:
    """The dashboard's folder, beside the package in a checkout and inside it when installed."""
    package = Path(__file__).parent
    for folder in (package.parent / "app", package / "app"):
        if (folder / "main.py").exists():
            return folder
    raise ConfigError("the dashboard's folder app/ is missing from this installation; install pnl anew")


if __name__ == "__main__":
    main()
