"""The venue's own figures held against the ledger: what it holds at each poll, and how markets settled; pure.

Positions and balance are read beside the fills, so a fill on its way makes them differ for a moment. Only what differs
twice, with neither side changed in between, is a drift. Nothing here is added to the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Self

from pnl.ledger import Book, Ledger, fold
from pnl.records import CENT, ZERO, Account, Agreement, Fill, Holding, Settlement, money

ACCEPTED_AFTER = timedelta(days=1)  # a balance that differs alone for so long is a transfer, not a missing record
SETTLES_WITHIN = timedelta(seconds=1.5)  # the venue's reads lag by some 0.4 s, a balance is kept for 1 s

NOTHING = Holding()


@dataclass(frozen=True, slots=True)
class Difference:
    """A market of which the venue and the ledger do not say the same, and since when they say just this.

    `venue` is None for a market that the venue does not list. `fill_count` is of the ledger, in this market.
    """

    ticker: str
    venue: Holding | None
    ledger: Holding
    fill_count: int
    since: datetime

    @property
    def count(self) -> Decimal:
        """Contracts that the venue has more than the ledger, NO counted negative."""
        return (self.venue.count if self.venue else ZERO) - self.ledger.count

    @property
    def realized_usd(self) -> Decimal | None:
        """Realized P&L that the venue has more."""
        return _more(self.venue.realized_usd, self.ledger.realized_usd) if self.venue else None

    @property
    def fees_usd(self) -> Decimal | None:
        """Fees that the venue has charged more."""
        return _more(self.venue.fees_usd, self.ledger.fees_usd) if self.venue else None

    @property
    def cash_usd(self) -> Decimal | None:
        """Cash that the market brought more by the venue's figures: of one missing purchase, less its cost and fee."""
        return _more(self.venue.cash_usd, self.ledger.cash_usd) if self.venue else None

    @property
    def usd(self) -> Decimal:
        """How large the difference is: in cash, else in realized P&L or fees, else the contracts at their cost."""
        amounts = (abs(usd) for usd in (self.cash_usd, self.realized_usd, self.fees_usd) if usd is not None)
        return next((usd for usd in amounts if usd >= CENT), abs(self.count) * self._contract_usd)

    @property
    def _contract_usd(self) -> Decimal:
        for holding in (self.ledger, self.venue):
            if holding and holding.count and holding.cost_usd is not None:
                return abs(holding.cost_usd / holding.count)
        return Decimal(1)  # a contract never costs more


@dataclass(frozen=True, slots=True)
class Cash:
    """The venue's balance beside the cash that the records, so many fills, explain, and since when it is just so."""

    balance_usd: Decimal
    explained_usd: Decimal
    fill_count: int
    since: datetime

    @property
    def gap_usd(self) -> Decimal:
        """What was there before the records: it stays the same as long as every move of cash has its record."""
        return self.balance_usd - self.explained_usd


