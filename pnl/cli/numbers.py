"""The commands that look at the numbers of now: snapshot, sync, doctor."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pnl.cli.said import EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL, app, said
from pnl.config import Settings, load_settings
from pnl.doctor import examine
from pnl.engine import Engine
from pnl.errors import StoreHeld
from pnl.model import as_json
from pnl.records import Snapshot, money
from pnl.sources.transport import OnAnswer


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
