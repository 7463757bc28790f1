"""The nouns that travel: frozen, exact, without I/O and without a clock.

Money is `Decimal` US dollars (`…_usd`), contract counts are `Decimal`, instants are UTC-aware.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal

ZERO = Decimal(0)
CENT = Decimal("0.01")
MICRO = Decimal("1e-6")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Side = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Fill:
    """An executed quantity at a price; `side` is what was acquired: buying NO and selling YES are both "no"."""

    fill_id: str
    ticker: str
    side: Side
    count: Decimal
    yes_price_usd: Decimal
    fee_usd: Decimal
    is_taker: bool
    filled_at: datetime

    @property
    def cost_usd(self) -> Decimal:
        """What the acquired contracts cost, before fees: NO costs one dollar less the YES price."""
        price = self.yes_price_usd if self.side == "yes" else 1 - self.yes_price_usd
        return self.count * price


class Result(StrEnum):
    """How a market ended."""

    YES = "yes"
    NO = "no"
    SCALAR = "scalar"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a market. Counts and costs are everything ever acquired per side, gross, fees apart.

    `revenue_usd` is what the venue paid for the surviving net position; `value_usd` what one YES paid, where known.
    Counts are zero when only the result is known (an archived market): its fills then say what was held.
    """

    ticker: str
    event_ticker: str
    result: Result
    yes_count: Decimal
    yes_cost_usd: Decimal
    no_count: Decimal
    no_cost_usd: Decimal
    revenue_usd: Decimal
    fee_usd: Decimal
    value_usd: Decimal | None
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class Mark:
    """The prices that value an open position; `title` is the venue's text and hostile like all text from outside.

    `last_trade_usd` stands in while a market has no quotes and never had any that we saw. `closes_at` is when the venue
    expects the market to end; None: it does not say.
    """

    ticker: str
    yes_bid_usd: Decimal
    yes_ask_usd: Decimal
    as_of: datetime
    title: str = ""
    last_trade_usd: Decimal | None = None
    closes_at: datetime | None = None

    @property
    def is_real(self) -> bool:
        """An empty book quotes 0 and 1; that is no price."""
        return 0 < self.yes_bid_usd <= self.yes_ask_usd < 1


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of a bill: a UTC day, what it was for, and US dollars (exact, often a fraction of a cent)."""

    source: str
    day: date
    item: str
    amount_usd: Decimal
    is_estimate: bool = False


COUNTED_STATUSES = frozenset({"won", "paid", "invoiced"})
DEAL_STATUSES = COUNTED_STATUSES | {"lost", "refunded"}


@dataclass(frozen=True, slots=True)
class Deal:
    """Revenue: one deal of one `origin` (the place it was read from); the latest `updated_at` of an id wins.

    `fee_usd` is what the payment cost, a cost and not a smaller revenue.
    """

    origin: str
    deal_id: str
    amount_usd: Decimal
    status: str
    closed_on: date
    updated_at: datetime
    description: str = ""
    fee_usd: Decimal = ZERO

    @property
    def revenue_usd(self) -> Decimal:
        """What counts as revenue: nothing once lost or refunded."""
        return self.amount_usd if self.status in COUNTED_STATUSES else ZERO


@dataclass(frozen=True, slots=True)
class CostDay:
    """All that one source charges for one UTC day: it replaces whatever was known of that day, estimate or bill.

    `total_usd` is the exact sum of its lines. A day that `is_cut` lacks a line that was set aside: it does not replace
    one that is known.
    """

    source: str
    day: date
    lines: tuple[Cost, ...]
    is_estimate: bool = False
    is_cut: bool = False
    total_usd: Decimal = field(init=False)

    def __post_init__(self) -> None:
        # Added up once: every snapshot asks for it, and a year holds thousands of lines.
        object.__setattr__(self, "total_usd", sum((line.amount_usd for line in self.lines), ZERO))


@dataclass(frozen=True, slots=True)
class Refused:
    """A row from outside that cannot be believed: what it is one of, its name, why not, and how it begins."""

    what: str
    key: str
    reason: str
    raw: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.what} {self.key}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the venue, or the ledger, says of one market: `count` is positive for YES and negative for NO.

    `cost_usd` is what the contracts that are held cost. Cost and realized P&L exclude fees. None: no such figure.
    """

    count: Decimal = ZERO
    cost_usd: Decimal | None = ZERO
    realized_usd: Decimal | None = ZERO
    fees_usd: Decimal | None = ZERO

    @property
    def cash_usd(self) -> Decimal | None:
        """What the market brought into the account's cash so far, after fees; None unless every figure is known."""
        if self.cost_usd is None or self.realized_usd is None or self.fees_usd is None:
            return None
        return self.realized_usd - self.fees_usd - self.cost_usd