@dataclass(frozen=True, slots=True)
class Baseline:
    """The gap between balance and records at the instant from which on cash is compared."""

    gap_usd: Decimal
    since: datetime

    def __str__(self) -> str:
        """As it is recorded: exact, one line."""
        return f"{self.gap_usd:f} {self.since.isoformat()}"

    @classmethod
    def parse(cls, recorded: str) -> Self:
        """The baseline of such a line."""
        gap_usd, since = recorded.split(" ")
        return cls(Decimal(gap_usd), datetime.fromisoformat(since))


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the venue's own figures are from the ledger; each comparison starts from the one before it.

    `uncompared` says in plain words which figures the venue left out or garbled. `compared_at` is when the figures in
    it were compared last: in state `unknown` they are of an earlier poll.
    """

    state: Agreement = Agreement.UNKNOWN
    differences: tuple[Difference, ...] = ()
    uncompared: tuple[str, ...] = ()
    cash: Cash | None = None
    baseline: Baseline | None = None
    compared_at: datetime | None = None

    @property
    def drift_usd(self) -> Decimal | None:
        """Everything that differs, in US dollars, nothing cancelled out: 0 when all agrees, None when unknown."""
        if self.state is Agreement.UNKNOWN:
            return None
        return sum((each.usd for each in self.differences), abs(self.cash_usd or ZERO) if self.is_cash_off else ZERO)

    @property
    def realized_usd(self) -> Decimal:
        """Realized P&L that the venue has more, over the markets that differ and of which it gives a figure."""
        return sum((each.realized_usd or ZERO for each in self.differences), ZERO)

    @property
    def cash_usd(self) -> Decimal | None:
        """Balance that no record since the baseline explains, beside what the differences do; None: no baseline yet."""
        return None if self.cash is None or self.baseline is None else self.cash.gap_usd - self.baseline.gap_usd

    @property
    def is_cash_off(self) -> bool:
        """At least a cent of the balance is not explained."""
        return self.cash_usd is not None and abs(self.cash_usd) >= CENT


def _more(venue_usd: Decimal | None, ledger_usd: Decimal | None) -> Decimal | None:
    return None if venue_usd is None or ledger_usd is None else venue_usd - ledger_usd


def compare(account: Account | None, ledger: Ledger, before: Drift, *, at: datetime) -> Drift:
    """Hold the venue's figures against the ledger; call it after the records of the same poll were added.

    Args:
        account: What the venue says; None when a part of the poll failed, for then its figures and the fills do not
            belong together.
        ledger: What the records make.
        before: The last result; at a start, `Drift(baseline=…)` with the recorded baseline, or `Drift()`.
        at: Now, UTC-aware.

    Returns:
        What differs, and whether it can still be a record on its way. The baseline of the cash is set as soon as
        balance and ledger stood still for two polls, and is kept from then on: record it when it is new. Deposits,
        withdrawals and resting orders change the balance without a record; they show as `cash_usd`.
    """
    if account is None or account.positions is None:
        return replace(before, state=Agreement.UNKNOWN)
    differences = tuple(_differences(account, ledger, before, at))
    cash = _cash(account, ledger, differences, before, at)
    baseline = before.baseline if before.baseline and not _is_accepted(before, at) else _baseline(cash, differences, at)
    drift = Drift(Agreement.AGREES, differences, tuple(_uncompared(account)), cash, baseline, compared_at=at)
    return replace(drift, state=_state(drift, at))


def _differences(account: Account, ledger: Ledger, before: Drift, at: datetime) -> Iterator[Difference]:
    earlier = {each.ticker: each for each in before.differences}
    for ticker, venue in _listed(account, ledger):
        book = ledger.books.get(ticker)
        ours = _held(book)
        if venue is None or _differ(venue, ours):
            now = Difference(ticker, venue, ours, book.fill_count if book else 0, at)
            yield replace(now, since=_since(now, earlier.get(ticker), before, at))


def _listed(account: Account, ledger: Ledger) -> Iterator[tuple[str, Holding | None]]:
    """Every market that either side counts as open, and what the venue says of it."""
    listed = account.positions or {}
    yield from listed.items()
    if not account.unread:  # else a market that seems to be missing may be the one that could not be read
        yield from ((ticker, None) for ticker in sorted(ledger.open_tickers - listed.keys()))


def _held(book: Book | None) -> Holding:
    if book is None:
        return NOTHING
    return Holding(book.position.count, book.position.basis_usd, book.realized_usd, book.fees_usd)


def _differ(venue: Holding, ours: Holding) -> bool:
    # What is held cost is left out: the venue may round its averages otherwise, and realized P&L moves with them.
    return (
        venue.count != ours.count
        or _is_apart(venue.realized_usd, ours.realized_usd)
        or _is_apart(venue.fees_usd, ours.fees_usd)
    )


def _is_apart(venue_usd: Decimal | None, ours_usd: Decimal | None) -> bool:
    return venue_usd is not None and ours_usd is not None and abs(venue_usd - ours_usd) >= CENT


def _cash(
    account: Account, ledger: Ledger, differences: tuple[Difference, ...], before: Drift, at: datetime
) -> Cash | None:
    """Balance and explained cash; what a market brought more by the venue's figures is explained by them."""
    if account.balance_usd is None:
        return None
    explained_usd = sum((each.cash_usd or ZERO for each in differences), ledger.cash_usd)
    now = Cash(account.balance_usd, explained_usd, ledger.fill_count, at)
    return replace(now, since=_since(now, before.cash, before, at))


def _since[T: (Cash, Difference)](now: T, then: T | None, before: Drift, at: datetime) -> datetime:
    """Since when a comparison stands as it does now: a drift goes on while more is traded on top of it."""
    if then is None or before.compared_at is None:
        return at
    is_same = replace(then, since=at) == now
    goes_on = _gap(then) == _gap(now) and _stands(then.since, before.compared_at)
    return then.since if is_same or goes_on else at


def _gap(sides: Cash | Difference) -> tuple[Decimal | None, ...]:
    return (sides.gap_usd,) if isinstance(sides, Cash) else (sides.count, sides.realized_usd, sides.fees_usd)


def _stands(since: datetime, at: datetime) -> bool:
    return abs(at - since) >= SETTLES_WITHIN  # either way: clocks are set back


