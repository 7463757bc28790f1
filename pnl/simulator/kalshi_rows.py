"""The venue's rows, with every field that the official models require."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from pnl.simulator.nouns import DAY, DOLLAR_PRICE, SECOND, Fill, Market, Position, Settlement, Transfer
from pnl.simulator.wire import count, instant, money, price, second
from pnl.simulator.world import World


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
        "status": {"open": "active", "closed": "closed", "settled": "finalized"}[status(market, at)],
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


def status(market: Market, at: int) -> str:
    """Open, closed or settled, in the words of the filter, which are not the words of the rows."""
    if market.is_settled(at):
        return "settled"
    return "closed" if market.close_at <= at else "open"
