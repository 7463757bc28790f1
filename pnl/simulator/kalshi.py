"""The venue: routes of the trade API v2, its checks, and its pages."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial, wraps
from operator import attrgetter
from typing import Any

import msgspec
from aiohttp import web

from pnl.simulator.auth import PublicKey, is_signed
from pnl.simulator.kalshi_rows import (
    event_row,
    fill_row,
    market_row,
    position_row,
    settlement_row,
    status,
    transfer_row,
)
from pnl.simulator.limits import TokenBucket
from pnl.simulator.nouns import SECOND, Fill, Market, Position, Settlement, micros
from pnl.simulator.paging import newest_first
from pnl.simulator.wire import instant, price, reply, second
from pnl.simulator.world import World

BASE = "/trade-api/v2"
_SIGNED = ("/portfolio/", "/account/limits", "/historical/fills", "/historical/positions")
_MAX_SKEW_S = 15
_READ_PER_S = 200
_COST = 10
_STATUS_WORDS = ("", "unopened", "open", "closed", "settled")

type Handler = Callable[[web.Request], Awaitable[web.Response]]
type Row = dict[str, Any] | msgspec.Raw


class BadQueryError(ValueError):
    """A query parameter that the venue refuses."""


class Kalshi:
    """The venue's side of one account.

    Args:
        world: What is known at an instant.
        now: The venue's clock; signatures are held against it.
        key_id: The only key id that it knows.
        public_key: The key that signatures must fit.
        seconds: A clock for the request limits that only goes forward; None: no limits.
    """

    def __init__(
        self,
        world: World,
        now: Callable[[], datetime],
        *,
        key_id: str,
        public_key: PublicKey,
        seconds: Callable[[], float] | None,
    ) -> None:
        """Remember them, with full buckets."""
        self._world = world
        self._now = now
        self._key_id = key_id
        self._public_key = public_key
        self._reads = TokenBucket(_READ_PER_S, _READ_PER_S, seconds) if seconds else None
        self._balances = TokenBucket(1, 1, seconds) if seconds else None
        self._fill_rows: dict[str, msgspec.Raw] = {}
        self._settled_markets: dict[str, msgspec.Raw] = {}

    def routes(self) -> list[web.RouteDef]:
        """Every route that this venue answers."""
        handlers: dict[str, Callable[[web.Request], dict[str, Any]]] = {
            "/portfolio/balance": self._balance,
            "/portfolio/fills": partial(self._fills, archived=False),
            "/portfolio/positions": self._positions,
            "/portfolio/settlements": self._settlements,
            "/portfolio/orders": self._orders,
            "/portfolio/deposits": partial(self._transfers, deposits=True),
            "/portfolio/withdrawals": partial(self._transfers, deposits=False),
            "/markets": partial(self._markets, archived=False),
            "/markets/{ticker}": partial(self._market, archived=False),
            "/historical/cutoff": self._cutoff,
            "/historical/fills": partial(self._fills, archived=True),
            "/historical/positions": self._archived_positions,
            "/historical/markets": partial(self._markets, archived=True),
            "/historical/markets/{ticker}": partial(self._market, archived=True),
            "/exchange/status": lambda _: {"exchange_active": True, "trading_active": True},
            "/exchange/user_data_timestamp": lambda _: {"as_of_time": instant(micros(self._now()))},
            "/account/limits": _limits,
            "/account/endpoint_costs": lambda _: {"default_cost": _COST, "endpoint_costs": []},
        }
        return [web.get(BASE + path, _answering(handler)) for path, handler in handlers.items()]

    def refusal(self, request: web.Request) -> web.Response | None:
        """The 401 or 429 that this request deserves, or None."""
        path = request.path.removeprefix(BASE)
        if path.startswith(_SIGNED) and (denied := self._denial(request)):
            return denied
        bucket, cost = (self._balances, 1) if path == "/portfolio/balance" else (self._reads, _COST)
        if bucket and not bucket.take(cost):
            return reply({"error": "too many requests"}, 429)
        return None

    def _denial(self, request: web.Request) -> web.Response | None:
        names = ("KEY", "TIMESTAMP", "SIGNATURE")
        key_id, stamp, signature = (request.headers.get(f"KALSHI-ACCESS-{name}") for name in names)
        if not (key_id and stamp and signature):
            return error(401, "signature_is_missing_from_headers", "signature is missing from headers")
        if key_id != self._key_id:
            return error(401, "authentication_error", "authentication_error", details="NOT_FOUND")
        if not stamp.isdecimal() or abs(int(stamp) * 1000 - micros(self._now())) > _MAX_SKEW_S * SECOND:
            return error(401, "header_timestamp_expired", "header timestamp expired")
        if not is_signed(self._public_key, f"{stamp}{request.method}{request.path}".encode(), signature):
            return error(401, "authentication_error", "authentication_error", details="INCORRECT_API_KEY_SIGNATURE")
        return None

    def _balance(self, request: web.Request) -> dict[str, Any]:
        held = self._world.balance(self._now())
        cash, worth = (held.cash_micros, held.portfolio_micros) if _is_primary(request) else (0, 0)
        return {
            "balance": int(cash / 10_000),  # truncated: a client that adds this up is a cent short
            "balance_breakdown": [{"balance": price(cash // 100), "exchange_index": 0}],
            "balance_dollars": price(cash // 100),
            "portfolio_value": int(worth / 10_000),
            "updated_ts": held.updated_at // SECOND,
        }

    def _fills(self, request: web.Request, *, archived: bool) -> dict[str, Any]:
        now, name = self._now(), "GetFillsHistorical" if archived else "GetFills"
        cutoff = self._world.cutoff(now).fills_at
        tier = [fill for fill in self._world.fills(now) if (fill.at < cutoff) == archived]
        rows = _within(request, name, _selected(request, tier))
        if order := request.query.get("order_id"):
            rows = [fill for fill in rows if fill.order_id == order]
        page, cursor = newest_first(rows, attrgetter("key"), _limit(request, name), _cursor(request))
        return {"fills": [self._fill_row(fill) for fill in page], "cursor": cursor}

    def _fill_row(self, fill: Fill) -> msgspec.Raw:
        if fill.fill_id not in self._fill_rows:
            self._fill_rows[fill.fill_id] = _raw(fill_row(fill))
        return self._fill_rows[fill.fill_id]

    def _settlements(self, request: web.Request) -> dict[str, Any]:
        now = self._now()
        cutoff = self._world.cutoff(now).settled_at
        live = [row for row in self._world.settlements(now) if row.at >= cutoff]
        rows = _within(request, "GetSettlements", _selected(request, live))
        page, cursor = newest_first(rows, attrgetter("key"), _limit(request, "GetSettlements"), _cursor(request))
        return {"settlements": [settlement_row(row) for row in page], "cursor": cursor}

    def _positions(self, request: web.Request) -> dict[str, Any]:
        now, wanted = self._now(), request.query.get("settlement_status", "unsettled")
        if wanted not in {"unsettled", "settled", "all"}:
            raise BadQueryError(f"GetPositions: settlement_status={wanted}")
        positions = [] if wanted == "settled" else self._world.open_positions(now)
        if wanted != "unsettled":
            cutoff = self._world.cutoff(now).settled_at
            positions += [p for p in self._world.settled_positions(now) if p.market.settlement.at >= cutoff]
        return _position_page(request, positions, by_event=wanted != "unsettled")

    def _archived_positions(self, request: web.Request) -> dict[str, Any]:
        now = self._now()
        cutoff = self._world.cutoff(now).settled_at
        archived = [p for p in self._world.settled_positions(now) if p.market.settlement.at < cutoff]
        return _position_page(request, archived, by_event=True)

    def _orders(self, request: web.Request) -> dict[str, Any]:
        _limit(request, "GetOrders")
        return {"orders": [], "cursor": ""}  # every order of these worlds is filled at once

    def _transfers(self, request: web.Request, *, deposits: bool) -> dict[str, Any]:
        name = "deposits" if deposits else "withdrawals"
        now = self._now()
        rows = [transfer for transfer in self._world.transfers(now) if transfer.is_deposit == deposits]
        page, cursor = newest_first(rows, attrgetter("key"), _limit(request, name, most=500), _cursor(request))
        return {name: [transfer_row(row, self._world.instant(now)) for row in page], "cursor": cursor}

    def _markets(self, request: web.Request, *, archived: bool) -> dict[str, Any]:
        name = "GetHistoricalMarkets" if archived else "GetMarkets"
        now, wanted = self._now(), request.query.get("status", "")
        if wanted not in _STATUS_WORDS:
            raise BadQueryError(f"{name}: status={wanted}")
        rows = _selected(request, self._tier(now, archived=archived))
        if wanted:
            at = self._world.instant(now)
            rows = [market for market in rows if status(market, at) == wanted]
        page, cursor = newest_first(rows, attrgetter("key"), _limit(request, name), _cursor(request))
        return {"markets": [self._market_row(now, market) for market in page], "cursor": cursor}

    def _market(self, request: web.Request, *, archived: bool) -> dict[str, Any]:
        now = self._now()
        market = self._world.market(now, request.match_info["ticker"])
        if market is None or (market.settlement.at < self._world.cutoff(now).settled_at) != archived:
            raise web.HTTPNotFound
        return {"market": self._market_row(now, market)}

    def _tier(self, now: datetime, *, archived: bool) -> list[Market]:
        cutoff = self._world.cutoff(now).settled_at
        return [market for market in self._world.markets(now) if (market.settlement.at < cutoff) == archived]

    # A settled market never changes again, so its row is written once.
    def _market_row(self, now: datetime, market: Market) -> Row:
        if not market.is_settled(self._world.instant(now)):
            return market_row(self._world, now, market)
        if market.ticker not in self._settled_markets:
            self._settled_markets[market.ticker] = _raw(market_row(self._world, now, market))
        return self._settled_markets[market.ticker]

    def _cutoff(self, _: web.Request) -> dict[str, Any]:
        cutoff = self._world.cutoff(self._now())
        fills, settled = second(cutoff.fills_at), second(cutoff.settled_at)
        return {
            "market_settled_ts": settled,
            "trades_created_ts": fills,
            "orders_updated_ts": fills,
            "market_positions_last_updated_ts": settled,
        }


def error(status: int, code: str, message: str, **more: str) -> web.Response:
    """The nested error shape, which most refusals have."""
    return reply({"error": {"code": code, "message": message, **more}}, status)


def _position_page(request: web.Request, positions: Iterable[Position], *, by_event: bool) -> dict[str, Any]:
    groups = defaultdict(list)
    for position in _counted(request, positions):
        groups[position.market.event if by_event else position.market.ticker].append(position)
    keys = [(0, name) for name in sorted(groups)]
    page, cursor = newest_first(keys, lambda key: key, _limit(request, "GetPositions"), _cursor(request))
    held = [position for _, name in page for position in groups[name]]
    events = defaultdict(list)
    for position in held:
        events[position.market.event].append(position)
    return {
        "market_positions": [position_row(position) for position in held],
        "event_positions": [event_row(event, members) for event, members in events.items()],
        "cursor": cursor,
    }


def _counted(request: web.Request, positions: Iterable[Position]) -> Iterable[Position]:
    filters = request.query.get("count_filter", "").split(",")
    tickers, event = _words(request, "ticker"), request.query.get("event_ticker")
    for position in positions if _is_primary(request) else ():
        if (
            (tickers and position.market.ticker not in tickers)
            or (event and position.market.event != event)
            or ("position" in filters and position.count == 0)
            or ("total_traded" in filters and position.traded_count == 0)
        ):
            continue
        yield position


def _selected[T: (Fill, Settlement, Market)](request: web.Request, rows: Sequence[T]) -> Sequence[T]:
    if not _is_primary(request):
        return []
    if tickers := _words(request, "ticker") | _words(request, "tickers"):
        rows = [row for row in rows if row.ticker in tickers]
    if event := request.query.get("event_ticker"):
        rows = [row for row in rows if getattr(row, "event", None) == event]
    if series := request.query.get("series_ticker"):
        rows = [row for row in rows if row.ticker.split("-")[0] == series]
    return rows


def _within[T: (Fill, Settlement)](request: web.Request, name: str, rows: Sequence[T]) -> Sequence[T]:
    first, last = _number(request, name, "min_ts", 0), _number(request, name, "max_ts", None)
    if first:
        rows = [row for row in rows if row.at >= first * SECOND]
    if last is not None:
        rows = [row for row in rows if row.at // SECOND <= last]
    return rows


# These accounts have one shard and no subaccounts.
def _is_primary(request: web.Request) -> bool:
    return {request.query.get("subaccount", "0"), request.query.get("exchange_index", "0")} == {"0"}


def _words(request: web.Request, name: str) -> set[str]:
    return set(filter(None, request.query.get(name, "").split(",")))


def _cursor(request: web.Request) -> str:
    return request.query.get("cursor", "")


def _limit(request: web.Request, name: str, *, most: int = 1000) -> int:
    limit = _number(request, name, "limit", 100) or 0
    if not 1 <= limit <= most:
        raise BadQueryError(f"{name}: limit must be between 1 and {most}")
    return limit


def _number(request: web.Request, name: str, parameter: str, default: int | None) -> int | None:
    text = request.query.get(parameter)
    try:
        return int(text) if text else default
    except ValueError as error:
        raise BadQueryError(f"{name}: {parameter} is not a number") from error


def _limits(_: web.Request) -> dict[str, Any]:
    read, write = ({"refill_rate": rate, "bucket_capacity": rate} for rate in (_READ_PER_S, 100))
    return {"usage_tier": "basic", "read": read, "write": write, "grants": []}


def _raw(row: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(row))


def _answering(handler: Callable[[web.Request], dict[str, Any]]) -> Handler:
    @wraps(handler, assigned=())
    async def answer(request: web.Request) -> web.Response:
        try:
            return reply(handler(request))
        except BadQueryError as bad:
            return reply({"msg": f"Parameter validation failed for {bad}"}, 400)

    return answer
