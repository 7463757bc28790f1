"""Every change of the P&L at its own instant, from the records alone: what happened before the first snapshot too.

Trading changes when a pair nets or a market settles, fees when a fill is made, a cost on its UTC day and a deal on the
day that it closed, both from that day's first local minute on. No marks of the past are known, so open P&L is not here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from itertools import groupby
from typing import Literal

from pnl.ledger import Ledger
from pnl.records import MICRO, MONEY_FIELDS, ZERO, CostDay, Deal
from pnl.rows import to_us

MINUTE_US = 60_000_000
COMPONENTS = ("kalshi_realized", "kalshi_fees", "billed_costs", "estimated_costs", "total_revenue")

type Component = Literal["kalshi_realized", "kalshi_fees", "billed_costs", "estimated_costs", "total_revenue"]
type Minute = tuple[int, int, dict[str, tuple[int, int, int, int, int]]]
"""A minute since the epoch, how many instants changed it; per money column open, high, low, close and sum in µUSD."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: by how much which part of the P&L grew (a cost grows what is subtracted), and for what.

    `key` is the market's ticker, the cost's item or the deal's id.
    """

    at: datetime
    component: Component
    usd: Decimal
    source: str
    key: str

    @property
    def net_usd(self) -> Decimal:
        """What it adds to the net P&L."""
        return self.usd if self.component in ("kalshi_realized", "total_revenue") else -self.usd


def journal(ledger: Ledger, cost_days: Iterable[CostDay], deals: Iterable[Deal], zone: tzinfo) -> list[Step]:
    """All steps that these records make, oldest first; those that are zero are left out."""
    steps = [*_of_trading(ledger), *_of_costs(cost_days, zone), *_of_deals(deals, zone)]
    return sorted((step for step in steps if step.usd), key=lambda step: step.at)


def _of_trading(ledger: Ledger) -> Iterable[Step]:
    for book in ledger.books.values():
        for entry in book.entries:
            yield Step(entry.at, "kalshi_realized", entry.realized_usd, "kalshi", entry.ticker)
            yield Step(entry.at, "kalshi_fees", entry.fee_usd, "kalshi", entry.ticker)


def _of_costs(cost_days: Iterable[CostDay], zone: tzinfo) -> Iterable[Step]:
    for day in cost_days:
        component: Component = "estimated_costs" if day.is_estimate else "billed_costs"
        at = _midnight(day.day, zone)
        for line in day.lines:
            yield Step(at, component, line.amount_usd, day.source, line.item)


def _of_deals(deals: Iterable[Deal], zone: tzinfo) -> Iterable[Step]:
    for deal in deals:
        at = _midnight(deal.closed_on, zone)
        yield Step(at, "total_revenue", deal.revenue_usd, "john", deal.deal_id)
        yield Step(at, "billed_costs", deal.fee_usd, "john", deal.deal_id)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)  # two of one zone would be compared by the wall clock


def not_known_yet(steps: Iterable[Step], shown: Mapping[str, Decimal], at: datetime) -> list[Step]:
    """What has to be taken back so that the P&L behind these steps is the one that a snapshot showed.

    A correction that came later is part of what is rebuilt, and was not known to the snapshots that follow.

    Args:
        steps: What is rebuilt; nothing is taken back from nothing.
        shown: The components of the P&L in US dollars as the snapshot showed them.
        at: Its instant.
    """
    totals = dict.fromkeys(COMPONENTS, ZERO)
    for step in steps:
        totals[step.component] += step.usd
    if not any(totals.values()):
        return []
    return [
        Step(at, name, shown[name] - usd, "correction", "not known yet")  # type: ignore[arg-type] # of COMPONENTS
        for name, usd in totals.items()
        if usd.quantize(MICRO) != shown[name]
    ]


def minutes(steps: Sequence[Step], *, last: int | None = None) -> list[Minute]:
    """The cumulative P&L in minutes, only those in which something changed.

    Args:
        steps: Oldest first.
        last: The last minute before the first snapshot, which shows the P&L behind all of these steps: what is dated
            later and known all the same is put into this minute.

    Returns:
        A minute opens where the one before it closed. Sums are over the states behind each instant's steps.
    """
    totals = dict.fromkeys(COMPONENTS, ZERO)
    state = dict.fromkeys(MONEY_FIELDS, 0)
    bars = []
    for minute, some in groupby(steps, key=lambda step: _minute(step, last)):
        states = [state]
        for _, together in groupby(some, key=lambda step: step.at):
            for step in together:
                totals[step.component] += step.usd
            states.append(_state(totals))
        bars.append((minute, len(states) - 1, {name: _bar([one[name] for one in states]) for name in MONEY_FIELDS}))
        state = states[-1]
    return bars


def _minute(step: Step, last: int | None) -> int:
    minute = to_us(step.at) // MINUTE_US
    return minute if last is None else min(minute, last)


def _state(totals: Mapping[str, Decimal]) -> dict[str, int]:
    """Every money column in whole µUSD, each part rounded as a snapshot rounds it."""
    part = {name: int(totals[name].quantize(MICRO).scaleb(6)) for name in COMPONENTS}
    kalshi = part["kalshi_realized"] - part["kalshi_fees"]
    costs = part["billed_costs"] + part["estimated_costs"]
    net = kalshi - costs + part["total_revenue"]
    return {**part, "kalshi_unrealized": 0, "kalshi_pnl": kalshi, "total_costs": costs, "net_pnl": net}


def _bar(values: Sequence[int]) -> tuple[int, int, int, int, int]:
    return values[0], max(values), min(values), values[-1], sum(values[1:])
