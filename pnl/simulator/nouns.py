"""The nouns of the simulated worlds, and their units.

Units are integers all through, so that no rounding hides anywhere: instants in microseconds since 1970,
counts in hundredths of a contract (`count`), prices in hundredths of a cent (`price`), money in
micro-dollars (`…_micros`). A count times a price is then micro-dollars exactly.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
DOLLAR_PRICE = 10_000  # what a winning contract pays, as a price

Result = Literal["yes", "no", "scalar"]
Status = Literal["won", "invoiced", "paid", "refunded", "lost"]


def micros(moment: datetime) -> int:
    """The instant as microseconds since 1970; exact. Raises TypeError for a naive datetime."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(at: int) -> datetime:
    """The reverse of `micros`."""
    return EPOCH + timedelta(microseconds=at)


@dataclass(frozen=True, slots=True)
class Fill:
    """One executed quantity: `is_yes` says what was acquired, `price` is always the YES price."""

    fill_id: str
    order_id: str
    ticker: str
    at: int
    is_yes: bool
    count: int
    price: int
    fee_micros: int
    is_taker: bool
    side: str  # this and `action` are deprecated on the wire, and carry no direction
    action: str

    @property
    def key(self) -> tuple[int, str]:
        """Order in time; the id parts fills of one instant."""
        return self.at, self.fill_id

    @property
    def cost_micros(self) -> int:
        """Price of the acquired side times the count, fee not included."""
        return self.count * (self.price if self.is_yes else DOLLAR_PRICE - self.price)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The venue's last word on a market: counts and costs are gross per side, over its whole life."""

    ticker: str
    event: str
    at: int
    result: Result
    yes_count: int
    yes_cost_micros: int
    no_count: int
    no_cost_micros: int
    revenue_cents: int
    value_cents: int | None  # the payout of one YES
    fee_micros: int

    @property
    def key(self) -> tuple[int, str]:
        """Order in time; the ticker parts settlements of one instant."""
        return self.at, self.ticker


@dataclass(frozen=True, slots=True)
class Market:
    """One contract with its whole life, future included: what is known at an instant is the world's to say."""

    ticker: str
    event: str
    title: str
    open_at: int
    close_at: int
    settlement: Settlement
    fills: tuple[Fill, ...] = ()
    tick: int = 100

    @property
    def key(self) -> tuple[int, str]:
        """Order in time of opening."""
        return self.open_at, self.ticker

    def is_settled(self, at: int) -> bool:
        """Whether the settlement is known at `at`."""
        return self.settlement.at <= at


@dataclass(frozen=True, slots=True)
class Quote:
    """The best bid and ask of YES, and the last price; bid 0 with ask 10,000 is an empty book."""

    bid: int
    ask: int
    last: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Own money moved to the venue or back; it counts from `applied_at` on."""

    transfer_id: str
    is_deposit: bool
    created_at: int
    applied_at: int
    amount_cents: int
    fee_cents: int = 0

    @property
    def key(self) -> tuple[int, str]:
        """Order in time of the request."""
        return self.created_at, self.transfer_id

    @property
    def cash_micros(self) -> int:
        """What the balance gains."""
        signed = self.amount_cents if self.is_deposit else -self.amount_cents
        return (signed - self.fee_cents) * 10_000


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Where the archive ends: older fills and older settled markets are only in the historical tier."""

    fills_at: int
    settled_at: int


@dataclass(frozen=True, slots=True)
class Position:
    """One market's holding at average cost: `count` above zero is YES, below zero NO; money without fees."""

    market: Market
    count: int
    cost_micros: int
    realized_micros: int
    traded_micros: int
    traded_count: int
    fees_micros: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Cash in micro-dollars, positions at their last price, and the instant of the last change."""

    cash_micros: int
    portfolio_micros: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one model used: tokens by price class, and web searches."""

    uncached: int = 0
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0
    output: int = 0
    searches: int = 0

    def counts(self) -> tuple[int, int, int, int, int, int]:
        """The six counts in the order of the fields."""
        return self.uncached, self.write_5m, self.write_1h, self.read, self.output, self.searches


@dataclass(frozen=True, slots=True)
class Deal:
    """One deal as it stood after its latest change."""

    deal_id: str
    amount_cents: int
    closed_at: int
    status: Status
    updated_at: int
    description: str
    paid_at: int | None = None
    refunded_at: int | None = None

    @property
    def key(self) -> tuple[int, str]:
        """Order in time of the latest change."""
        return self.updated_at, self.deal_id
