"""The names by which postings are broken down, filtered and summed up, and what each is in SQL.

Whoever reads names from an address or a command line looks them up here, without DuckDB.
"""

from collections.abc import Iterable, Mapping, Sequence

from pnl.errors import HistoryError

DAY = "DATE '1970-01-01' + (({local}) // 1440)::INTEGER"
DIMENSIONS: Mapping[str, str] = {
    "source": "source",
    "kind": "kind",
    "market": "CASE WHEN source = 'kalshi' THEN key END",
    "event": "CASE WHEN source = 'kalshi' THEN event END",
    "series": "CASE WHEN source = 'kalshi' THEN series END",
    "side": "CASE WHEN kind = 'fill' THEN side END",
    "item": "CASE WHEN source NOT IN ('kalshi', 'john') THEN key END",
    "deal": "CASE WHEN source = 'john' THEN key END",
    "day": DAY,
    "month": f"date_trunc('month', {DAY})::DATE",
    "weekday": f"isodow({DAY})",
    "hour": "(({local}) // 60) % 24",
}
"""By what postings can be broken down and filtered; what a dimension does not speak of is its part without a name."""
OF_TIME = frozenset({"day", "month", "weekday", "hour"})

TERMS: Mapping[str, str] = {
    "net": "net",
    "trading": "kalshi_realized",
    "fees": "-kalshi_fees",
    "costs": "-(billed_costs + estimated_costs)",
    "billed": "-billed_costs",
    "estimated": "-estimated_costs",
    "revenue": "total_revenue",
}
"""What of a posting adds to the net P&L, by the equation's terms."""

ORDERS: Mapping[str, str] = {
    "time": "at_us",
    "amount": "amount",
    "source": "source",
    "what": "lower(key)",
    "side": "side",
    "contracts": "contracts",
    "price": "price",
}
"""By what postings can be ordered."""

type Filters = Sequence[tuple[str, str | None]]


def filters_of(texts: Iterable[str]) -> Filters:
    """Filters as a person types them: `series=KXBTCD`; without a name, all that the dimension does not speak of.

    Raises:
        HistoryError: One has no `=`.
    """
    found = []
    for text in texts:
        dimension, equals, name = text.partition("=")
        if not equals:
            raise HistoryError(f"the filter {text[:60]!r} should look like series=KXBTCD")
        found.append((dimension.strip(), name.strip() or None))
    return tuple(found)
