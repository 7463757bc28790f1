"""The rows behind every figure: what each record did to the P&L, some of them at a time, and the record itself."""

from collections.abc import Hashable, Mapping, Sequence
from datetime import tzinfo
from decimal import Decimal

from pnl.history.figures import Posting, Postings, Version
from pnl.records import ZERO, money
from pnl.views.breakdown import SOURCES
from pnl.views.lines import as_lines, isolated
from pnl.views.panel import Look
from pnl.views.wish import Wish

COLUMNS = ("Time", "What", "Side", "Contracts", "Price", "Trading", "Fees", "AI", "Deals", "Net", "Running")
TITLES = {
    "net": "everything",
    "trading": "trading",
    "fees": "fees",
    "costs": "AI and other costs",
    "billed": "costs, billed",
    "estimated": "costs, estimated",
    "revenue": "deals",
}
USED_BY = {
    "fill": "A YES and a NO are a dollar at once: what the pair brings beyond its average cost is realized.",
    "settlement": "What the contracts that were left paid, less what they cost. Fees are the fills', and count once.",
    "cost": "Counts on its UTC day. An estimate is tokens times the price list, and gives way to the bill.",
    "deal": "Counts on the day it closed, while it is won, invoiced or paid. What the payment cost is a cost.",
}

type Row = tuple[str, ...]
"""The record's kind and name, and one cell for each of `COLUMNS`, for people to read."""


class LedgerPanel:
    """The rows of the range and filters that are looked at, and their sum."""

    def first(self) -> Mapping[str, str]:
        """Nothing."""
        names = ("rows", "first", "count", "sum", "parts", "of", "open")
        return dict.fromkeys((f"ledger.{name}" for name in names), "")

    def depends(self, wish: Wish) -> Hashable:
        """Which rows are wanted."""
        return wish.range, tuple(wish.filters), wish.q, wish.term, wish.sort, wish.first, wish.count

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        wish, range_ = look.wish, look.range
        found = await look.history.ledger(
            *(range_.start, range_.end),
            **wish.postings,
            term=wish.term,
            order=wish.order,
            descending=wish.descending,
            first=wish.first,
            count=wish.count,
        )
        is_whole = wish.range == "all" and not wish.filters and not wish.q
        return _sums(found, wish.term) | {
            "ledger.rows": as_lines(_row(row, look.zone) for row in found.rows),
            "ledger.first": str(wish.first),
            "ledger.open": wish.term if is_whole and wish.term in ("net", "trading") else "",
        }


def _sums(found: Postings, term: str) -> dict[str, str]:
    figures = found.figures
    parts = (figures.trading_usd, -figures.fees_usd, -figures.costs_usd, figures.revenue_usd)
    return {
        "ledger.count": str(found.count),
        "ledger.sum": money(found.amount_usd, signed=True),
        "ledger.of": TITLES[term],
        "ledger.parts": as_lines([[*(money(usd, signed=True) for usd in parts), money(figures.net_usd, signed=True)]]),
    }


def _row(row: Posting, zone: tzinfo) -> Row:
    """A row for people: amounts are what they add to the net P&L, to the cent or finer where they are finer."""
    realized, fees, billed, estimated, revenue = row.usd.values()
    when = f"{row.at.astimezone(zone):%Y-%m-%d}" + (
        "" if row.kind in ("cost", "deal") else f"{row.at.astimezone(zone): %H:%M:%S}"
    )
    return (
        row.kind,
        row.record,
        when,
        what(row),
        row.side.upper() if row.kind == "fill" else row.side,
        "" if row.contracts is None else f"{row.contracts:,.2f}",
        "" if row.price_usd is None else f"${row.price_usd:.4f}",
        *(_amount(usd) for usd in (realized, -fees)),
        _amount(-billed - estimated) + (" est." if estimated else ""),
        _amount(revenue),
        exact(row.amount_usd),
        money(row.running_usd, signed=True),
    )


def what(row: Posting) -> str:
    """What a row is about: text from outside."""
    if row.kind == "cost":
        return f"{isolated(row.key)} · {SOURCES.get(row.source, row.source)}"
    subject = f"{isolated(row.text)} · {isolated(row.key)}" if row.text else isolated(row.key)
    return f"{subject} · settled {row.side}" if row.kind == "settlement" else subject


def _amount(usd: Decimal) -> str:
    return exact(usd) if usd else ""


def exact(usd: Decimal) -> str:
    """Signed money with all of its digits, two at least."""
    shown = money(usd, signed=True)
    if usd == round(usd, 2):
        return shown
    digits = f"{abs(usd):,.6f}".rstrip("0")
    return f"{'-' if usd < ZERO else '+'}${digits}"


class RecordPanel:
    """The record behind the row that is looked at: as the store has it, since when, and what it had before."""

    def first(self) -> Mapping[str, str]:
        """None is looked at."""
        return dict.fromkeys(("record.is", "record.name", "record.rows", "record.used"), "")

    def depends(self, wish: Wish) -> Hashable:
        """Which record it is."""
        return wish.record

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        if look.wish.record is None:
            return self.first()
        kind, name = look.wish.record
        versions = await look.history.record(kind, name)
        rows = [row for version in versions for row in _version(version, look.zone)]
        is_known = "known" if rows else "unknown"
        texts = {"is": is_known, "name": f"{kind} {name}", "rows": as_lines(rows), "used": USED_BY.get(kind, "")}
        return {f"record.{name}": text for name, text in texts.items()}


def _version(version: Version, zone: tzinfo) -> Sequence[tuple[str, str]]:
    since, until = (
        None if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}" for at in (version.since, version.until)
    )
    held = f"read {since}" if until is None else f"read {since}, replaced {until}"
    return [(f"▾ {version.table}", held), *version.values]
