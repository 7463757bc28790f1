"""What asks about the past: history, period, sql."""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pnl.config import NOTHING_SET, Settings, load_settings
from pnl.engine import history_of
from pnl.errors import ConfigError, HistoryError
from pnl.history.buckets import bucket_named
from pnl.history.client import Table as Answered
from pnl.history.export import CsvWriter, JsonWriter, pieces
from pnl.history.figures import Booked, Fall, Part
from pnl.history.periods import Period
from pnl.history.periods import period as made_in
from pnl.history.ranges import Range, parse_range
from pnl.records import MICRO, money
from pnl.store import FILE
from pnl.terminal import plain, print_json, progress_bars, remark, said

STARTING_S = 5.0

Form = Literal["csv", "json", "parquet"]
"""How a history is written."""


def named_range(within: str, start: str, end: str) -> str:
    """One range of two ways to name it; without either, all there is.

    Raises:
        HistoryError: It is named in both ways.
    """
    if within and (start or end):
        raise HistoryError(f"--range {within} and --from or --to name the same thing; type one of them")
    return within or (f"{start}..{end}" if start or end else "all")


def history(*, bucket: str, within: str, column: str, form: Form, out: Path | None) -> None:
    """Write bars to a file or the output.

    Raises:
        HistoryError: The question makes no sense, or nothing is recorded.
    """
    settings = _settings()
    chosen = _range_of(settings, within)
    asyncio.run(_write_history(settings, chosen, bucket=bucket, column=column, form=form, out=out))


def _settings() -> Settings:
    """The settings of a command that needs a record, or a source to make one."""
    settings = load_settings()
    if not (settings.has_source or settings.store_url or (settings.data_dir / FILE).exists()):
        raise ConfigError(NOTHING_SET)
    return settings


def _range_of(settings: Settings, text: str) -> Range:
    return parse_range(text, zone=settings.zone, now=datetime.now(UTC))


async def _write_history(
    settings: Settings, chosen: Range, *, bucket: str, column: str, form: Form, out: Path | None
) -> None:
    bucket_named(bucket)
    if form == "parquet" and out is None:
        raise HistoryError("Parquet is no text; name a file with --out")
    async with history_of(settings) as asked:
        if form == "parquet" and out is not None:
            count = await asked.export(out, chosen.start, chosen.end, bucket=bucket, column=column)
            said.print(f"{count:,} bars in {out}", markup=False)
            return
        with ExitStack() as opened:
            stream = sys.stdout if out is None else opened.enter_context(out.open("w", encoding="utf-8", newline=""))
            progress = opened.enter_context(progress_bars())
            writer = (CsvWriter if form == "csv" else JsonWriter)(stream, settings.zone)
            task = progress.add_task("history", total=None)
            async for bars, done, total in pieces(
                asked, chosen.start, chosen.end, bucket=bucket, column=column, zone=settings.zone
            ):
                writer.write(bars)
                progress.update(task, completed=done, total=total)
            writer.close()


def period(within: str, by: str | None, *, as_json: bool) -> None:
    """Print what a period made, beside the one before it.

    Raises:
        HistoryError: See `history`.
    """
    settings = _settings()
    found = asyncio.run(_period(settings, _range_of(settings, within), by))
    if as_json:
        print_json(found.as_json())
    else:
        found.show(Console(), settings.zone)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a period."""

    range: Range
    made: Period
    by: str | None
    parts: tuple[Part, ...]

    def as_json(self) -> dict[str, Any]:
        """Money as decimal strings in US dollars, instants in ISO 8601."""
        return {
            "range": self.range.name,
            "from": _iso(self.range.start),
            "to": _iso(self.range.end),
            **_figures(self.made.booked),
            "before": None if self.made.before is None else _figures(self.made.before),
            "high_water_mark": _text(self.made.drawdowns.high_usd),
            "drawdowns": [_of_fall(fall) for fall in self.made.drawdowns.falls],
            **(
                {}
                if self.by is None
                else {"by": self.by, "parts": [{"name": part.name, **_terms(part)} for part in self.parts]}
            ),
        }

    def show(self, console: Console, zone: tzinfo) -> None:
        """As tables."""
        table = Table("", "this period", "the one before", title=f"Net P&L, {escape(self.range.name)}")
        before = {} if self.made.before is None else _figures(self.made.before)
        for name, usd in _figures(self.made.booked).items():
            table.add_row(name.replace("_", " "), _shown(usd), _shown(before.get(name)))
        console.print(table)
        falls = Table("fell by", "from", "to", "back", title="Deepest falls")
        for fall in self.made.drawdowns.falls:
            instants = (_when(at, zone) for at in (fall.high_at, fall.low_at, fall.recovered_at))
            falls.add_row(money(fall.depth_usd), *instants)
        console.print(falls)
        if self.by is not None:
            console.print(self._parts(self.by))

    def _parts(self, by: str) -> Table:
        table = Table(by, "net", "trading", "fees", "costs", "revenue")
        for part in self.parts:
            shown = (part.net_usd, part.trading_usd, part.fees_usd, part.costs_usd, part.revenue_usd)
            table.add_row(_cell(part.name or "everything else"), *(money(usd) for usd in shown))
        return table


async def _period(settings: Settings, chosen: Range, by: str | None) -> Found:
    async with history_of(settings) as asked:
        made = await made_in(asked, chosen)
        parts = () if by is None else await asked.breakdown(chosen.start, chosen.end, by=by)
        return Found(chosen, made, by, parts)


def _cell(value: object) -> str:
    return "" if value is None else escape(plain(f"{value}"))


def _figures(booked: Booked) -> dict[str, str | None]:
    return {**_terms(booked.exact), "open_change": _text(booked.open_change_usd)}


def _terms(of: Booked | Part) -> dict[str, str | None]:
    return {
        "net_pnl": _text(of.net_usd),
        "trading": _text(of.trading_usd),
        "fees": _text(of.fees_usd),
        "costs": _text(of.costs_usd),
        "revenue": _text(of.revenue_usd),
    }


def _of_fall(fall: Fall) -> dict[str, str | None]:
    return {
        "depth": _text(fall.depth_usd),
        "high": _text(fall.high_usd),
        "high_at": _iso(fall.high_at),
        "low": _text(fall.low_usd),
        "low_at": _iso(fall.low_at),
        "recovered_at": _iso(fall.recovered_at),
    }


def _text(usd: Decimal | None) -> str | None:
    if usd is None:
        return None
    rounded = usd.quantize(MICRO)
    return f"{rounded if rounded == usd else usd.normalize():f}"


def _shown(usd: str | None) -> str:
    return money(None if usd is None else Decimal(usd))


def _when(moment: datetime | None, zone: tzinfo) -> str:
    return "not yet" if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def sql(query: str, *, rows: int, seconds: float, as_json: bool) -> None:
    """Print what a SELECT finds.

    Raises:
        HistoryError: It is none, or nothing is recorded.
    """
    found = asyncio.run(_sql(_settings(), query, rows, seconds))
    if as_json:
        print_json({"columns": found.names, "rows": found.rows, "is_cut": found.is_cut})
    else:
        table = Table(*map(_cell, found.names))
        for row in found.rows:
            table.add_row(*map(_cell, row))
        Console().print(table)
    if found.is_cut:
        remark(f"only the first {rows} rows; --rows shows more")


async def _sql(settings: Settings, query: str, rows: int, seconds: float) -> Answered:
    async with history_of(settings, deadline_s=seconds + STARTING_S) as asked:
        return await asked.sql(query, rows=rows, seconds=seconds)
