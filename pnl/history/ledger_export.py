"""All rows of the ledger as a file: the same columns in every format, oldest first, money exact.

Whoever knows the records writes them at once, as Parquet: all of one instant. A process that does nothing else makes
the other formats of it, so that no page waits however long that takes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from pnl import __version__
from pnl.errors import HistoryError
from pnl.history.dimensions import DIMENSIONS, Filters
from pnl.history.duck import Duck, quoted
from pnl.history.ledger_files import WRITERS, Sheet
from pnl.history.past import Past
from pnl.history.postings import Chosen, chosen, with_share
from pnl.rows import to_instant

ORDER = "at_us, kind, source, record"
TEXTS: Mapping[str, str] = {
    "kind": "kind",
    "source": "source",
    **{name: DIMENSIONS[name] for name in ("market", "event", "series", "item", "deal")},
    "title": "nullif(text, '')",
    "fill_id": "CASE WHEN kind = 'fill' THEN record END",  # a deal's record would name a place on this machine
    "side": "nullif(side, '')",
}
COUNTS: Mapping[str, str] = {"contracts": "contracts", "price_usd": "price"}
MONEY: Mapping[str, str] = {
    "trading_usd": "kalshi_realized",
    "fees_usd": "kalshi_fees",
    "costs_billed_usd": "billed_costs",
    "costs_estimated_usd": "estimated_costs",
    "revenue_usd": "total_revenue",
    "net_usd": "net",
}
"""net = trading − fees − costs billed − costs estimated + revenue, in every row and in every sum of rows."""
RUNNING: Mapping[str, str] = {"running_net_usd": f"sum(net) OVER (ORDER BY {ORDER})"}

FORMS = (*WRITERS, "parquet")
NICENESS = 10
ROWS_AT_ONCE = 10_000
MOST_IN_A_SHEET = (1 << 20) - 2  # the names above the rows, the sums below


def export_ledger(
    past: Past,
    *,
    path: str,
    form: str,
    start_ms: int | None,
    end_ms: int | None,
    filters: Filters = (),
    search: str = "",
    term: str = "net",
) -> Mapping[str, Any]:
    """Write all of the postings that `postings.ledger` finds to a Parquet file; instants in UTC, money as decimals.

    Args:
        past: What is known.
        path: The file.
        form: One of `FORMS`, into which somebody else makes it.
        start_ms: See `postings.ledger`.
        end_ms: See `postings.ledger`.
        filters: See `postings.ledger`.
        search: See `postings.ledger`.
        term: See `postings.ledger`.

    Returns:
        What `write_ledger` wants to know of it: `rows`, how many; `sums` of `MONEY`, exact texts; `about`, in words.

    Raises:
        HistoryError: It cannot be written, or has more rows than the format takes.
    """
    if form not in FORMS:
        raise HistoryError(f"there is no format {form[:40]!r}; choose one of {', '.join(FORMS)}")
    which = with_share(chosen(past, start_ms, end_ms, filters, search), term)
    sums = ", ".join(_plain(f"coalesce(sum({column}), 0)::DECIMAL(38, 12)") for column in MONEY.values())
    [(count, *usd)] = past.duck.rows(
        f"SELECT count(*), {sums} FROM {past.postings} WHERE {which.condition}", which.values
    )
    if form == "xlsx" and count > MOST_IN_A_SHEET:
        raise HistoryError(f"{count:,} rows are more than a sheet holds; choose another format, or a shorter range")
    past.duck.copy_to_parquet(_query(past, which), which.values, path)
    about = [*_asked(past, start_ms, end_ms, filters, search, term), ("Rows", f"{count:,}")]
    return {"rows": count, "sums": dict(zip(MONEY, usd, strict=True)), "about": about}


def _query(past: Past, which: Chosen) -> str:
    columns = {"at": "make_timestamptz(at_us)", **TEXTS, **COUNTS, **MONEY, **RUNNING}
    named = ", ".join(f"{column} AS {name}" for name, column in columns.items())
    return f"SELECT {named} FROM {past.postings} WHERE {which.condition} ORDER BY {ORDER}"


def _asked(  # noqa: PLR0917 - as it is asked
    past: Past, start_ms: int | None, end_ms: int | None, filters: Filters, search: str, term: str
) -> Iterator[tuple[str, str]]:
    """What was asked for, in words."""
    yield "From", "the first record" if start_ms is None else _local(past, start_ms)
    yield "Up to", "the newest record" if end_ms is None else f"{_local(past, end_ms)} (not included)"
    for dimension, name in filters:
        yield f"Only {dimension}", "none" if name is None else name
    if search:
        yield "Only with the text", search
    if term != "net":
        yield "Only with a share in", term
    yield "Time zone", f"{past.zone}"
    yield "As of", datetime.now(past.zone).isoformat(timespec="seconds")
    yield "Numbers", past.kind
    yield "Money", "US dollars; net = trading − fees − costs billed − costs estimated + revenue"
    yield "Program", f"pnl {__version__}"


def _local(past: Past, ms: int) -> str:
    return to_instant(ms * 1000).astimezone(past.zone).isoformat()


def write_ledger(
    duck: Duck,
    zone: tzinfo,
    *,
    source: str,
    path: str,
    form: str,
    rows: int,
    sums: Mapping[str, str],
    about: Sequence[tuple[str, str]],
) -> Mapping[str, Any]:
    """Make another format of what `export_ledger` wrote; the process is a slow one from then on.

    Args:
        duck: Reads it.
        zone: The reporting time zone, in which instants are written.
        source: The Parquet file.
        path: The file to write; what a format needs beside it for a while is put into its folder.
        form: One of `WRITERS`.
        rows: As `export_ledger` returned it.
        sums: As `export_ledger` returned them.
        about: As `export_ledger` returned it.

    Raises:
        HistoryError: It cannot be written.
    """
    os.nice(NICENESS)  # pages come first
    sheet = Sheet(about, tuple(TEXTS), (*COUNTS, *MONEY, *RUNNING), sums, rows)
    try:
        file = WRITERS[form](Path(path), sheet)
        for piece in duck.pieces(_texts_of(source), (), ROWS_AT_ONCE):
            file.write((to_instant(at_us).astimezone(zone), *others) for at_us, *others in piece)
        file.close()
    except OSError as error:
        raise HistoryError(f"the file cannot be written: {error.strerror}") from None
    return {}


def _texts_of(source: str) -> str:
    """A query for the rows of a Parquet file, numbers as exact texts."""
    counts, money = (f"{name}::VARCHAR" for name in COUNTS), (_plain(name) for name in (*MONEY, *RUNNING))
    return f"SELECT {', '.join(('epoch_us("at")', *TEXTS, *counts, *money))} FROM read_parquet({quoted(source)})"


def _plain(money: str) -> str:
    """Money as text in SQL: six digits behind the point, and more where it has more."""
    return f"regexp_replace(({money})::VARCHAR, '0{{1,6}}$', '')"
