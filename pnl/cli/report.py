"""What writes a report."""

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pnl.config import Settings, load_settings
from pnl.engine import history_of
from pnl.history.client import History
from pnl.history.dimensions import filters_of
from pnl.history.ranges import parse_range
from pnl.report import Asked, file_name, report_html, write_whole
from pnl.sources import source_classes
from pnl.terminal import progress_bars, said

OUTPUT = Path("-")
PATIENCE_S = 60.0


def report(*, within: str, out: Path | None, title: str, hides: bool, filters: list[str]) -> None:
    """Write the report of a range, as somebody types it; `filters` are pairs such as `series=KXBTCD`.

    Raises:
        HistoryError: There is no such range or part, or nothing is recorded.
    """
    settings = load_settings()
    now = datetime.now(UTC)
    asked = Asked(
        range=parse_range(within, zone=settings.zone, now=now),
        zone=settings.zone,
        written_at=now,
        title=title,
        filters=filters_of(filters),
        hides=hides,
        sources=tuple(source_classes()),
    )
    html = asyncio.run(_written(settings, asked))
    if out == OUTPUT:
        sys.stdout.write(html)
        return
    path = out or Path(file_name(asked.range, now, asked.zone))
    write_whole(path, html)
    said.print(f"{path}: {len(html.encode()) / 1000:,.0f} kB", markup=False, soft_wrap=True)


async def _written(settings: Settings, asked: Asked) -> str:
    with progress_bars() as progress:
        task = progress.add_task("report", total=None)
        async with history_of(settings, deadline_s=PATIENCE_S) as history:
            marked = replace(asked, kind=await _kind(settings, history))
            return await report_html(
                history, marked, on_step=lambda done, total: progress.update(task, completed=done, total=total)
            )


async def _kind(settings: Settings, history: History) -> str:
    """What is to be warned of; without any source in the settings the folder itself says what it holds."""
    if settings.has_source:
        return "simulated" if settings.is_simulated else ""
    held = (await history.sql("SELECT value FROM meta WHERE key = 'kind'")).rows
    return "simulated" if ("simulated",) in held else ""