@dataclass(frozen=True, slots=True)
class Account:
    """What the venue itself says the account holds; only compared with the ledger, never added to it.

    `positions` are the markets that were traded and have not settled, flat ones too; None: they were not read. They
    and the balance are read beside the fills, so either may be a moment older or newer than the fills of its poll.
    `unread` are the positions that cannot be believed.
    """

    balance_usd: Decimal | None = None
    positions: Mapping[str, Holding] | None = None
    unread: tuple[Refused, ...] = ()


class Agreement(StrEnum):
    """Whether the venue's own figures and the ledger say the same.

    `settling`: a difference that a fill on its way may explain; `drifts`: one that stood while nothing else happened;
    `unexplained`: only the balance moved, by a transfer or an order that rests, of which there is no record here.
    """

    UNKNOWN = "unknown"
    AGREES = "agrees"
    SETTLING = "settling"
    DRIFTS = "drifts"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll of a source brought, whichever kinds of record that source knows.

    `cursors` is where the next poll goes on. `refused` are the rows that were set aside, `error` the part that could
    not be read; the records beside them are good. `reread` names the kinds of row that were read from as far back as
    one was ever set aside: what is not refused among them now is good again. `holds_all_deals` says that `deals` is
    the whole list of its origin (a file), so that a deal that is missing from it is gone.
    """

    fills: tuple[Fill, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    marks: tuple[Mark, ...] = ()
    cost_days: tuple[CostDay, ...] = ()
    deals: tuple[Deal, ...] = ()
    holds_all_deals: bool = False
    account: Account | None = None
    cursors: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    reread: frozenset[str] = frozenset()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a source is told before it polls: its own cursors, and the markets that are still open in the ledger."""

    cursors: Mapping[str, str] = field(default_factory=dict)
    open_tickers: frozenset[str] = frozenset()


class State(StrEnum):
    """How far a source can be believed: `stale` still has its last good value, `down` has none or lost it for long."""

    FRESH = "fresh"
    STALE = "stale"
    DOWN = "down"
    NOT_CONFIGURED = "not_configured"


