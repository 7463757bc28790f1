"""The arithmetic of trading: fills and settlements in, positions and exact P&L out; pure, without I/O or a clock.

Realized and unrealized P&L exclude fees. One YES and one NO of a market are one dollar at once, so an acquisition of
the other side closes what is held, at average cost. What is closed moves out of the cost basis rounded to 1e-8 USD,
and the same amount moves into realized P&L: the rounding shifts between the two and never leaks.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Literal

from pnl.records import CENT, ZERO, Fill, Mark, Result, Settlement, Side

ONE = Decimal(1)
BASIS_UNIT = Decimal("1e-8")

MarkRule = Literal["mid", "bid"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of realized P&L or fees, at the instant it happened, and the record that made it."""

    ticker: str
    at: datetime
    realized_usd: Decimal
    fee_usd: Decimal
    record: Fill | Settlement

    @property
    def pnl_usd(self) -> Decimal:
        """What this instant added to the P&L, after fees."""
        return self.realized_usd - self.fee_usd


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of one market: `count` is positive for YES and negative for NO, `basis_usd` what it cost."""

    count: Decimal = ZERO
    basis_usd: Decimal = ZERO

    @property
    def average_yes_price_usd(self) -> Decimal | None:
        """The YES price at which the position stands, None when flat."""
        if not self.count:
            return None
        average = self.basis_usd / abs(self.count)
        return average if self.count > 0 else ONE - average

    def value_usd(self, yes_price_usd: Decimal) -> Decimal:
        """What the position is worth when one YES is worth `yes_price_usd`."""
        return self.count * yes_price_usd if self.count > 0 else -self.count * (ONE - yes_price_usd)


@dataclass(frozen=True, slots=True)
class Book:
    """One market, folded: what is still held, every change of its P&L, and what is odd about its records.

    `realized_usd`, before fees, and `fees_usd` are the exact sums of its entries, `newest_at` the instant of the last.
    """

    ticker: str
    position: Position
    entries: tuple[Entry, ...]
    fill_count: int
    is_settled: bool
    oddity: str | None = None
    realized_usd: Decimal = field(init=False)
    fees_usd: Decimal = field(init=False)
    newest_at: datetime | None = field(init=False)

    def __post_init__(self) -> None:
        # Added up once: every poll compares them with the venue's own figures.
        object.__setattr__(self, "realized_usd", sum((entry.realized_usd for entry in self.entries), ZERO))
        object.__setattr__(self, "fees_usd", sum((entry.fee_usd for entry in self.entries), ZERO))
        object.__setattr__(self, "newest_at", max((entry.at for entry in self.entries), default=None))


@dataclass(frozen=True, slots=True)
class Totals:
    """The trading account as a whole; `unpriced` are open markets that no mark is known for."""

    realized_usd: Decimal = ZERO
    unrealized_usd: Decimal = ZERO
    fees_usd: Decimal = ZERO
    fill_count: int = 0
    open_fill_count: int = 0
    settled_market_count: int = 0
    unpriced: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()

    @property
    def pnl_usd(self) -> Decimal:
        """Trading P&L after fees."""
        return self.realized_usd + self.unrealized_usd - self.fees_usd


def acquire(position: Position, fill: Fill) -> tuple[Position, Decimal]:
    """Apply one fill: the position after it, and the P&L that its pairs of YES and NO realized."""
    signed = fill.count if fill.side == "yes" else -fill.count
    if position.count * signed >= 0:
        return Position(position.count + signed, position.basis_usd + fill.cost_usd), ZERO
    closed = min(fill.count, abs(position.count))
    released = position.basis_usd
    if closed < abs(position.count):
        released = (position.basis_usd * closed / abs(position.count)).quantize(BASIS_UNIT)
    price = fill.cost_usd / fill.count
    opened_usd = (fill.count - closed) * price
    after = Position(position.count + signed, position.basis_usd - released + opened_usd)
    return after, closed - released - closed * price


def fold(ticker: str, fills: Iterable[Fill], settlement: Settlement | None = None) -> Book:
    """Put one market's records together.

    Args:
        ticker: The market.
        fills: Its fills, in any order, each `fill_id` once.
        settlement: How it ended, if it did.

    Returns:
        The market's book. The settlement row only adds what the fills do not show: a market that was traded before
        the oldest fill still counts, and its fees are counted once.
    """
    position = Position()
    entries = []
    ordered = sorted(fills, key=lambda fill: (fill.filled_at, fill.fill_id))
    for fill in ordered:
        position, realized_usd = acquire(position, fill)
        entries.append(Entry(ticker, fill.filled_at, realized_usd, fill.fee_usd, fill))
    book = Book(ticker, position, tuple(entries), len(ordered), is_settled=False)
    return book if settlement is None else _settle(book, ordered, settlement)


def _settle(book: Book, fills: list[Fill], row: Settlement) -> Book:
    acquired = {side: sum((f.count for f in fills if f.side == side), ZERO) for side in ("yes", "no")}
    if row.yes_count > acquired["yes"] or row.no_count > acquired["no"]:
        closing, oddity = _close_from_row(book, row)
        if fills:
            oddity = oddity or "the settlement holds contracts that no fill shows; the settlement counts"
    else:
        payout_usd, oddity = payout(row, book.position.count, book.position.basis_usd)
        closing = Entry(book.ticker, row.settled_at, payout_usd - book.position.basis_usd, ZERO, row)
    return replace(book, position=Position(), entries=(*book.entries, closing), is_settled=True, oddity=oddity)


def _close_from_row(book: Book, row: Settlement) -> tuple[Entry, str | None]:
    """What the row says of the market's whole life, less what the fills realized and paid already."""
    pairs = min(row.yes_count, row.no_count)
    cost_usd = row.yes_cost_usd + row.no_cost_usd
    payout_usd, oddity = payout(row, row.yes_count - row.no_count, cost_usd - pairs)
    lifetime_usd = payout_usd + pairs - cost_usd
    realized_usd, fee_usd = lifetime_usd - book.realized_usd, row.fee_usd - book.fees_usd
    return Entry(book.ticker, row.settled_at, realized_usd, fee_usd, row), oddity


