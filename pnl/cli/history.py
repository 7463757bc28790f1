"""The commands that ask about the past: history, period, sql."""

import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pnl.cli.said import app, said
from pnl.config import Settings, load_settings
from pnl.engine import history_of
from pnl.errors import HistoryError
from pnl.history.buckets import bucket_named
from pnl.history.client import Booked, Fall, Part
from pnl.history.client import Table as Answered
from pnl.history.export import CsvWriter, JsonWriter, pieces
from pnl.history.periods import Period
from pnl.history.periods import period as made_in
from pnl.history.ranges import HELP, Range, parse_range
from pnl.records import MICRO, MONEY_FIELDS, money

STARTING_S = 5.0


class Form(StrEnum):
    """How a history is written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


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
def period(
    *,
    within: Annotated[str, typer.Option("--range", help=f"Which period: {HELP}.")] = "mtd",
    by: Annotated[
        str | None,
        typer.Option(help="Its parts by source, market, event, series, item, deal, day, month, weekday or hour."),
    ] = None,
    as_json_object: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What a period made, beside the period before it: booked P&L, how open P&L moved, and the deepest falls.

    The parts of a period sum to it, to the last digit.
    """
    settings = load_settings()
    found = asyncio.run(_period(settings, _range_of(settings, within), by))
    if as_json_object:
        print(json.dumps(found.as_json(), indent=2))
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
            table.add_row(escape(part.name or "everything else"), *(money(usd) for usd in shown))
        return table


async def _period(settings: Settings, chosen: Range, by: str | None) -> Found:
    async with history_of(settings) as asked:
        made = await made_in(asked, chosen)
        parts = () if by is None else await asked.breakdown(chosen.start, chosen.end, by=by)
        return Found(chosen, made, by, parts)


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
