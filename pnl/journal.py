"""Every change of the P&L at its own instant, from the records alone: what happened before the first snapshot too.

Trading changes when a pair nets or a market settles, fees when a fill is made, a cost on its UTC day and a deal on the
day that it closed, both from that day's first local minute on. No marks of the past are known, so open P&L is not here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Literal

import numpy as np
import numpy.typing as npt

from pnl.ledger import Ledger
from pnl.records import MICRO, ZERO, CostDay, Deal, Settlement
from pnl.rows import micros, to_us
from pnl.schema import BAR_PARTS

MINUTE_US = 60_000_000
COMPONENTS = ("kalshi_realized", "kalshi_fees", "billed_costs", "estimated_costs", "total_revenue")
ADDED = ("kalshi_realized", "total_revenue")

type Component = Literal["kalshi_realized", "kalshi_fees", "billed_costs", "estimated_costs", "total_revenue"]
type Kind = Literal["fill", "settlement", "cost", "deal"]
type Integers = npt.NDArray[np.int64]


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
        return self.usd if self.component in ADDED else -self.usd


@dataclass(frozen=True, slots=True)
class Posting:
    """All that one record did to the P&L: by how much which part of it grew, see `Step`.

    `record` is what the record is called among those of its kind and source: a fill's id, a settled market's ticker, a
    cost's day and line, a deal's origin and id. `side`, `count` and `price_usd` are a fill's, `side` of a settlement is
    its result; `text` is what somebody else wrote about it.
    """

    at: datetime
    kind: Kind
    source: str
    record: str
    key: str
    usd: Mapping[Component, Decimal]
    side: str = ""
    count: Decimal | None = None
    price_usd: Decimal | None = None
    text: str = ""

    @property
    def net_usd(self) -> Decimal:
        """What it adds to the net P&L."""
        return sum((usd if component in ADDED else -usd for component, usd in self.usd.items()), ZERO)

    @property
    def steps(self) -> Iterable[Step]:
        """Its steps; those that are zero are left out."""
        return (Step(self.at, part, usd, self.source, self.key) for part, usd in self.usd.items() if usd)


def postings(ledger: Ledger, cost_days: Iterable[CostDay], deals: Iterable[Deal], zone: tzinfo) -> list[Posting]:
    """What each of these records did to the P&L, oldest first."""
    found = [*_of_trading(ledger), *_of_costs(cost_days, zone), *_of_deals(deals, zone)]
    return sorted(found, key=lambda posting: posting.at)


def steps_of(found: Iterable[Posting]) -> list[Step]:
    """All steps that these postings make, in their order."""
    return [step for posting in found for step in posting.steps]


def _of_trading(ledger: Ledger) -> Iterable[Posting]:
    for book in ledger.books.values():
        for entry in book.entries:
            usd: dict[Component, Decimal] = {"kalshi_realized": entry.realized_usd, "kalshi_fees": entry.fee_usd}
            row = entry.record
            if isinstance(row, Settlement):
                yield Posting(entry.at, "settlement", "kalshi", row.ticker, row.ticker, usd, row.result.value)
            else:
                price_usd = row.cost_usd / row.count
                yield Posting(entry.at, "fill", "kalshi", row.fill_id, row.ticker, usd, row.side, row.count, price_usd)


def _of_costs(cost_days: Iterable[CostDay], zone: tzinfo) -> Iterable[Posting]:
    for day in cost_days:
        component: Component = "estimated_costs" if day.is_estimate else "billed_costs"
        at = _midnight(day.day, zone)
        for number, line in enumerate(day.lines):
            yield Posting(at, "cost", day.source, f"{day.day} {number}", line.item, {component: line.amount_usd})


def _of_deals(deals: Iterable[Deal], zone: tzinfo) -> Iterable[Posting]:
    for deal in deals:
        usd: dict[Component, Decimal] = {"total_revenue": deal.revenue_usd, "billed_costs": deal.fee_usd}
        at, record = _midnight(deal.closed_on, zone), f"{deal.origin} {deal.deal_id}"
        yield Posting(at, "deal", "john", record, deal.deal_id, usd, deal.status, text=deal.description)


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


def minutes(steps: Iterable[Step], *, last: int | None = None) -> dict[str, Integers]:
    """The cumulative P&L in minutes, only those in which something changed.

    Args:
        steps: Oldest first.
        last: The last minute before the first snapshot, which shows the P&L behind all of these steps: what is dated
            later and known all the same is put into this minute.

    Returns:
        Columns of one length: `minute` since the epoch, `snapshots` (how many instants changed it), and of every money
        column `<column>_open`, `_high`, `_low`, `_close` and `_sum` in µUSD. A minute opens where the one before it
        closed; sums are over the states behind each instant's steps.
    """
    at, states = _states(steps)
    minute = at if last is None else np.minimum(at, last)
    starts = np.flatnonzero(np.diff(minute, prepend=minute[:1] - 1))
    found = {"minute": minute[starts], "snapshots": np.diff(starts, append=len(minute))}
    for name, values in states.items():
        found |= {f"{name}_{part}": column for part, column in _bars(values, starts).items()}
    return found


def _states(steps: Iterable[Step]) -> tuple[Integers, dict[str, Integers]]:
    """The minute of each instant, and every money column behind its steps in whole µUSD, rounded as a snapshot's is."""
    totals = dict.fromkeys(COMPONENTS, ZERO)
    shown = dict.fromkeys(COMPONENTS, 0)
    found: list[tuple[int, ...]] = []
    for at, together in groupby(steps, key=attrgetter("at")):
        for step in together:
            totals[step.component] += step.usd
            shown[step.component] = micros(totals[step.component])
        found.append((to_us(at) // MINUTE_US, *shown.values()))
    at, *columns = np.array(found, np.int64).reshape(-1, 1 + len(COMPONENTS)).T
    part = dict(zip(COMPONENTS, columns, strict=True))
    kalshi = part["kalshi_realized"] - part["kalshi_fees"]
    costs = part["billed_costs"] + part["estimated_costs"]
    net = kalshi - costs + part["total_revenue"]
    return at, {**part, "kalshi_unrealized": at * 0, "kalshi_pnl": kalshi, "total_costs": costs, "net_pnl": net}


def _bars(values: Integers, starts: Integers) -> dict[str, Integers]:
    """One bar of each stretch of values, which are those from one of `starts` to the next."""
    if not len(values):
        return dict.fromkeys(BAR_PARTS, values)
    opened = np.concatenate(([0], values[:-1]))[starts]
    return {
        "open": opened,
        "high": np.maximum(opened, np.maximum.reduceat(values, starts)),
        "low": np.minimum(opened, np.minimum.reduceat(values, starts)),
        "close": np.append(values[starts[1:] - 1], values[-1]),
        "sum": np.add.reduceat(values, starts),
    }
