"""What looks at the numbers of now: snapshot, sync."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pnl.config import Settings, load_settings
from pnl.engine import Engine
from pnl.errors import StoreHeld
from pnl.model import as_json as json_of
from pnl.records import Snapshot, money
from pnl.sources.transport import OnAnswer
from pnl.terminal import EXIT_COMPLETE, EXIT_ERROR, EXIT_PARTIAL, print_json, progress_bars, remark


def snapshot(*, as_json: bool) -> int:
    """Pull every configured source once, print and record the numbers; returns the exit code.

    Raises:
        PnlError: There are no numbers at all, or they cannot be recorded.
    """
    return _tell(asyncio.run(_pull_or_look(load_settings())), as_json=as_json)


def sync(*, as_json: bool) -> int:
    """Backfill all history, with a bar for each source, and print the numbers; returns the exit code.

    Raises:
        PnlError: See `snapshot`.
    """
    with _progress() as on_answer:
        taken = asyncio.run(_pull(load_settings(), on_answer))
    return _tell(taken, as_json=as_json)


async def _pull(settings: Settings, on_answer: OnAnswer | None = None, *, records: bool = True) -> Snapshot:
    async with Engine(settings, records=records, on_answer=on_answer) as engine:
        return await engine.sync()


async def _pull_or_look(settings: Settings) -> Snapshot:
    """Beside a running dashboard the numbers are the same; recording them is its work."""
    try:
        return await _pull(settings)
    except StoreHeld as held:
        remark(f"not recorded: {held}")
        return await _pull(settings, records=False)


@contextmanager
def _progress() -> Iterator[OnAnswer]:
    """A line for each source that answers: how many pages, and the last one's path."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    pages: Counter[str] = Counter()
    with progress_bars(*columns) as progress:
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


def _tell(taken: Snapshot, *, as_json: bool) -> int:
    """Print the numbers, and beside them what they lack, a line each; returns the exit code that says the same."""
    if as_json:
        print_json(json_of(taken, datetime.now(UTC)))
    else:
        Console().print(_table(taken))
    for line in (*taken.errors, *taken.missing, *taken.notes):
        remark(line)
    if taken.is_empty:
        return EXIT_ERROR
    return EXIT_COMPLETE if taken.complete else EXIT_PARTIAL
