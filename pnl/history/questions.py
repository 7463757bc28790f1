"""What can be asked of the past, one SQL definition per figure; every answer is made of numbers and texts."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pnl.errors import HistoryError
from pnl.history.buckets import (
    FINEST_FROM_BARS,
    MINUTE_MS,
    Bucket,
    bucket_named,
    bucket_that_fits,
    day_start_ms,
    local_time,
    month_day,
    offsets,
)
from pnl.history.dimensions import Filters
from pnl.history.ledger_export import export_ledger
from pnl.history.minutes import ROLLED
from pnl.history.past import Past
from pnl.history.postings import (
    Chosen,
    breakdown,
    chosen,
    ledger,
    record,
    running,
    sums,
)
from pnl.history.wire import Column, Columns, packed, unpacked
from pnl.records import MONEY_FIELDS

HOUR = 60
DAY_MINUTES = 24 * HOUR
MOST_BUCKETS = 1000
LONGEST_MINUTES = 200 * 366 * DAY_MINUTES


def bars(
    past: Past,
    *,
    start_ms: int | None,
    end_ms: int | None,
    bucket: str | None = None,
    column: str = "net_pnl",
    most: int = MOST_BUCKETS,
    filters: Filters = (),
) -> Mapping[str, Any]:
    """Open, high, low, close, mean and count of one money column, by bucket; what has no data has no bar.

    Args:
        past: What is known.
        start_ms: The first instant, None for the first of all; the minute that it is in counts whole.
        end_ms: The instant behind the last; None for the newest.
        bucket: Its name; None: the finest of which no more than `most` cover the range.
        column: One of `MONEY_FIELDS`.
        most: See `bucket`.
        filters: If there are any, bars are made of the postings that pass all of them, as far back as there are some.

    Returns:
        `bucket`, its name, and `columns`: `start` in ms since the epoch; money in micro-dollars; `count` of snapshots,
        or of changes where `rebuilt` is true.
    """
    if column not in MONEY_FIELDS:
        raise HistoryError(f"there is no money column {column[:40]!r}; choose one of {', '.join(MONEY_FIELDS)}")
    cut = None if bucket is None else bucket_named(bucket)
    extent = past.extent()
    if extent is None:
        return _answer(cut or FINEST_FROM_BARS, _nothing())
    start = max(extent[0], (start_ms if start_ms is not None else 0) // MINUTE_MS)
    end = min(extent[1], -(-end_ms // MINUTE_MS) if end_ms is not None else LONGEST_MINUTES)
    if cut is None:
        cut = bucket_that_fits(max(0, end - start) * MINUTE_MS, most)
    if end <= start:
        return _answer(cut, _nothing())
    if filters:
        query = _of_postings(past, start, end, cut, running(past, column, filters))
    elif cut.length_ms < MINUTE_MS:
        first = max(start * MINUTE_MS, 0 if start_ms is None else start_ms)
        last = end * MINUTE_MS if end_ms is None else min(end * MINUTE_MS, end_ms)
        query = Chosen(_of_snapshots(past, first, last, cut, column), [])
    else:
        query = Chosen(_of_minutes(past, start, end, cut, column), [])
    columns = _finished(past.duck.columns(query.condition, query.values))
    columns["start"] = _starts(past, cut, columns["start"])
    return _answer(cut, columns)


def _finished(found: Columns) -> Columns:
    """Bars in order of time, with their means rounded down.

    In SQL this would take longer to plan than all the rest: a sum may be too long for a number, and comes as text.
    """
    order = np.argsort(found["start"])
    columns = {name: values[order] for name, values in found.items()}
    totals, counts = columns.pop("total").tolist(), columns["count"].tolist()
    means = [int(total) // count for total, count in zip(totals, counts, strict=True)]
    return columns | {"mean": np.array(means, np.int64)}


def _answer(bucket: Bucket, columns: Columns) -> Mapping[str, Any]:
    return {"bucket": bucket.name, "columns": packed(columns)}


def _nothing() -> Columns:
    names = ("start", "open", "high", "low", "close", "mean", "count")
    return {name: np.zeros(0, np.int64) for name in names} | {"rebuilt": np.zeros(0, np.bool_)}


def _of_minutes(past: Past, start: int, end: int, bucket: Bucket, column: str) -> str:
    """A query for the buckets between two minutes; `start` counts buckets, days, weeks or months."""
    key, by_hours = _key(bucket, offsets(start, end, past.zone) if bucket.calendar else [])
    source = past.bars_between(column, start, end, by_hours=by_hours)
    query = (
        f"SELECT {key} AS start, {_rolled(column + '_{}', 'minute')}, sum({column}_sum)::VARCHAR AS total, "
        f"sum(snapshots)::BIGINT AS count, bool_or(is_rebuilt) AS rebuilt FROM ({source}) GROUP BY 1"
    )
    return _of_days(bucket, query) if bucket.calendar and bucket.name != "1d" else query


def _rolled(column: str, order: str) -> str:
    """Open, high, low and close, each of the column that has its name in place of `{}`."""
    return ", ".join(f"{sql.format(column.format(part), order)} AS {part}" for part, sql in ROLLED.items())


def _key(bucket: Bucket, steps: list[tuple[int, int]]) -> tuple[str, bool]:
    """In which bucket a minute is, and whether whole hours may be read in its place."""
    if not bucket.calendar:
        minutes = bucket.length_ms // MINUTE_MS
        return f"minute // {minutes}", minutes % HOUR == 0
    whole_hours = all(minute % HOUR == 0 or minute == steps[0][0] for minute, _ in steps)
    return f"({local_time(steps)}) // {DAY_MINUTES}", whole_hours and all(offset % HOUR == 0 for _, offset in steps)


def _of_days(bucket: Bucket, days: str) -> str:
    return (
        f"SELECT {_of_day(bucket)} AS start, {_rolled('{}', 'start')}, sum(total::HUGEINT)::VARCHAR AS total, "
        f"sum(count)::BIGINT AS count, bool_or(rebuilt) AS rebuilt FROM ({days}) GROUP BY 1"
    )


def _of_day(bucket: Bucket) -> str:
    """The week or month of a day, all of them counted from 1970."""
    if bucket.name == "1w":
        return "(start + 3) // 7"  # 1970-01-01 was a Thursday
    return "datediff('month', DATE '1970-01-01', DATE '1970-01-01' + start::INTEGER)"


def _starts(past: Past, bucket: Bucket, numbers: Column) -> Column:
    """When each bucket begins, in ms since the epoch."""
    if not bucket.calendar:
        return numbers * bucket.length_ms
    to_days: dict[str, Callable[[int], int]] = {"1d": int, "1w": lambda week: 7 * week - 3, "1mo": month_day}
    to_day = to_days[bucket.name]
    starts = [day_start_ms(to_day(int(number)), past.zone) for number in numbers]
    return np.array(starts, np.int64)


def _of_snapshots(past: Past, start: int, end: int, bucket: Bucket, column: str) -> str:
    """A query for buckets of less than a minute: from snapshots one by one, and the rebuilt minutes before them."""
    raw = past.snapshots_between(column, start, end)
    key = f"at_ms // {bucket.length_ms}"
    names = ", ".join(f"{column}_{part} AS {part}" for part in ROLLED)
    return (
        f"SELECT {key} AS start, {_rolled('micros', 'at_ms')}, sum(micros)::VARCHAR AS total, count(*) AS count, "
        f"FALSE AS rebuilt FROM ({raw}) GROUP BY 1 UNION ALL "
        f"SELECT minute * {MINUTE_MS // bucket.length_ms}, {names}, {column}_sum::VARCHAR, snapshots, TRUE "
        f"FROM rebuilt WHERE minute * {MINUTE_MS} >= {start} AND minute * {MINUTE_MS} < {end}"
    )


def _of_postings(past: Past, start: int, end: int, bucket: Bucket, of: Chosen) -> Chosen:
    """A query for the buckets between two minutes of what some postings make, summed up from the first of them."""
    if bucket.length_ms < MINUTE_MS:
        key = f"at_us // {bucket.length_ms * 1000}"
    else:
        key, _ = _key(bucket, offsets(start, end, past.zone) if bucket.calendar else [])
    query = (
        f"SELECT {key} AS start, arg_min(opening, number) AS open, max(greatest(opening, closing)) AS high, "
        "min(least(opening, closing)) AS low, arg_max(closing, number) AS close, sum(closing)::VARCHAR AS total, "
        f"count(*) AS count, TRUE AS rebuilt FROM ({of.condition}) "
        f"WHERE minute >= {start} AND minute < {end} GROUP BY 1"
    )
    return Chosen(_of_days(bucket, query) if bucket.calendar and bucket.name != "1d" else query, of.values)


def booked(
    past: Past, *, start_ms: int | None, end_ms: int | None, filters: Filters = (), search: str = ""
) -> Mapping[str, Any]:
    """The P&L that was booked in a range, and what was open at its two ends.

    Returns:
        `sums`, see `postings.SUMS`; `open_before` and `open_after`: open P&L in micro-dollars as the last snapshot
        before each end showed it, None where there is none, and if it is not all that is asked for.
    """
    found = {"sums": sums(past, chosen(past, start_ms, end_ms, filters, search))}
    if filters or search:
        return {**found, "open_before": None, "open_after": None}
    return {
        **found,
        "open_before": None if start_ms is None else _open_at(past, start_ms),
        "open_after": _open_at(past, 1 << 62 if end_ms is None else end_ms),
    }


def _open_at(past: Past, ms: int) -> int | None:
    row = past.snapshot_before(ms)
    return None if row is None else int(row[1 + MONEY_FIELDS.index("kalshi_unrealized")])


def export(past: Past, *, path: str, **asked: Any) -> Mapping[str, Any]:
    """Write bars to a Parquet file: `bucket_start` in UTC, money as decimals of US dollars with 6 digits.

    Args:
        past: What is known.
        path: The file; one that is there is replaced once the new one is whole.
        **asked: See `bars`.

    Returns:
        `rows`: how many.
    """
    columns = unpacked(bars(past, **asked)["columns"])
    money = ", ".join(f"({name}::DECIMAL(18, 0) * 0.000001)::DECIMAL(18, 6) AS {name}" for name in ROLLED)
    past.duck.write_parquet(
        f"SELECT make_timestamptz(start * 1000) AS bucket_start, {money}, count FROM given", columns, path
    )
    return {"rows": len(columns["start"])}


HIGHS = """
    source AS (
        {source}
    ), line AS (
        SELECT minute, net_pnl_close AS net FROM source
        UNION ALL SELECT min(minute) - 1, arg_min(net_pnl_open, minute) FROM source HAVING count(*) > 0
    ), highs AS (
        SELECT minute, net, max(net) OVER (ORDER BY minute ROWS UNBOUNDED PRECEDING) AS high FROM line
    )