def _baseline(cash: Cash | None, differences: tuple[Difference, ...], at: datetime) -> Baseline | None:
    if cash is None or not _stands(cash.since, at) or any(each.cash_usd is None for each in differences):
        return None
    return Baseline(cash.gap_usd, at)


def _is_accepted(before: Drift, at: datetime) -> bool:
    alone = before.cash is not None and before.is_cash_off and not before.differences
    return alone and before.cash is not None and at - before.cash.since >= ACCEPTED_AFTER


def _uncompared(account: Account) -> Iterator[str]:
    if account.balance_usd is None:
        yield "Kalshi gave no balance"
    yield from map(str, account.unread)
    for ticker, holding in (account.positions or {}).items():
        if holding.cash_usd is None:
            yield f"{ticker}: Kalshi gave no realized P&L, fees or cost"


def _state(drift: Drift, at: datetime) -> Agreement:
    if any(_stands(each.since, at) for each in drift.differences):
        return Agreement.DRIFTS
    if drift.cash is not None and drift.is_cash_off and _stands(drift.cash.since, at):
        return Agreement.UNEXPLAINED
    return Agreement.SETTLING if drift.differences or drift.is_cash_off else Agreement.AGREES


def in_words(drift: Drift) -> list[str]:
    """What differs and what could not be compared, a line each, the cash first; empty when all agrees."""
    if drift.state is Agreement.UNKNOWN:
        return ["Kalshi's own figures are not known at the moment, so nothing is compared with them"]
    lines = list(_cash_in_words(drift))
    lines += [line for each in drift.differences for line in _market_in_words(each)]
    return lines + [f"{what}; it is not compared" for what in drift.uncompared]


def _cash_in_words(drift: Drift) -> Iterator[str]:
    if drift.baseline is not None and drift.cash_usd is not None and drift.is_cash_off:
        off = f"{money(abs(drift.cash_usd))} {'more' if drift.cash_usd > 0 else 'less'}"
        yield (
            f"Kalshi's balance is {off} than the records explain since {drift.baseline.since:%Y-%m-%d %H:%M} UTC: "
            "a deposit, a withdrawal, an order that rests, or a record that is missing"
        )


def _market_in_words(each: Difference) -> Iterator[str]:
    ours = _contracts(each.ledger.count)
    if each.venue is None:
        yield f"{each.ticker}: Kalshi lists it no more, the records here make {ours}; its settlement may be missing"
        return
    if each.count:
        yield f"{each.ticker}: Kalshi says {_contracts(each.venue.count)}, the records here make {ours}"
    for what, more_usd, venue_usd, ours_usd in (
        ("realized P&L", each.realized_usd, each.venue.realized_usd, each.ledger.realized_usd),
        ("fees", each.fees_usd, each.venue.fees_usd, each.ledger.fees_usd),
    ):
        if more_usd is not None and abs(more_usd) >= CENT:
            yield f"{each.ticker}: Kalshi says {what} of {money(venue_usd)}, the records here make {money(ours_usd)}"


def _contracts(count: Decimal) -> str:
    return f"{abs(count):,.2f} {'YES' if count > 0 else 'NO'}" if count else "none"


@dataclass(frozen=True, slots=True)
class Settled:
    """A settled market, folded three times: as it counts, from its settlement alone, and from its fills alone.

    `by_row` is None where the settlement tells no more than the result, `by_fills` where there is no fill.
    """

    row: Settlement
    book: Book
    by_row: Book | None
    by_fills: Book | None

    @property
    def gap_usd(self) -> Decimal | None:
        """P&L after fees that the settlement makes more than the fills; None unless both can be told."""
        if self.by_row is None or self.by_fills is None:
            return None
        return _pnl_usd(self.by_row) - _pnl_usd(self.by_fills)


def settled(ledger: Ledger) -> Iterator[Settled]:
    """Every market that settled, by ticker."""
    for ticker, book in sorted(ledger.books.items()):
        rows = [entry.record for entry in book.entries if isinstance(entry.record, Settlement)]
        fills = [entry.record for entry in book.entries if isinstance(entry.record, Fill)]
        for row in rows:
            by_row = fold(ticker, (), row) if row.yes_count or row.no_count else None
            yield Settled(row, book, by_row, fold(ticker, fills, _result_only(row)) if fills else None)


def _result_only(row: Settlement) -> Settlement:
    return replace(row, yes_count=ZERO, yes_cost_usd=ZERO, no_count=ZERO, no_cost_usd=ZERO, fee_usd=ZERO)


def _pnl_usd(book: Book) -> Decimal:
    return book.realized_usd - book.fees_usd
