"""What can be asked of the postings: every figure of a range is a sum of its rows, and here are the rows.

A filter is a pair: a dimension and the name of one of its parts, as a breakdown by it gives it (None: all that it does
not speak of).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pnl.errors import HistoryError
from pnl.history.buckets import local_time, offsets
from pnl.history.dimensions import DIMENSIONS, OF_TIME, ORDERS, TERMS, Filters
from pnl.history.past import Past
from pnl.journal import COMPONENTS
from pnl.schema import COSTS, DEALS, FILLS, SETTLEMENTS

COLUMNS: Mapping[str, str] = {
    **{name: name for name in COMPONENTS},
    "net_pnl": "net",
    "kalshi_pnl": "kalshi_realized - kalshi_fees",
    "total_costs": "billed_costs + estimated_costs",
}
"""The money columns of a snapshot that records make, of one posting."""
SUMS = ", ".join(
    (
        *(f"coalesce(sum({name}), 0)::VARCHAR" for name in COMPONENTS),
        "coalesce(sum(kalshi_realized) FILTER (kalshi_realized > 0), 0)::VARCHAR",
        "coalesce(-sum(kalshi_realized) FILTER (kalshi_realized < 0), 0)::VARCHAR",
        "count(*)",
        "count(*) FILTER (kind = 'fill')",
        "count(*) FILTER (kalshi_realized > 0)",
        "count(*) FILTER (kalshi_realized < 0)",
    )
)
ROW = "kind, source, record, at_us, key, text, side, contracts::VARCHAR, price::VARCHAR"
AMOUNTS = ", ".join(f"{name}::VARCHAR" for name in COMPONENTS)
MOST_ROWS = 10_000
WORKED_OUT = {"fill": FILLS, "settlement": SETTLEMENTS, "cost": COSTS, "deal": DEALS}


class Chosen(NamedTuple):
    """A condition over the postings, in SQL, and the values in it."""

    condition: str
    values: list[object]


def chosen(past: Past, start_ms: int | None, end_ms: int | None, filters: Filters = (), search: str = "") -> Chosen:
    """The postings of a range that pass every filter and hold a text.

    Raises:
        HistoryError: There is no such dimension.
    """
    parts, values = [_within(start_ms, end_ms)], list[object]()
    for dimension, name in filters:
        key = _key(past, dimension)
        parts.append(f"({key})::VARCHAR = ?" if name is not None else f"({key}) IS NULL")
        values += [name] if name is not None else []
    if search:
        parts.append("contains(lower(concat_ws(' ', key, text, kind, source, side)), lower(?))")
        values.append(search)
    return Chosen(" AND ".join(parts), values)


def _within(start_ms: int | None, end_ms: int | None) -> str:
    start, end = (default if ms is None else ms * 1000 for ms, default in ((start_ms, -(1 << 62)), (end_ms, 1 << 62)))
    return f"at_us >= {start} AND at_us < {end}"


def _key(past: Past, dimension: str) -> str:
    """What a dimension is of one posting."""
    if dimension not in DIMENSIONS:
        raise HistoryError(f"there is no breakdown by {dimension[:40]!r}; choose one of {', '.join(DIMENSIONS)}")
    return DIMENSIONS[dimension].format(local=_local(past) if dimension in OF_TIME else "")


def _local(past: Past) -> str:
    """The minute of local time at which a posting was made."""
    [(first, last)] = past.duck.rows(f"SELECT min(at_us), max(at_us) FROM {past.postings}")
    steps = offsets((first or 0) // 60_000_000, (last or 0) // 60_000_000 + 1, past.zone)
    return local_time(steps, "(at_us // 60000000)")


def sums(past: Past, which: Chosen) -> Sequence[Any]:
    """What these postings sum to, as `SUMS` names it: US dollars as exact text, and counts."""
    [row] = past.duck.rows(f"SELECT {SUMS} FROM {past.postings} WHERE {which.condition}", which.values)
    return row


def breakdown(
    past: Past, *, start_ms: int | None, end_ms: int | None, by: str, filters: Filters = (), search: str = ""
) -> Mapping[str, Any]:
    """What was booked in a range, broken down; the parts sum to the whole to the last digit.

    Returns:
        `rows`: the part's name (None: all that the dimension does not speak of), what somebody else wrote about it,
        and its `SUMS`; the largest net first, or in order of time.
    """
    key = _key(past, by)
    text = f"CASE WHEN ({key}) IS NULL THEN '' ELSE coalesce(max(text), '') END" if by == "deal" else "''"
    which = chosen(past, start_ms, end_ms, filters, search)
    order = key if by in OF_TIME else "sum(net) DESC, 1"
    rows = past.duck.rows(
        f"SELECT ({key})::VARCHAR, {text}, {SUMS} FROM {past.postings} "
        f"WHERE {which.condition} GROUP BY {key} ORDER BY {order}",
        which.values,
    )
    return {"rows": rows}


def ledger(
    past: Past,
    *,
    start_ms: int | None,
    end_ms: int | None,
    filters: Filters = (),
    search: str = "",
    term: str = "net",
    order: str = "time",
    descending: bool = True,
    first: int = 0,
    count: int = 100,
) -> Mapping[str, Any]:
    """Some of the postings of a range, one by one, and what all of them sum to.

    Args:
        past: What is known.
        start_ms: The first instant; None: of all.
        end_ms: The instant behind the last; None: of all.
        filters: All of which a posting has to pass.
        search: A text that it has to hold.
        term: The term of the equation whose share is its `amount`; postings without a share are left out.
        order: One of `ORDERS`; what is equal comes in order of time.
        descending: The largest, or newest, first.
        first: How many rows are skipped.
        count: How many rows are wanted.

    Returns:
        `count` and `sums` of all of them (`amount` first, then as `SUMS` names it), and `rows`: `ROW`, the amounts by
        component, `amount`, and `amount` summed up to this row in order of time, all of them exact texts.
    """
    if order not in ORDERS:
        raise HistoryError(f"rows cannot be ordered by {order[:40]!r}; choose one of {', '.join(ORDERS)}")
    which = with_share(chosen(past, start_ms, end_ms, filters, search), term)
    way = "DESC" if descending else "ASC"
    keys = (ORDERS[order], "at_us", "kind", "source", "record")
    found = _listed(past, which, TERMS[term], ", ".join(f"{key} {way} NULLS LAST" for key in keys))
    first = max(first, 0)
    rows = past.duck.rows(
        f"SELECT {ROW}, {AMOUNTS}, amount::VARCHAR, running::VARCHAR FROM listed "
        f"WHERE place > {first} AND place <= {first + min(count, MOST_ROWS)} ORDER BY place"
    )
    return {**found, "rows": rows}


def _listed(past: Past, which: Chosen, amount: str, order: str) -> Mapping[str, Any]:
    """What these postings sum to; they stand in the table `listed` then, in this order, until others are asked for.

    Summing up and sorting 100,000 of them takes half a second: too long for each page that somebody scrolls to.
    """
    table, asked = past.postings, (which, amount, order)
    if past.listed is None or past.listed[0] != asked:
        past.listed = None
        past.duck.rows(
            f"CREATE OR REPLACE TABLE listed AS SELECT *, row_number() OVER (ORDER BY {order}) AS place "
            f"FROM (SELECT *, {amount} AS amount, sum({amount}) OVER (ORDER BY at_us, kind, source, record) AS running "
            f"FROM {table} WHERE {which.condition}) ORDER BY place",
            which.values,
        )
        [(total,)] = past.duck.rows("SELECT coalesce(sum(amount), 0)::VARCHAR FROM listed")
        past.listed = asked, {"amount": total, "sums": sums(past, which)}
    return past.listed[1]


def with_share(which: Chosen, term: str) -> Chosen:
    """Those of these postings that have a share in a term of the equation.

    Raises:
        HistoryError: There is no such term.
    """
    if term not in TERMS:
        raise HistoryError(f"the equation has no term {term[:40]!r}; choose one of {', '.join(TERMS)}")
    return which if term == "net" else Chosen(f"{which.condition} AND {TERMS[term]} <> 0", which.values)


def record(past: Past, *, kind: str, name: str) -> Mapping[str, Any]:
    """The record behind a posting, as the store has it, in every version.

    Returns:
        `versions`, the newest first: the table, its columns with their values, and from when until when it was known
        so, in ms since the epoch (None: it still is). Empty if there is no such record.
    """
    if kind not in WORKED_OUT:
        raise HistoryError(f"there are no records of the kind {kind[:40]!r}; choose one of {', '.join(WORKED_OUT)}")
    table = WORKED_OUT[kind]
    found = [version for version in past.versions if version.table is table and _is_called(version.row, kind, name)]
    return {
        "versions": [
            {
                "table": table.name,
                "values": [(column, str(value)) for column, value in zip(table.columns, version.row, strict=True)],
                "since_ms": version.since_ms,
                "until_ms": None if version.is_current else version.until_ms,
            }
            for version in sorted(found, key=lambda version: version.since_ms, reverse=True)
        ]
    }


def _is_called(row: Sequence[Any], kind: str, name: str) -> bool:
    match kind:
        case "cost":
            return f"{row[1]} {row[2]}" == name
        case "deal":
            return f"{row[0]} {row[1]}" == name
        case _:
            return bool(row[0] == name)


def running(past: Past, column: str, filters: Filters) -> Chosen:
    """A query for a money column as the postings that pass these filters make it, posting by posting.

    It has `minute`, `at_us`, `number`, and `opening` and `closing`: what they sum to before this one and behind it, in
    whole micro-dollars.

    Raises:
        HistoryError: The column is not made by records.
    """
    if column not in COLUMNS:
        raise HistoryError(f"records do not make {column[:40]!r}; choose one of {', '.join(COLUMNS)}")
    which = chosen(past, None, None, filters)
    amount = COLUMNS[column]
    inner = (
        f"SELECT at_us, row_number() OVER this AS number, {amount} AS amount, sum({amount}) OVER this AS total "
        f"FROM {past.postings} WHERE {which.condition} WINDOW this AS (ORDER BY at_us, kind, source, record)"
    )
    return Chosen(
        f"SELECT at_us // 60000000 AS minute, at_us, number, {_micros('total - amount')} AS opening, "
        f"{_micros('total')} AS closing FROM ({inner})",
        which.values,
    )


def _micros(usd: str) -> str:
    return f"(({usd})::DECIMAL(30, 6) * 1000000)::BIGINT"