def payout(row: Settlement, net_count: Decimal, basis_usd: Decimal) -> tuple[Decimal, str | None]:
    """What the surviving position pays, from the result rather than from the row's own `revenue`.

    Returns:
        US dollars, and what is odd: some accounts get rows whose revenue is zero throughout.
    """
    if row.result is Result.VOID:
        return basis_usd, None
    if (value_usd := _yes_value(row)) is None:
        return row.revenue_usd, None
    due_usd = Position(net_count).value_usd(value_usd)
    holds_counts = bool(row.yes_count or row.no_count)
    gap_usd = abs(row.revenue_usd - due_usd)
    if holds_counts and gap_usd >= CENT:
        return due_usd, f"the venue reports revenue {row.revenue_usd}, its result {row.result} makes {due_usd}"
    rounded_by_venue = holds_counts and row.result is Result.SCALAR  # scalar payouts are paid in whole cents
    return (row.revenue_usd if rounded_by_venue else due_usd), None


def _yes_value(row: Settlement) -> Decimal | None:
    if row.result is Result.SCALAR:
        return row.value_usd
    return ONE if row.result is Result.YES else ZERO


def mark_price(mark: Mark, *, is_yes: bool, rule: MarkRule = "mid") -> Decimal:
    """The YES price that values a position: the middle of the book, or what it could be sold for at once (`bid`)."""
    if rule == "bid":
        return mark.yes_bid_usd if is_yes else mark.yes_ask_usd
    return (mark.yes_bid_usd + mark.yes_ask_usd) / 2


def unrealized(position: Position, mark: Mark, *, rule: MarkRule = "mid") -> Decimal:
    """Open P&L of a position at a mark, before fees."""
    price = mark_price(mark, is_yes=position.count > 0, rule=rule)
    return position.value_usd(price) - position.basis_usd


