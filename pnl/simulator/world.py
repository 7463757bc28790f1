"""What a venue, a model provider and a customer book know at an instant: no HTTP, and no clock of its own."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from operator import attrgetter

from pnl.simulator.book import cash_events, fold
from pnl.simulator.nouns import (
    DOLLAR_PRICE,
    Balance,
    Cutoff,
    Deal,
    Fill,
    Market,
    Position,
    Quote,
    Settlement,
    Tokens,
    Transfer,
    micros,
)

_by_key = attrgetter("key")
_by_at = attrgetter("at")


class World(ABC):
    """Markets with their whole lives, shown only as far as an instant reaches.

    Every `now` is an aware datetime. Sequences come oldest first, ordered by `key`.
    """

    def __init__(self) -> None:
        """Start empty; a world brings its markets in through `_admit`."""
        self._markets: list[Market] = []
        self._by_ticker: dict[str, Market] = {}
        self._fills: list[Fill] = []
        self._settlements: list[Settlement] = []
        self._transfers: list[Transfer] = []
        self._cash: list[tuple[int, int]] = []  # (instant, balance from then on)
        self._changes: list[tuple[int, int]] = []
        self._settled: list[Position] = []  # these never change again

    @abstractmethod
    def quote(self, now: datetime, market: Market) -> Quote:
        """Bid, ask and last price of YES."""

    @abstractmethod
    def cutoff(self, now: datetime) -> Cutoff:
        """Where the historical tier ends."""

    def instant(self, now: datetime) -> int:
        """The world's own time at `now`, in microseconds; a replay's differs from the wall's."""
        return micros(now)

    def markets(self, now: datetime) -> Sequence[Market]:
        """The markets that have opened, settled ones included."""
        at = self._reach(now)
        return self._markets[: bisect_right(self._markets, at, key=attrgetter("open_at"))]

    def market(self, now: datetime, ticker: str) -> Market | None:
        """The market of that ticker, or None when it has not opened or never will."""
        at = self._reach(now)
        market = self._by_ticker.get(ticker)
        return market if market and market.open_at <= at else None

    def fills(self, now: datetime) -> Sequence[Fill]:
        """All fills of both tiers."""
        return self._fills[: bisect_right(self._fills, self._reach(now), key=_by_at)]

    def settlements(self, now: datetime) -> Sequence[Settlement]:
        """All settlements of both tiers."""
        return self._settlements[: bisect_right(self._settlements, self._reach(now), key=_by_at)]

    def transfers(self, now: datetime) -> Sequence[Transfer]:
        """Deposits and withdrawals asked for so far."""
        at = self._reach(now)
        return [transfer for transfer in self._transfers if transfer.created_at <= at]

    def balance(self, now: datetime) -> Balance:
        """Cash, the value of the open positions, and when either last changed."""
        at = self._reach(now)
        known = bisect_right(self._cash, at, key=lambda event: event[0])
        updated_at, cash_micros = self._cash[known - 1] if known else (at, 0)
        worth = sum(_worth(position, self.quote(now, position.market)) for position in self.open_positions(now))
        return Balance(cash_micros, worth, updated_at)

    def open_positions(self, now: datetime) -> list[Position]:
        """Every traded market that has not settled; the position itself may be zero."""
        at = self._reach(now)
        traded = (market for market in self.markets(now) if market.fills and market.fills[0].at <= at)
        return [fold(market, at) for market in traded if not market.is_settled(at)]

    def settled_positions(self, now: datetime) -> list[Position]:
        """Every settled market, with nothing left of it but what it gained."""
        at = self._reach(now)
        for row in self.settlements(now)[len(self._settled) :]:
            self._settled.append(fold(self._by_ticker[row.ticker], at))
        return self._settled[: bisect_right(self._settled, at, key=attrgetter("updated_at"))]

    def tokens(self, start: int, end: int, now: datetime) -> Mapping[str, Tokens]:
        """What each model used in [start, end) as far as `now`; models without use are left out."""
        del start, end, now
        return {}

    def deals(self, now: datetime) -> Sequence[Deal]:
        """Every deal that has been entered, as it stands now."""
        del now
        return ()

    def _reach(self, now: datetime) -> int:
        at = self.instant(now)
        self._grow(at)
        return at

    # A world that is complete from the start has nothing to bring in.
    def _grow(self, at: int) -> None:
        del at

    def _admit(self, markets: Iterable[Market], transfers: Iterable[Transfer] = ()) -> None:
        for market in markets:
            self._markets.append(market)
            self._by_ticker[market.ticker] = market
            self._fills += market.fills
            self._settlements.append(market.settlement)
            self._changes += cash_events(market)
        for transfer in transfers:
            self._transfers.append(transfer)
            self._changes.append((transfer.applied_at, transfer.cash_micros))
        self._put_in_order()

    def _put_in_order(self) -> None:
        for rows in (self._markets, self._fills, self._settlements, self._transfers):
            rows.sort(key=_by_key)
        self._changes.sort()
        totals = accumulate(change for _, change in self._changes)
        self._cash = [(at, total) for (at, _), total in zip(self._changes, totals, strict=True)]


def _worth(position: Position, quote: Quote) -> int:
    return abs(position.count) * (quote.last if position.count > 0 else DOLLAR_PRICE - quote.last)
