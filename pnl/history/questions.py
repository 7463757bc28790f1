"""What can be asked of the past, one SQL definition per figure; every answer is made of numbers and texts."""

from collections.abc import Callable, Mapping
from itertools import pairwise
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
    month_day,
    offsets,
)
from pnl.history.minutes import ROLLED
from pnl.history.past import Past
from pnl.history.wire import Column, Columns, packed, unpacked
from pnl.records import MONEY_FIELDS

HOUR = 60
DAY_MINUTES = 24 * HOUR
MOST_BUCKETS = 1000
LONGEST_MINUTES = 200 * 366 * DAY_MINUTES

MEAN = "((total - ((total % count + count) % count)) // count)::BIGINT AS mean"  # rounded down, also below zero


def bars(
    past: Past,
    *,
    start_ms: int | None,
    end_ms: int | None,
    bucket: str | None = None,
    column: str = "net_pnl",
    most: int = MOST_BUCKETS,
) -> Mapping[str, Any]:
    """Open, high, low, close, mean and count of one money column, by bucket; what has no data has no bar.

    Args:
        past: What is known.
        start_ms: The first instant, None for the first of all; the minute that it is in counts whole.
        end_ms: The instant behind the last; None for the newest.
        bucket: Its name; None: the finest of which no more than `most` cover the range.
        column: One of `MONEY_FIELDS`.
        most: See `bucket`.

    Returns:
        `bucket`, its name, and `columns`: `start` in ms since the epoch; money in micro-dollars; `count` of snapshots,
        or of changes where `rebuilt` is true.
    """
    if column not in MONEY_FIELDS:
        raise HistoryError(f"there is no money column {column[:40]!r}; choose one of {', '.join(MONEY_FIELDS)}")
    chosen = None if bucket is None else bucket_named(bucket)
    extent = past.extent()
    if extent is None:
        return _answer(chosen or FINEST_FROM_BARS, _nothing())
    start = max(extent[0], (start_ms if start_ms is not None else 0) // MINUTE_MS)
    end = min(extent[1], -(-end_ms // MINUTE_MS) if end_ms is not None else LONGEST_MINUTES)
    if chosen is None:
        chosen = bucket_that_fits(max(0, end - start) * MINUTE_MS, most)
    if end <= start:
        return _answer(chosen, _nothing())
    if chosen.length_ms < MINUTE_MS:
        first = max(start * MINUTE_MS, 0 if start_ms is None else start_ms)
        last = end * MINUTE_MS if end_ms is None else min(end * MINUTE_MS, end_ms)
        cut = _of_snapshots(past, first, last, chosen, column)
    else:
        cut = _of_minutes(past, start, end, chosen, column)
    columns = past.duck.columns(
        f"SELECT start::BIGINT AS start, open, high, low, close, {MEAN}, count::BIGINT AS count, rebuilt "
        f"FROM ({cut}) ORDER BY start"
    )
    columns["start"] = _starts(past, chosen, columns["start"])
    return _answer(chosen, columns)


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
        f"SELECT {key} AS start, {_rolled(column + '_{}', 'minute')}, sum({column}_sum) AS total, "
        f"sum(snapshots) AS count, bool_or(is_rebuilt) AS rebuilt FROM ({source}) GROUP BY 1"
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


def local_time(steps: list[tuple[int, int]], minute: str = "minute") -> str:
    """The minutes of local time since 1970 at a minute, in SQL."""
    cases = " ".join(
        f"WHEN {minute} < {until} THEN {minute} + ({offset})" for (_, offset), (until, _) in pairwise(steps)
    )
    last = f"{minute} + ({steps[-1][1]})"
    return f"CASE {cases} ELSE {last} END" if cases else last


def _of_days(bucket: Bucket, days: str) -> str:
    week = "(start + 3) // 7"  # 1970-01-01 was a Thursday
    month = "datediff('month', DATE '1970-01-01', DATE '1970-01-01' + start::INTEGER)"
    return (
        f"SELECT {week if bucket.name == '1w' else month} AS start, {_rolled('{}', 'start')}, sum(total) AS total, "
        f"sum(count) AS count, bool_or(rebuilt) AS rebuilt FROM ({days}) GROUP BY 1"
    )


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
        f"SELECT {key} AS start, {_rolled('micros', 'at_ms')}, sum(micros) AS total, count(*) AS count, "
        f"FALSE AS rebuilt FROM ({raw}) GROUP BY 1 UNION ALL "
        f"SELECT minute * {MINUTE_MS // bucket.length_ms}, {names}, {column}_sum, snapshots, TRUE FROM rebuilt "
        f"WHERE minute * {MINUTE_MS} >= {start} AND minute * {MINUTE_MS} < {end}"
    )


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


GROUPS: Mapping[str, str] = {
    "component": "component",
    "source": "source",
    "market": "CASE WHEN source = 'kalshi' THEN key END",
    "event": "CASE WHEN source = 'kalshi' THEN event END",
    "series": "CASE WHEN source = 'kalshi' THEN series END",
    "item": "CASE WHEN source NOT IN ('kalshi', 'john') THEN key END",
    "deal": "CASE WHEN source = 'john' THEN key END",
    "day": "DATE '1970-01-01' + (({local}) // 1440)::INTEGER",
    "month": "date_trunc('month', DATE '1970-01-01' + (({local}) // 1440)::INTEGER)::DATE",
    "weekday": "isodow(DATE '1970-01-01' + (({local}) // 1440)::INTEGER)",
    "hour": "(({local}) // 60) % 24",
}
"""By what a range's P&L can be broken down; what a group does not speak of is its part without a name."""


def booked(past: Past, *, start_ms: int | None, end_ms: int | None) -> Mapping[str, Any]:
    """The P&L that was booked in a range, by component, and what was open at its two ends.

    Returns:
        `components`: US dollars as exact text; `open_before` and `open_after`: open P&L in micro-dollars as the last
        snapshot before each end showed it, None where there is none.
    """
    within = _within(start_ms, end_ms)
    rows = past.duck.rows(f"SELECT component, sum(usd)::VARCHAR FROM journal WHERE {within} GROUP BY 1")
    return {
        "components": dict(rows),
        "open_before": None if start_ms is None else _open_at(past, start_ms),
        "open_after": _open_at(past, 1 << 62 if end_ms is None else end_ms),
    }


def _within(start_ms: int | None, end_ms: int | None) -> str:
    start, end = (default if ms is None else ms * 1000 for ms, default in ((start_ms, -(1 << 62)), (end_ms, 1 << 62)))
    return f"at_us >= {start} AND at_us < {end}"


def _open_at(past: Past, ms: int) -> int | None:
    row = past.snapshot_before(ms)
    return None if row is None else int(row[1 + MONEY_FIELDS.index("kalshi_unrealized")])


def breakdown(past: Past, *, start_ms: int | None, end_ms: int | None, by: str) -> Mapping[str, Any]:
    """What was booked in a range, broken down; the parts sum to the whole to the last digit.

    Returns:
        `rows`: the part's name (None: all that the breakdown does not speak of), net, realized, fees, costs and revenue
        in US dollars as exact text, and how many steps; the largest net first, or in order of time.
    """
    if by not in GROUPS:
        raise HistoryError(f"there is no breakdown by {by[:40]!r}; choose one of {', '.join(GROUPS)}")
    [(first, last)] = past.duck.rows("SELECT min(at_us), max(at_us) FROM journal")
    minute = "(at_us // 60000000)"
    steps = offsets((first or 0) // 60_000_000, (last or 0) // 60_000_000 + 1, past.zone)
    key = GROUPS[by].format(local=local_time(steps, minute))
    sums = ", ".join(
        f"coalesce(sum(usd) FILTER ({which}), 0)::VARCHAR"
        for which in (
            "component = 'kalshi_realized'",
            "component = 'kalshi_fees'",
            "component IN ('billed_costs', 'estimated_costs')",
            "component = 'total_revenue'",
        )
    )
    order = key if by in ("day", "month", "weekday", "hour") else "sum(net) DESC, 1"
    rows = past.duck.rows(
        f"SELECT ({key})::VARCHAR, sum(net)::VARCHAR, {sums}, count(*) FROM journal "
        f"WHERE {_within(start_ms, end_ms)} GROUP BY {key} ORDER BY {order}"
    )
    return {"rows": rows}


DRAWDOWNS = """
    WITH line AS (
        SELECT minute, net_pnl_close AS net FROM ({source})
        UNION ALL SELECT min(minute) - 1, arg_min(net_pnl_open, minute) FROM ({source}) HAVING count(*) > 0
    ), highs AS (
        SELECT minute, net, max(net) OVER (ORDER BY minute ROWS UNBOUNDED PRECEDING) AS high FROM line
    ), falls AS (
        SELECT high, min(minute) AS since, min(net) AS low, arg_min(minute, (net, minute)) AS low_at,
            arg_max(net, minute) AS last
        FROM highs GROUP BY high
    )
    SELECT high, since, low, low_at, lead(since) OVER (ORDER BY high) AS recovered, last FROM falls
    QUALIFY high > low OR recovered IS NULL
    ORDER BY recovered IS NULL DESC, high - low DESC
"""


def drawdowns(past: Past, *, start_ms: int | None, end_ms: int | None, most: int = 5) -> Mapping[str, Any]:
    """The high-water mark of net P&L in a range, how far below it the last minute is, and the deepest falls.

    Returns:
        `high`, `high_ms`, `last`, and `falls`, deepest first: high, low, when each was, and when the high was reached
        again (None: not yet). In micro-dollars and ms since the epoch, by what each minute closed at.
    """
    rows = _falls(past, start_ms, end_ms)
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


def _falls(past: Past, start_ms: int | None, end_ms: int | None) -> list[tuple[Any, ...]]:
    """The answer to `DRAWDOWNS`; the fall from the high-water mark is the first."""
    extent = past.extent()
    if extent is None:
        return []
    start = extent[0] if start_ms is None else start_ms // MINUTE_MS
    end = extent[1] if end_ms is None else -(-end_ms // MINUTE_MS)
    source = past.bars_between("net_pnl", start, end, by_hours=False)
    return past.duck.rows(DRAWDOWNS.format(source=source))


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
    for function in (Past.archive, bars, export, booked, breakdown, drawdowns, snapshot_at, records_at)
}