@dataclass(frozen=True, slots=True)
class Open:
    """What is held of one open market: so many contracts of a side, what they cost before fees, and their mark.

    `price_usd` is what one of them is worth at the mark; it, `value_usd` and `unrealized_usd` are None without one.
    """

    ticker: str
    side: Side
    count: Decimal
    cost_usd: Decimal
    mark: Mark | None = None
    price_usd: Decimal | None = None
    value_usd: Decimal | None = None
    unrealized_usd: Decimal | None = None

    @property
    def average_price_usd(self) -> Decimal:
        """What one of the contracts cost."""
        return self.cost_usd / self.count

    @property
    def max_loss_usd(self) -> Decimal:
        """What is lost if the market settles against them: all that they cost."""
        return self.cost_usd


def positions(ledger: "Ledger", marks: Mapping[str, Mark], *, rule: MarkRule = "mid") -> list[Open]:
    """Every open market, the largest possible loss first; where known, the open P&L sums to that of `Ledger.totals`."""
    held = [_open(ledger.books[ticker], marks.get(ticker), rule) for ticker in ledger.open_tickers]
    return sorted(held, key=lambda each: (-each.max_loss_usd, each.ticker))


def _open(book: Book, mark: Mark | None, rule: MarkRule) -> Open:
    position, is_yes = book.position, book.position.count > 0
    bare = Open(book.ticker, "yes" if is_yes else "no", abs(position.count), position.basis_usd)
    if mark is None:
        return bare
    yes_price_usd = mark_price(mark, is_yes=is_yes, rule=rule)
    return replace(
        bare,
        mark=mark,
        price_usd=yes_price_usd if is_yes else ONE - yes_price_usd,
        value_usd=position.value_usd(yes_price_usd),
        unrealized_usd=unrealized(position, mark, rule=rule),
    )


