"""What a person, or who helps them, wants to know of an installation: one look, nothing changed, no secret shown."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from pnl.config import Settings
from pnl.engine import history_of
from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.records import money

ASKED = 5

type Finding = tuple[str, str, bool]
"""What was looked at, what was found, and whether that is as it should be."""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at settings, files and the history, in this order."""
    for finding in (*_settings(settings), *_files(settings)):
        yield finding
    async with history_of(settings) as history:
        try:
            async for finding in _history(history, settings):
                yield finding
        except HistoryError as error:
            yield "history", str(error), False


def _settings(settings: Settings) -> Iterator[Finding]:
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        yield f"PNL_{name.upper()}", "set, not shown" if isinstance(value, SecretStr) else str(value), True
    if not settings.has_source:
        yield "sources", "none is configured; `panel serve app/` shows a demo", False


def _files(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.is_dir():
        yield "data folder", f"{folder} is not there yet", False
        return
    yield "data folder", str(folder), os.access(folder, os.W_OK)
    for path in sorted(folder.glob("*")):
        if path.is_file():
            open_to_others = bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
            said = f"{path.stat().st_size / 1e6:.1f} MB" + (", others can read it: chmod 600" if open_to_others else "")
            yield path.name, said, not open_to_others and "damaged" not in path.name
    yield from _archive(folder / "archive")


def _archive(folder: Path) -> Iterator[Finding]:
    if files := sorted(folder.glob("*.parquet")):
        size = sum(file.stat().st_size for file in files)
        yield "archive", f"{len(files)} months, {size / 1e6:.1f} MB, from {files[0].name} to {files[-1].name}", True


async def _history(history: History, settings: Settings) -> AsyncIterator[Finding]:
    months = await history.bars(bucket="1mo")
    if len(months):
        first = datetime.fromtimestamp(int(months.start[0]) / 1000, settings.zone)
        yield (
            "coverage",
            f"from {first:%B %Y}, {len(months)} months, {int(months.count.sum()):,} snapshots or changes",
            True,
        )
    newest = await history.snapshot_at(datetime.now(UTC), ("kalshi", "anthropic", "john"))
    if newest is not None:
        age_s = (datetime.now(UTC) - newest.taken_at).total_seconds()
        yield "newest snapshot", f"{age_s:,.0f} s old, net {money(newest.net_pnl)}", True
        yield "drift", f"{newest.agreement.value}, {money(newest.drift_usd)}", newest.agreement.value != "drifts"
    for found in (await history.sql("SELECT what FROM damage ORDER BY found_ms")).rows:
        yield "damage", str(found[0]), False
    for _ in range(ASKED):
        await history.booked()
        await history.breakdown(by="market")
        await history.drawdowns()
        await history.bars()
    for kind, timing in history.queries.timings().items():
        yield f"history: {kind}", f"p50 {timing.p50_ms:.1f} ms, max {timing.max_ms:.1f} ms", True
    for slow in history.queries.slow:
        yield f"slow: {slow.kind}", f"{slow.took_ms:.0f} ms: {slow.statement[:200]}", False