"""
DRAWDOWNS = """
    WITH {highs}, falls AS (
        SELECT high, min(minute) AS since, min(net) AS low, arg_min(minute, (net, minute)) AS low_at,
            arg_max(net, minute) AS last
        FROM highs GROUP BY high
    )
    SELECT high, since, low, low_at, lead(since) OVER (ORDER BY high) AS recovered, last FROM falls
    QUALIFY high > low OR recovered IS NULL
    ORDER BY recovered IS NULL DESC, high - low DESC
"""


def drawdowns(
    past: Past, *, start_ms: int | None, end_ms: int | None, most: int = 5, filters: Filters = ()
) -> Mapping[str, Any]:
    """The high-water mark of net P&L in a range, how far below it the last minute is, and the deepest falls.

    Returns:
        `high`, `high_ms`, `last`, and `falls`, deepest first: high, low, when each was, and when the high was reached
        again (None: not yet). In micro-dollars and ms since the epoch, by what each minute closed at.
    """
    rows = _falls(past, start_ms, end_ms, filters)
    if not rows:
        return {"high": None, "high_ms": None, "last": None, "falls": []}
    newest = rows[0]
    falls = sorted((row for row in rows if row[0] > row[2]), key=lambda row: row[2] - row[0])[:most]
    return {
        "high": newest[0],
        "high_ms": newest[1] * MINUTE_MS,
        "last": newest[5],
        "falls": [
            [high, since * MINUTE_MS, low, low_at * MINUTE_MS, None if recovered is None else recovered * MINUTE_MS]
            for high, since, low, low_at, recovered, _ in falls
        ],
    }


def _falls(past: Past, start_ms: int | None, end_ms: int | None, filters: Filters) -> list[tuple[Any, ...]]:
    """The answer to `DRAWDOWNS`; the fall from the high-water mark is the first."""
    edges = _edges(past, start_ms, end_ms)
    if edges is None:
        return []
    source = _line(past, *edges, filters)
    return past.duck.rows(DRAWDOWNS.format(highs=HIGHS.format(source=source.condition)), source.values)


def _edges(past: Past, start_ms: int | None, end_ms: int | None) -> tuple[int, int] | None:
    """From and until which minute a range goes, as far as something is known; None if nothing is."""
    extent = past.extent()
    if extent is None:
        return None
    start = extent[0] if start_ms is None else start_ms // MINUTE_MS
    return start, extent[1] if end_ms is None else -(-end_ms // MINUTE_MS)


def _line(past: Past, start: int, end: int, filters: Filters) -> Chosen:
    """A query for the minutes of net P&L: `minute`, and what it opened and closed at."""
    if not filters:
        return Chosen(past.bars_between("net_pnl", start, end, by_hours=False), [])
    of = running(past, "net_pnl", filters)
    return Chosen(
        "SELECT minute, arg_min(opening, number) AS net_pnl_open, arg_max(closing, number) AS net_pnl_close "
        f"FROM ({of.condition}) WHERE minute >= {start} AND minute < {end} GROUP BY 1",
        of.values,
    )


def underwater(
    past: Past,
    *,
    start_ms: int | None,
    end_ms: int | None,
    since_ms: int | None = None,
    most: int = MOST_BUCKETS,
    filters: Filters = (),
) -> Mapping[str, Any]:
    """How far net P&L was below its high-water mark in a range, by what each minute closed at.

    The mark is the highest since `since_ms`, or since the range begins.

    Returns:
        `bucket`, the name of the finest of which no more than `most` cover the range, and `columns`: `start` in ms
        since the epoch, `high` at the end of the bucket and `under`, the deepest in it and never above zero, in
        micro-dollars.
    """
    edges = _edges(past, start_ms, end_ms)
    if edges is None or edges[1] <= edges[0]:
        names = ("start", "high", "under")
        return {"bucket": FINEST_FROM_BARS.name, "columns": packed({name: np.zeros(0, np.int64) for name in names})}
    start, end = edges
    cut = max(bucket_that_fits((end - start) * MINUTE_MS, most), FINEST_FROM_BARS, key=lambda bucket: bucket.length_ms)
    key, _ = _key(cut, offsets(start, end, past.zone) if cut.calendar else [])
    since = start if since_ms is None else min(since_ms // MINUTE_MS, start)
    source = _line(past, since, end, filters)
    days = (
        f"SELECT {key} AS start, arg_max(high, minute) AS high, min(net - high) AS under FROM highs "
        f"WHERE minute >= {start} GROUP BY 1"
    )
    if cut.calendar and cut.name != "1d":
        days = f"SELECT {_of_day(cut)} AS start, max(high) AS high, min(under) AS under FROM ({days}) GROUP BY 1"
    columns = past.duck.columns(
        f"WITH {HIGHS.format(source=source.condition)} SELECT start::BIGINT AS start, high::BIGINT AS high, "
        f"under::BIGINT AS under FROM ({days}) ORDER BY start",
        source.values,
    )
    columns["start"] = _starts(past, cut, columns["start"])
    return _answer(cut, columns)


def snapshot_at(past: Past, *, at_ms: int) -> Mapping[str, Any]:
    """The snapshot that was shown at an instant: the last one taken by then, as the store's row; None before any."""
    return {"row": past.snapshot_before(at_ms + 1)}


def records_at(past: Past, *, at_ms: int) -> Mapping[str, Any]:
    """The rows of the records known at an instant, by table."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for version in past.versions:
        if version.is_known(at_ms):
            rows.setdefault(version.table.name, []).append(version.row)
    return {"rows": rows}


QUESTIONS: Mapping[str, Callable[..., Mapping[str, Any]]] = {
    function.__name__: function
    for function in (
        *(Past.archive, bars, export, drawdowns, underwater, snapshot_at, records_at),
        *(booked, breakdown, ledger, export_ledger, record),
    )
}