@dataclass(frozen=True, slots=True)
class Reading[T]:
    """An answer of a source and how old it is: `as_of` is when the last good one arrived, None if none ever did."""

    source: str
    state: State
    value: T | None = None
    as_of: datetime | None = None
    error: str | None = None
    refused: tuple[Refused, ...] = ()

    def without_value(self) -> "Reading[None]":
        """The same, for a snapshot: how old and how good, not what."""
        return Reading(self.source, self.state, None, self.as_of, self.error, self.refused)

    @property
    def is_waiting(self) -> bool:
        """Its first poll has not ended: neither an answer nor a failure is known."""
        return self.state is State.DOWN and self.as_of is None and self.error is None

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the last good answer, never negative; None if there was none."""
        return None if self.as_of is None else max(0.0, (now - self.as_of).total_seconds())


@dataclass(slots=True, kw_only=True)
class Trace:
    """When each step of a snapshot's making was done, in seconds of `time.perf_counter`; None: not, or not known.

    The one noun that is written on while it travels: a copy at each step would cost more than the step. The steps
    stand in the order of time. `requested`, `first_byte` and `body` are of all the requests of one poll of `source`:
    the first one sent, the first answer that began, the last one that was whole. `parsed`: its rows are records;
    `aggregated`: they are taken in; `computed`: the totals are made. `encoded` and `sent` are the stream's.
    """

    source: str = ""
    requested: float | None = None
    first_byte: float | None = None
    body: float | None = None
    parsed: float | None = None
    aggregated: float | None = None
    computed: float | None = None
    committed: float | None = None
    cached: float | None = None
    encoded: float | None = None
    sent: float | None = None

    @property
    def fetch_s(self) -> float | None:
        """From the first request to the last whole answer; to the records, where no request was made (a file)."""
        return _seconds(self.requested, self.parsed if self.body is None else self.body)

    @property
    def aggregation_s(self) -> float | None:
        """From the last whole answer until its records are taken in."""
        return _seconds(self.parsed if self.body is None else self.body, self.aggregated)

    @property
    def computing_s(self) -> float | None:
        """How long the totals took."""
        return _seconds(self.aggregated, self.computed)

    @property
    def commit_s(self) -> float | None:
        """From the totals until they are on disk, waiting for other commits included."""
        return _seconds(self.computed, self.committed)

    @property
    def broadcast_s(self) -> float | None:
        """From what is known of it last, in the cache or as totals, until it is on its way to all pages."""
        return _seconds(self.computed if self.cached is None else self.cached, self.sent)

    @property
    def answering_s(self) -> float | None:
        """From the first answer that began until its message is made."""
        return _seconds(self.first_byte, self.encoded)

    @property
    def sending_s(self) -> float | None:
        """How long the message took to go out to all pages."""
        return _seconds(self.encoded, self.sent)

    @property
    def caching_s(self) -> float | None:
        """From there until the cache has them."""
        return _seconds(self.committed, self.cached)


def _seconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


MONEY_FIELDS = (
    "net_pnl",
    "kalshi_pnl",
    "kalshi_realized",
    "kalshi_unrealized",
    "kalshi_fees",
    "total_costs",
    "billed_costs",
    "estimated_costs",
    "total_revenue",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole truth at one instant, in US dollars to the micro-dollar; every sum is of the parts beside it.

    `drift_usd` is how far the venue's own figures are from these, None while they cannot be compared; in no total.
    `taken_at` is when it was put together, to the millisecond. `as_of` is the same while every source is fresh,
    and the time of the oldest answer in it once one is not. `missing` says in plain words what a total lacks, `notes`
    what is odd and counted all the same. `sequence` counts the snapshots of one model: clocks go back, it does not.
    `news_count` is how many records came or were corrected since the start, prices not among them; `trace` tells how
    long its making took. Neither is recorded, nor part of what makes two snapshots equal.
    """

    taken_at: datetime
    kalshi_realized: Decimal
    kalshi_unrealized: Decimal
    kalshi_fees: Decimal
    billed_costs: Decimal
    estimated_costs: Decimal
    total_revenue: Decimal
    trade_count: int
    open_trade_count: int
    settled_market_count: int
    sources: tuple[Reading[None], ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_recorded: bool = True
    sequence: int = 0
    agreement: Agreement = Agreement.UNKNOWN
    drift_usd: Decimal | None = None
    news_count: int = field(default=0, compare=False, repr=False)
    trace: Trace = field(default_factory=Trace, compare=False, repr=False)

    @property
    def kalshi_pnl(self) -> Decimal:
        """Trading after fees."""
        return self.kalshi_realized + self.kalshi_unrealized - self.kalshi_fees

    @property
    def total_costs(self) -> Decimal:
        """What is billed and what is estimated until it is."""
        return self.billed_costs + self.estimated_costs

    @property
    def net_pnl(self) -> Decimal:
        """The one number."""
        return self.kalshi_pnl - self.total_costs + self.total_revenue

    @property
    def is_waiting(self) -> bool:
        """Some source has not been heard of yet: such a total is on its way."""
        return any(reading.is_waiting for reading in self.sources)

    @property
    def is_empty(self) -> bool:
        """Nothing is known of any source, so that every total would be a made-up zero."""
        return not any(self.knows(reading.source) for reading in self.sources)

    @property
    def is_worth_recording(self) -> bool:
        """A total of something, and not one that is still on its way."""
        return not (self.is_waiting or self.is_empty)

    @property
    def errors(self) -> list[str]:
        """What each source that could not be read said, in plain words."""
        return [reading.error for reading in self.sources if reading.error]

    @property
    def records(self) -> tuple[object, ...]:
        """What changes when a record comes, or is on disk at last, and does not when only a price moved."""
        money = (self.kalshi_realized, self.kalshi_fees, self.billed_costs, self.estimated_costs, self.total_revenue)
        return (self.is_recorded, self.news_count, self.trade_count, self.settled_market_count, *money)

    def knows(self, source: str) -> bool:
        """Whether a source has ever answered."""
        return any(reading.source == source and reading.as_of is not None for reading in self.sources)

    @property
    def complete(self) -> bool:
        """Every configured source is fresh and nothing was set aside."""
        configured = [r for r in self.sources if r.state is not State.NOT_CONFIGURED]
        return bool(configured) and not self.missing and all(r.state is State.FRESH for r in configured)

    @property
    def as_of(self) -> datetime:
        """The instant for which the numbers hold."""
        late = [r.as_of for r in self.sources if r.state in (State.STALE, State.DOWN) and r.as_of is not None]
        return min([self.taken_at, *late])


def money(usd: Decimal | None, *, signed: bool = False) -> str:
    """US dollars as a person reads them: `-$12.40`, `+$8.20` where a plus is wanted, no `-$0.00`, `—` for unknown."""
    if usd is None:
        return "—"
    cents = usd.quantize(CENT)
    sign = "-" if cents < 0 else "+" if signed and cents > 0 else ""
    return f"{sign}${abs(cents):,.2f}"


def length(span: timedelta) -> str:
    """How long something lasted, to the minute; in hours or days where it is many of them."""
    minutes = max(0, int(span.total_seconds())) // 60
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"  # noqa: PLR2004 - two days
