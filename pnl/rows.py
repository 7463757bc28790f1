"""Records as rows of the tables, and back, without losing a digit or a microsecond."""

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from pnl.records import (
    EPOCH,
    MONEY_FIELDS,
    Agreement,
    Cost,
    CostDay,
    Deal,
    Fill,
    Mark,
    Reading,
    Result,
    Settlement,
    Snapshot,
    State,
)

MICROS = 1_000_000
MICROSECOND = timedelta(microseconds=1)


def micros(usd: Decimal) -> int:
    """US dollars as whole micro-dollars; what is finer is rounded half to even."""
    return int((usd * MICROS).to_integral_value())


def to_usd(value: int) -> Decimal:
    """US dollars of whole micro-dollars."""
    return Decimal(value).scaleb(-6)


def to_us(moment: datetime) -> int:
    """Whole microseconds since the epoch."""
    return (moment - EPOCH) // MICROSECOND


def to_ms(moment: datetime) -> int:
    """Whole milliseconds since the epoch."""
    return to_us(moment) // 1000


def to_instant(us: int) -> datetime:
    """The UTC instant of microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=us)


def fill_row(fill: Fill) -> tuple[Any, ...]:
    """A fill as `kalshi_trades` holds it."""
    return (
        fill.fill_id,
        to_us(fill.filled_at),
        fill.ticker,
        fill.side,
        int(fill.count * 100),
        micros(fill.yes_price_usd),
        micros(fill.fee_usd),
        int(fill.is_taker),
    )


def to_fill(row: Sequence[Any]) -> Fill:
    """A row of `kalshi_trades` as a fill."""
    fill_id, at, ticker, side, count, price, fee, is_taker = row
    return Fill(
        fill_id, ticker, side, Decimal(count).scaleb(-2), to_usd(price), to_usd(fee), bool(is_taker), to_instant(at)
    )


def settlement_row(row: Settlement) -> tuple[Any, ...]:
    """A settlement as `kalshi_settlements` holds it."""
    return (
        row.ticker,
        row.event_ticker,
        row.result.value,
        int(row.yes_count * 100),
        micros(row.yes_cost_usd),
        int(row.no_count * 100),
        micros(row.no_cost_usd),
        micros(row.revenue_usd),
        micros(row.fee_usd),
        None if row.value_usd is None else micros(row.value_usd),
        to_us(row.settled_at),
    )


def to_settlement(row: Sequence[Any]) -> Settlement:
    """A row of `kalshi_settlements` as a settlement."""
    ticker, event, result, yes_count, yes_cost, no_count, no_cost, revenue, fee, value, settled_at = row
    return Settlement(
        ticker,
        event,
        Result(result),
        Decimal(yes_count).scaleb(-2),
        to_usd(yes_cost),
        Decimal(no_count).scaleb(-2),
        to_usd(no_cost),
        to_usd(revenue),
        to_usd(fee),
        None if value is None else to_usd(value),
        to_instant(settled_at),
    )


def mark_row(mark: Mark) -> tuple[Any, ...]:
    """A mark as `kalshi_marks` holds it."""
    closes_at = None if mark.closes_at is None else to_us(mark.closes_at)
    return mark.ticker, micros(mark.yes_bid_usd), micros(mark.yes_ask_usd), to_us(mark.as_of), mark.title, closes_at


def to_mark(row: Sequence[Any]) -> Mark:
    """A row of `kalshi_marks` as a mark."""
    ticker, bid, ask, as_of, title, closes_us = row
    closes_at = None if closes_us is None else to_instant(closes_us)
    return Mark(ticker, to_usd(bid), to_usd(ask), to_instant(as_of), title, closes_at=closes_at)


def cost_rows(day: CostDay) -> Iterable[tuple[Any, ...]]:
    """A day's lines as `anthropic_costs` holds them."""
    for number, line in enumerate(day.lines):
        usd = line.amount_usd
        yield day.source, f"{day.day}", number, line.item, f"{usd:f}", micros(usd), int(day.is_estimate)


