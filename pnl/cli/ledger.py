"""What shows the ledger on a terminal and writes it to files."""

import asyncio
import shutil
import sys
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pnl.config import Settings, load_settings
from pnl.engine import history_of
from pnl.errors import HistoryError
from pnl.history.dimensions import filters_of
from pnl.history.figures import Posting, Postings
from pnl.history.ranges import Range, parse_range
from pnl.records import money
from pnl.terminal import plain, remark, said

DEADLINE_S = 60.0
LONGEST_CELL = 40


class Form(StrEnum):
    """How the ledger is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    XLSX = "xlsx"
    PARQUET = "parquet"


TEXTS = frozenset({Form.CSV, Form.JSON})


def ledger(
    *, within: str, filters: list[str], term: str, search: str, form: str | None, out: Path | None, limit: int
) -> None:
    """Show the newest rows, or write all of them.

    Raises:
        HistoryError: The question makes no sense, or nothing is recorded.
    """
    settings = load_settings()
    chosen = {"filters": filters_of(filters), "term": term, "search": search}
    range_ = parse_range(within, zone=settings.zone, now=datetime.now(UTC))
    wanted = Form(form) if form else _form_of(out)
    if wanted is not Form.TABLE:
        asyncio.run(_write(settings, range_, wanted, out, chosen))
        return
    if out is not None:
        raise HistoryError("a table is for the screen; choose csv, json, xlsx or parquet for a file")
    asyncio.run(_show(settings, range_, limit, chosen))


def _form_of(out: Path | None) -> Form:
    if out is None:
        return Form.TABLE
    ending = out.suffix.removeprefix(".").lower()
    if ending not in Form:
        raise HistoryError(f"{out.name} does not say which format it should have; choose one with --format")
    return Form(ending)


async def _write(settings: Settings, range_: Range, form: Form, out: Path | None, chosen: dict[str, Any]) -> None:
    if out is None and form not in TEXTS:
        raise HistoryError(f"{form} is no text; name a file with --out")
    async with history_of(settings, deadline_s=DEADLINE_S) as asked:
        if out is not None:
            with said.status(f"writing {out.name}"):
                count = await asked.export_ledger(out, range_.start, range_.end, form=form, **chosen)
            said.print(f"{count:,} rows in {out}", markup=False)
            return
        with TemporaryDirectory(prefix="pnl-export-") as folder:
            path = Path(folder, "ledger")
            with said.status("reading the ledger"):
                await asked.export_ledger(path, range_.start, range_.end, form=form, **chosen)
            _print(path)


def _print(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as written:
        shutil.copyfileobj(written, sys.stdout)


async def _show(settings: Settings, range_: Range, limit: int, chosen: dict[str, Any]) -> None:
    async with history_of(settings, deadline_s=DEADLINE_S) as asked:
        found = await asked.ledger(range_.start, range_.end, count=limit, **chosen)
    Console().print(_table(found, range_, chosen["term"], settings.zone))
    if found.count > len(found.rows):
        remark(f"the newest {len(found.rows):,} of {found.count:,} rows; --limit shows more, --out has all")


def _table(found: Postings, range_: Range, term: str, zone: tzinfo) -> Table:
    caption = f"{found.count:,} rows, {term} {money(found.amount_usd)}"
    table = Table("at", "what", "", "contracts", term, "sum", title=f"Ledger, {escape(range_.name)}", caption=caption)
    for column in table.columns[-3:]:
        column.justify = "right"
    for row in found.rows:
        at, contracts = row.at.astimezone(zone), "" if row.contracts is None else f"{row.contracts:,.2f}"
        table.add_row(
            f"{at:%Y-%m-%d %H:%M}", _what(row), _kind(row), contracts, money(row.amount_usd), money(row.running_usd)
        )
    return table


def _what(row: Posting) -> str:
    return _cell(f"{row.key} {row.text}" if row.source == "john" else row.key)


def _kind(row: Posting) -> str:
    return _cell(f"{row.kind} {row.side}")


def _cell(text: str) -> str:
    """A text as a terminal may show it: neither its codes nor Rich's markup."""
    short = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    return escape(plain(short).strip())
