"""The venue's bookkeeping: fills in, positions, settlement rows and cash out; exact integers."""

from collections.abc import Iterable

from pnl.simulator.nouns import DOLLAR_PRICE, Fill, Market, Position, Result, Settlement


def fold(market: Market, at: int) -> Position:
    """The position that the fills up to `at`, and the settlement once known, leave; average cost."""
    held = cost = realized = traded = traded_count = fees = 0
    updated = market.open_at
    for fill in market.fills:
        if fill.at > at:
            break
        held, cost, gained = _acquire(held, cost, fill)
        realized += gained
        traded += fill.cost_micros
        traded_count += fill.count
        fees += fill.fee_micros
        updated = fill.at
    if market.is_settled(at):
        realized, updated = gross_pnl_micros(market.settlement), market.settlement.at
        held = cost = 0
        if not market.fills:  # settled before the window of fills: the row is all there is
            traded, traded_count, fees = _traded(market.settlement)
    return Position(market, held, cost, realized, traded, traded_count, fees, updated)


# Returns the new signed count, its cost, and what the pairs that met gained.
def _acquire(held: int, cost: int, fill: Fill) -> tuple[int, int, int]:
    signed = fill.count if fill.is_yes else -fill.count
    if held * signed >= 0:
        return held + signed, cost + fill.cost_micros, 0
    paired = min(abs(held), fill.count)
    released = (2 * cost * paired + abs(held)) // (2 * abs(held))
    paid = fill.cost_micros * paired // fill.count
    left_cost = cost - released if abs(held) > fill.count else fill.cost_micros - paid
    return held + signed, left_cost, paired * DOLLAR_PRICE - released - paid


def _traded(row: Settlement) -> tuple[int, int, int]:
    return row.yes_cost_micros + row.no_cost_micros, row.yes_count + row.no_count, row.fee_micros


def gross_pnl_micros(row: Settlement) -> int:
    """Lifetime P&L of a settled market before fees: payout, plus a dollar a pair, less all that was paid."""
    pairs = min(row.yes_count, row.no_count) * DOLLAR_PRICE
    return row.revenue_cents * 10_000 + pairs - row.yes_cost_micros - row.no_cost_micros


def settle(fills: Iterable[Fill], *, ticker: str, event: str, at: int, result: Result, value: int) -> Settlement:
    """The settlement row that these fills lead to when one YES pays `value` cents."""
    counts, costs, fees = {True: 0, False: 0}, {True: 0, False: 0}, 0
    for fill in fills:
        counts[fill.is_yes] += fill.count
        costs[fill.is_yes] += fill.cost_micros
        fees += fill.fee_micros
    net = counts[True] - counts[False]
    revenue = net * value // 100 if net > 0 else -net * (100 - value) // 100
    sides = (counts[True], costs[True], counts[False], costs[False])
    return Settlement(ticker, event, at, result, *sides, revenue, value, fees)


def cash_events(market: Market) -> list[tuple[int, int]]:
    """Every change of cash in the market's life, as (instant, micro-dollars), oldest first."""
    events, held = [], 0
    for fill in market.fills:
        signed = fill.count if fill.is_yes else -fill.count
        paired = min(abs(held), fill.count) if held * signed < 0 else 0
        events.append((fill.at, paired * DOLLAR_PRICE - fill.cost_micros - fill.fee_micros))
        held += signed
    row = market.settlement
    unseen = 0 if market.fills else gross_pnl_micros(row) - row.revenue_cents * 10_000 - row.fee_micros
    return [*events, (row.at, row.revenue_cents * 10_000 + unseen)]