class Ledger:
    """All markets, kept folded: adding records folds only the markets they touch."""

    def __init__(self) -> None:
        self._fills: defaultdict[str, dict[str, Fill]] = defaultdict(dict)
        self._settlements: dict[str, Settlement] = {}
        self._books: dict[str, Book] = {}
        self._open: dict[str, Book] = {}
        self._odd: dict[str, str] = {}
        self._closed = Totals()

    def add(
        self, fills: Iterable[Fill] = (), settlements: Iterable[Settlement] = ()
    ) -> tuple[tuple[Fill, ...], tuple[Settlement, ...]]:
        """Take records in; the same id again replaces what it corrects. Returns the ones that were news."""
        new_fills = tuple(fill for fill in fills if self._fills[fill.ticker].get(fill.fill_id) != fill)
        for fill in new_fills:
            self._fills[fill.ticker][fill.fill_id] = fill
        new_settlements = tuple(row for row in settlements if self._is_news(row))
        for row in new_settlements:
            self._settlements[row.ticker] = row
        for ticker in {fill.ticker for fill in new_fills} | {row.ticker for row in new_settlements}:
            self._refold(ticker)
        return new_fills, new_settlements

    def _is_news(self, row: Settlement) -> bool:
        known = self._settlements.get(row.ticker)
        return known is None or (known != row and known.settled_at <= row.settled_at)

    def _refold(self, ticker: str) -> None:
        before = self._books.get(ticker)
        book = fold(ticker, self._fills.get(ticker, {}).values(), self._settlements.get(ticker))
        self._books[ticker] = book
        self._closed = _shift(self._closed, book, +1)
        if before is not None:
            self._closed = _shift(self._closed, before, -1)
        self._open.pop(ticker, None)
        self._odd.pop(ticker, None)
        if book.position.count:
            self._open[ticker] = book
        if book.oddity:
            self._odd[ticker] = book.oddity

    def totals(self, marks: Mapping[str, Mark], *, rule: MarkRule = "mid") -> Totals:
        """The account's P&L at these marks; a market without one is left out of unrealized P&L and named."""
        priced = {ticker: book for ticker, book in self._open.items() if ticker in marks}
        unrealized_usd = sum((unrealized(b.position, marks[t], rule=rule) for t, b in priced.items()), ZERO)
        return replace(
            self._closed,
            unrealized_usd=unrealized_usd,
            unpriced=tuple(sorted(self._open.keys() - priced.keys())),
            oddities=tuple(f"{ticker}: {self._odd[ticker]}" for ticker in sorted(self._odd)),
        )

    @property
    def cash_usd(self) -> Decimal:
        """What the records brought into the account's cash: pairs and payouts less costs and fees."""
        held_usd = sum((book.position.basis_usd for book in self._open.values()), ZERO)
        return self._closed.realized_usd - self._closed.fees_usd - held_usd

    @property
    def open_tickers(self) -> frozenset[str]:
        """Markets in which something is held."""
        return frozenset(self._open)

    @property
    def books(self) -> Mapping[str, Book]:
        """Every market by ticker."""
        return self._books

    @property
    def fill_count(self) -> int:
        """How many fills there are."""
        return self._closed.fill_count

    def fills(self) -> list[Fill]:
        """Every fill, newest first."""
        flat = (fill for fills in self._fills.values() for fill in fills.values())
        return sorted(flat, key=lambda fill: (fill.filled_at, fill.fill_id), reverse=True)

    def by(self, key: Callable[[Entry], str]) -> dict[str, Decimal]:
        """Realized P&L after fees, summed by any key of its entries; the parts sum to the whole."""
        sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
        for book in self._books.values():
            for entry in book.entries:
                sums[key(entry)] += entry.pnl_usd
        return dict(sums)

    def between(self, start: datetime, end: datetime) -> dict[str, Decimal]:
        """Realized P&L after fees by market, of the entries in [start, end); a market without one is left out."""
        sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
        for book in self._books.values():
            if book.newest_at is None or book.newest_at < start:
                continue  # nearly all of them: what was traded long ago
            for entry in book.entries:
                if start <= entry.at < end:
                    sums[book.ticker] += entry.pnl_usd
        return dict(sums)

    def by_market(self) -> dict[str, Decimal]:
        """Realized P&L after fees by market."""
        return self.by(lambda entry: entry.ticker)

    def by_event(self) -> dict[str, Decimal]:
        """Realized P&L after fees by event."""
        return self.by(lambda entry: event_of(entry.ticker))

    def by_series(self) -> dict[str, Decimal]:
        """Realized P&L after fees by series."""
        return self.by(lambda entry: series_of(entry.ticker))

    def by_day(self, zone: tzinfo) -> dict[date, Decimal]:
        """Realized P&L after fees by day of the reporting time zone, oldest first."""
        days = self.by(lambda entry: entry.at.astimezone(zone).date().isoformat())
        return {date.fromisoformat(day): days[day] for day in sorted(days)}


def _shift(totals: Totals, book: Book, sign: int) -> Totals:
    """The totals with one book added or taken away; exact, so no drift gathers however often it is done."""
    return replace(
        totals,
        realized_usd=totals.realized_usd + sign * book.realized_usd,
        fees_usd=totals.fees_usd + sign * book.fees_usd,
        fill_count=totals.fill_count + sign * book.fill_count,
        open_fill_count=totals.open_fill_count + sign * (0 if book.is_settled else book.fill_count),
        settled_market_count=totals.settled_market_count + sign * book.is_settled,
    )


def event_of(ticker: str) -> str:
    """`KXBTCD-26MAY2504-T77299.99` belongs to the event `KXBTCD-26MAY2504`."""
    return ticker.rpartition("-")[0] or ticker


def series_of(ticker: str) -> str:
    """`KXBTCD-26MAY2504-T77299.99` belongs to the series `KXBTCD`."""
    return ticker.partition("-")[0]