def to_cost_day(key: tuple[str, str], rows: Iterable[Sequence[Any]]) -> CostDay:
    """The lines of one source and day as that day."""
    source, day = key[0], date.fromisoformat(key[1])
    lines = tuple(Cost(source, day, item, Decimal(usd), bool(estimate)) for _, _, _, item, usd, _, estimate in rows)
    return CostDay(source, day, lines, is_estimate=lines[0].is_estimate)


def deal_row(deal: Deal) -> tuple[Any, ...]:
    """A deal as `john_revenue` holds it."""
    return (
        deal.origin,
        deal.deal_id,
        micros(deal.amount_usd),
        micros(deal.fee_usd),
        deal.status,
        f"{deal.closed_on}",
        to_us(deal.updated_at),
        deal.description,
    )


def to_deal(row: Sequence[Any]) -> Deal:
    """A row of `john_revenue` as a deal."""
    origin, deal_id, amount, fee, status, closed_on, updated_at, description = row
    closed = date.fromisoformat(closed_on)
    return Deal(origin, deal_id, to_usd(amount), status, closed, to_instant(updated_at), description, to_usd(fee))


def snapshot_row(snapshot: Snapshot) -> tuple[Any, ...]:
    """A snapshot as `pnl_snapshots` holds it."""
    states = {
        reading.source: [reading.state.value, None if reading.as_of is None else to_ms(reading.as_of)]
        for reading in snapshot.sources
        if reading.state is not State.NOT_CONFIGURED
    }
    return (
        to_ms(snapshot.taken_at),
        *(micros(getattr(snapshot, name)) for name in MONEY_FIELDS),
        snapshot.trade_count,
        snapshot.open_trade_count,
        snapshot.settled_market_count,
        to_ms(snapshot.as_of),
        int(snapshot.complete),
        json.dumps(states, separators=(",", ":")),
        _said(snapshot),
    )


def _said(snapshot: Snapshot) -> str:
    """What stood beside the numbers in words; nothing, most of the time."""
    words = {"errors": {r.source: r.error for r in snapshot.sources if r.error}}
    lines = {"missing": snapshot.missing, "notes": snapshot.notes}
    if snapshot.drift_usd is not None:
        lines["drift"] = (snapshot.agreement.value, f"{snapshot.drift_usd:f}")
    return json.dumps({name: said for name, said in (words | lines).items() if said}, separators=(",", ":"))


def to_snapshot(row: Sequence[Any], sources: Iterable[str]) -> Snapshot:
    """A row of `pnl_snapshots` as that snapshot; of the sources in it, only how far each could be believed."""
    at, *figures = row[: 1 + len(MONEY_FIELDS)]
    trades, open_trades, settled, _, _, states, said = row[1 + len(MONEY_FIELDS) :]
    usd = dict(zip(MONEY_FIELDS, map(to_usd, figures), strict=True))
    words = json.loads(said)
    known = json.loads(states)
    return Snapshot(
        taken_at=to_instant(at * 1000),
        kalshi_realized=usd["kalshi_realized"],
        kalshi_unrealized=usd["kalshi_unrealized"],
        kalshi_fees=usd["kalshi_fees"],
        billed_costs=usd["billed_costs"],
        estimated_costs=usd["estimated_costs"],
        total_revenue=usd["total_revenue"],
        trade_count=trades,
        open_trade_count=open_trades,
        settled_market_count=settled,
        sources=tuple(_reading(name, known.get(name), words.get("errors", {}).get(name)) for name in sources),
        missing=tuple(words.get("missing", ())),
        notes=tuple(words.get("notes", ())),
        agreement=Agreement(words["drift"][0]) if "drift" in words else Agreement.UNKNOWN,
        drift_usd=Decimal(words["drift"][1]) if "drift" in words else None,
    )


def _reading(source: str, known: Sequence[Any] | None, error: str | None) -> Reading[None]:
    if known is None:
        return Reading(source, State.NOT_CONFIGURED)
    state, as_of_ms = known
    return Reading(source, State(state), as_of=None if as_of_ms is None else to_instant(as_of_ms * 1000), error=error)
