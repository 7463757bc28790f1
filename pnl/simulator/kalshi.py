"""The venue: routes of the trade API v2, its checks, and the shapes of its rows."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial, wraps
from operator import attrgetter
from typing import Any

import msgspec
from aiohttp import web

from pnl.simulator.auth import PublicKey, is_signed
from pnl.simulator.limits import TokenBucket
from pnl.simulator.nouns import DAY, DOLLAR_PRICE, SECOND, Fill, Market, Position, Settlement, Transfer, micros
from pnl.simulator.paging import newest_first
from pnl.simulator.wire import count, instant, money, price, reply, second
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
        now, status = self._now(), request.query.get("status", "")
        if status not in _STATUS_WORDS:
            raise BadQueryError(f"{name}: status={status}")
        rows = _selected(request, self._tier(now, archived=archived))
        if status:
            at = self._world.instant(now)
            rows = [market for market in rows if _status(market, at) == status]
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


def fill_row(fill: Fill) -> dict[str, Any]:
    """A fill with every field of the official model."""
    return {
        "fill_id": fill.fill_id,
        "trade_id": fill.fill_id,
        "order_id": fill.order_id,
        "ticker": fill.ticker,
        "market_ticker": fill.ticker,
        "exchange_index": 0,
        "side": fill.side,
        "action": fill.action,
        "outcome_side": "yes" if fill.is_yes else "no",
        "book_side": "bid" if fill.is_yes else "ask",
        "count_fp": count(fill.count),
        "yes_price_dollars": price(fill.price),
        "no_price_dollars": price(DOLLAR_PRICE - fill.price),
        "fee_cost": money(fill.fee_micros),
        "is_taker": fill.is_taker,
        "created_time": instant(fill.at),
        "ts": fill.at // SECOND,
        "subaccount_number": 0,
    }


def settlement_row(row: Settlement) -> dict[str, Any]:
    """A settlement, gross per side."""
    return {
        "ticker": row.ticker,
        "exchange_index": 0,
        "event_ticker": row.event,
        "market_result": row.result,
        "yes_count_fp": count(row.yes_count),
        "yes_total_cost_dollars": money(row.yes_cost_micros),
        "no_count_fp": count(row.no_count),
        "no_total_cost_dollars": money(row.no_cost_micros),
        "revenue": row.revenue_cents,
        "settled_time": instant(row.at),
        "fee_cost": money(row.fee_micros),
        **({} if row.value_cents is None else {"value": row.value_cents}),
    }


def position_row(position: Position) -> dict[str, Any]:
    """A market position; money without fees."""
    return {
        "ticker": position.market.ticker,
        "exchange_index": 0,
        "total_traded_dollars": money(position.traded_micros),
        "position_fp": count(position.count),
        "market_exposure_dollars": money(position.cost_micros),
        "realized_pnl_dollars": money(position.realized_micros),
        "fees_paid_dollars": money(position.fees_micros),
        "last_updated_ts": instant(position.updated_at),
    }


def event_row(event: str, positions: Iterable[Position]) -> dict[str, Any]:
    """The sums over the positions of one event."""
    held = list(positions)
    return {
        "event_ticker": event,
        "total_cost_dollars": money(sum(p.traded_micros for p in held)),
        "total_cost_shares_fp": count(sum(p.traded_count for p in held)),
        "event_exposure_dollars": money(sum(p.cost_micros for p in held)),
        "realized_pnl_dollars": money(sum(p.realized_micros for p in held)),
        "fees_paid_dollars": money(sum(p.fees_micros for p in held)),
    }


def transfer_row(transfer: Transfer, at: int) -> dict[str, Any]:
    """A deposit or withdrawal, pending until it counts."""
    is_applied = transfer.applied_at <= at
    return {
        "id": transfer.transfer_id,
        "status": "applied" if is_applied else "pending",
        "type": "ach",
        "amount_cents": transfer.amount_cents,
        "fee_cents": transfer.fee_cents,
        "created_ts": transfer.created_at // SECOND,
        **({"finalized_ts": transfer.applied_at // SECOND} if is_applied else {}),
    }


def market_row(world: World, now: datetime, market: Market) -> dict[str, Any]:
    """A market with every field of the official model."""
    at, quote = world.instant(now), world.quote(now, market)
    closed_at = min(at, market.close_at)
    volume = (closed_at - market.open_at) // SECOND * 7
    settled = _settled_fields(market) if market.is_settled(at) else {}
    return {
        "ticker": market.ticker,
        "event_ticker": market.event,
        "market_type": "binary",
        "title": market.title,
        "yes_sub_title": market.title,
        "no_sub_title": market.title,
        "created_time": second(market.open_at),
        "updated_time": second(min(at, market.settlement.at)),
        "open_time": second(market.open_at),
        "close_time": second(market.close_at),
        "latest_expiration_time": second(market.close_at + 7 * DAY),
        "settlement_timer_seconds": 60,
        "status": {"open": "active", "closed": "closed", "settled": "finalized"}[_status(market, at)],
        "yes_bid_dollars": price(quote.bid),
        "yes_bid_size_fp": count(0 if quote.bid == 0 else 25_000),
        "yes_ask_dollars": price(quote.ask),
        "yes_ask_size_fp": count(0 if quote.ask == DOLLAR_PRICE else 25_000),
        "no_bid_dollars": price(DOLLAR_PRICE - quote.ask),
        "no_ask_dollars": price(DOLLAR_PRICE - quote.bid),
        "last_price_dollars": price(quote.last),
        **_yesterday(world, now, market),
        "volume_fp": count(volume),
        "volume_24h_fp": count(min(volume, DAY // SECOND * 7)),
        "open_interest_fp": count(volume // 3),
        "notional_value_dollars": price(DOLLAR_PRICE),
        "result": "",
        "can_close_early": True,
        "expiration_value": "",
        "rules_primary": "This market is made up.",
        "rules_secondary": "",
        "price_level_structure": "deci_cent" if market.tick < 100 else "linear_cent",  # noqa: PLR2004 (a cent)
        "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": price(market.tick)}],
        "settlement_bounds_type": "default",
        "exchange_index": 0,
        **settled,
    }


def _settled_fields(market: Market) -> dict[str, Any]:
    row = market.settlement
    value = row.value_cents or 0
    return {
        "result": row.result,
        "settlement_value_dollars": price(value * 100),
        "settlement_ts": instant(row.at),
        "expiration_value": str(value),
    }


def _yesterday(world: World, now: datetime, market: Market) -> dict[str, str]:
    before = now - timedelta(days=1)
    bid = ask = last = 0
    if market.open_at <= world.instant(before):
        quote = world.quote(before, market)
        bid, ask, last = quote.bid, quote.ask, quote.last
    names = ("previous_yes_bid_dollars", "previous_yes_ask_dollars", "previous_price_dollars")
    return dict(zip(names, map(price, (bid, ask, last)), strict=True))


# In the words of the filter, which are not the words of the rows.
def _status(market: Market, at: int) -> str:
    if market.is_settled(at):
        return "settled"
    return "closed" if market.close_at <= at else "open"


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
