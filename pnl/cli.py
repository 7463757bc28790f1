"""The `pnl` command."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pnl import __version__
from pnl.bench.commands import bench
from pnl.config import Settings, load_settings
from pnl.doctor import examine
from pnl.engine import Engine, history_of
from pnl.errors import ConfigError, HistoryError, PnlError, StoreHeld
from pnl.history.buckets import bucket_named
from pnl.history.client import Table as Answered
from pnl.history.export import CsvWriter, JsonWriter, pieces
from pnl.history.ranges import HELP, Range, parse_range
from pnl.model import as_json
from pnl.records import MONEY_FIELDS, Snapshot, money
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.sources.transport import OnAnswer
from pnl.web.access import serving_advice

EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL = 0, 1, 3
STARTING_S = 5.0


class Form(StrEnum):
    """How a history is written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


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
def history(
    *,
    bucket: Annotated[
        str, typer.Option(help="1s, 10s, 1m, 5m, 15m, 1h, 1d, 1w or 1mo; days and longer in PNL_TIMEZONE.")
    ] = "1d",
    from_: Annotated[str, typer.Option("--from", help="Where to begin: 2026-07, 2026-07-04, 2026-07-04T09:30.")] = "",
    to: Annotated[str, typer.Option(help="Where to end, a named day or month included; default: now.")] = "",
    within: Annotated[str, typer.Option("--range", help=f"Both at once: {HELP}.")] = "",
    column: Annotated[str, typer.Option(help="Which money: " + ", ".join(MONEY_FIELDS) + ".")] = "net_pnl",
    form: Annotated[Form, typer.Option("--format", help="csv, json, or parquet, which needs --out.")] = Form.CSV,
    out: Annotated[Path | None, typer.Option(help="File to write; without it, the output.")] = None,
) -> None:
    """Bars of the P&L over any range: bucket_start, open, high, low, close, count.

    What was before the first snapshot is rebuilt from the records, without open P&L. Money is exact in every format.
    """
    settings = load_settings()
    chosen = _range_of(settings, within or f"{from_}..{to}")
    asyncio.run(_write_history(settings, chosen, bucket=bucket, column=column, form=form, out=out))


def _range_of(settings: Settings, text: str) -> Range:
    return parse_range("all" if text == ".." else text, zone=settings.zone, now=datetime.now(UTC))


async def _write_history(
    settings: Settings, chosen: Range, *, bucket: str, column: str, form: "Form", out: Path | None
) -> None:
    bucket_named(bucket)
    if form is Form.PARQUET and out is None:
        raise HistoryError("Parquet is no text; name a file with --out")
    async with history_of(settings) as asked:
        if form is Form.PARQUET and out is not None:
            count = await asked.export(out, chosen.start, chosen.end, bucket=bucket, column=column)
            said.print(f"{count:,} bars in {out}", markup=False)
            return
        with ExitStack() as opened:
            stream = sys.stdout if out is None else opened.enter_context(out.open("w", encoding="utf-8", newline=""))
            progress = opened.enter_context(Progress(console=said, transient=True))
            writer = (CsvWriter if form is Form.CSV else JsonWriter)(stream, settings.zone)
            task = progress.add_task("history", total=None)
            async for bars, done, total in pieces(
                asked, chosen.start, chosen.end, bucket=bucket, column=column, zone=settings.zone
            ):
                writer.write(bars)
                progress.update(task, completed=done, total=total)
            writer.close()


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT, of DuckDB's SQL, over the store's tables.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="The most rows to show.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long it may take.")] = 5.0,
    as_json_object: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the store in SQL, for reading only: `pnl sql "SELECT ticker, count(*) FROM kalshi_trades GROUP BY 1"`.

    `pnl sql "SHOW TABLES"` names the tables. Money is in micro-dollars, instants in ms (snapshots) or µs since 1970.
    """
    found = asyncio.run(_sql(load_settings(), query, rows, seconds))
    if as_json_object:
        print(json.dumps({"columns": found.names, "rows": found.rows, "is_cut": found.is_cut}))
    else:
        table = Table(*map(escape, found.names))
        for row in found.rows:
            table.add_row(*("" if value is None else escape(str(value)) for value in row))
        Console().print(table)
    if found.is_cut:
        said.print(f"pnl: only the first {rows} rows; --rows shows more", style="yellow", markup=False)


async def _sql(settings: Settings, query: str, rows: int, seconds: float) -> Answered:
    async with history_of(settings, deadline_s=seconds + STARTING_S) as asked:
        return await asked.sql(query, rows=rows, seconds=seconds)


@app.command()
def doctor() -> None:
    """Look at settings, files, coverage, drift and the speed of the history; changes nothing and shows no secret.

    Ends with 1 when something is not as it should be.
    """
    raise typer.Exit(asyncio.run(_examine(load_settings())))


async def _examine(settings: Settings) -> int:
    found_wrong = False
    table = Table(show_header=False)
    async for name, text, is_well in examine(settings):
        found_wrong = found_wrong or not is_well
        table.add_row(escape(name), escape(text), "" if is_well else "!", style=None if is_well else "yellow")
    Console().print(table)
    return EXIT_ERROR if found_wrong else EXIT_COMPLETE


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
    alone = {} if settings.metrics_port is not None else {"PNL_METRICS_PORT": "0"}  # it is on the dashboard's own
    return {**signed, **os.environ, **alone, "PNL_BEHIND_PROXY": str(settings.behind_proxy).lower()}


def _app_folder() -> Path:
    """The dashboard's folder, beside the package in a checkout and inside it when installed."""
    package = Path(__file__).parent
    for folder in (package.parent / "app", package / "app"):
        if (folder / "main.py").exists():
            return folder
    raise ConfigError("the dashboard's folder app/ is missing from this installation; install pnl anew")


if __name__ == "__main__":
    main()
