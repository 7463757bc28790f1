"""What a report says, asked of the history: all the figures, none of their looks."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

from pnl.history.client import Bars, History, Underwater
from pnl.history.dimensions import Filters
from pnl.history.figures import Booked, Drawdowns, Part, Posting, Postings
from pnl.history.periods import Period, period
from pnl.history.ranges import Range
from pnl.records import Reading, Snapshot, State

OWN = ("kalshi", "anthropic", "john")
BROKEN_DOWN = ("source", "market", "item", "deal", "day", "weekday", "hour")
MOST_POINTS = 600
MOST_TRADES = 10
MOST_DEALS = 25
MOST_FALLS = 5
TRIES = 3

type OnStep = Callable[[int, int], None]
"""Told how many questions of how many are answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is to be about.

    Attributes:
        range: The period.
        zone: The reporting time zone, where days begin.
        written_at: Aware; when the report is written.
        title: What stands above it.
        filters: Pairs of a dimension and the name of one of its parts, see `History.ledger`; all of it without any.
        hides: Whether amounts are left out; shapes and percentages stay.
        kind: What is to be warned of: `demo` or `simulated` numbers; empty for real ones.
        sources: Whose states are told.
    """

    range: Range
    zone: tzinfo
    written_at: datetime
    title: str = ""
    filters: Filters = ()
    hides: bool = False
    kind: str = ""
    sources: tuple[str, ...] = OWN


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of a source: its last state, all of its rows, from when to when, and how many are in the period."""

    reading: Reading[None]
    rows: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    rows_in_period: int = 0

    @property
    def is_known(self) -> bool:
        """Whether it says anything at all, now or in the past."""
        return bool(self.rows) or self.reading.state is not State.NOT_CONFIGURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Every figure of a report; `parts` by dimension, `best` and `worst` the rows that made most and lost most.

    `snapshot` is the newest one (None: there is none), `is_steady` whether nothing was booked while all was asked.
    """

    asked: Asked
    period: Period
    parts: Mapping[str, tuple[Part, ...]]
    bars: Bars
    underwater: Underwater
    best: tuple[Posting, ...]
    worst: tuple[Posting, ...]
    deals: Postings
    coverage: tuple[Coverage, ...]
    snapshot: Snapshot | None
    is_steady: bool = True

    @property
    def booked(self) -> Booked:
        """What the period made."""
        return self.period.booked

    @property
    def before(self) -> Booked | None:
        """What the period before it made, None where nothing is known of it."""
        return self.period.before

    @property
    def drawdowns(self) -> Drawdowns:
        """The high-water mark and the deepest falls."""
        return self.period.drawdowns

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the period: its figures would be made-up zeros."""
        return not self.booked.postings and not len(self.bars)


async def gather(history: History, asked: Asked, *, on_step: OnStep = lambda _done, _total: None) -> Facts:
    """Ask for all that a report says.

    It is asked anew when something was booked meanwhile, so that its parts are those of one and the same total.

    Raises:
        HistoryError: See `History.bars`.
    """
    for _ in range(TRIES):
        facts = await _gathered(history, asked, on_step)
        if await history.booked(asked.range.start, asked.range.end, filters=asked.filters) == facts.booked:
            return facts
    return replace(facts, is_steady=False)


async def _gathered(history: History, asked: Asked, on_step: OnStep) -> Facts:
    start, end, filters = asked.range.start, asked.range.end, asked.filters
    of_deals = (*filters, ("source", "john"))
    questions: Mapping[str, Callable[[], Awaitable[Any]]] = {
        "period": partial(period, history, asked.range, filters=filters),
        "parts": partial(_parts, history, asked),
        "bars": partial(history.bars, start, end, filters=filters, most=MOST_POINTS),
        "underwater": partial(history.underwater, start, end, filters=filters, most=MOST_POINTS),
        "best": partial(_trades, history, asked, descending=True),
        "worst": partial(_trades, history, asked, descending=False),
        "deals": partial(history.ledger, start, end, filters=of_deals, order="amount", count=MOST_DEALS),
        "snapshot": partial(history.snapshot_at, asked.written_at, asked.sources),
    }
    found = {}
    for number, (name, question) in enumerate(questions.items(), 1):
        found[name] = await question()
        on_step(number, len(questions) + 1)
    coverage = await _coverage(history, asked, found["snapshot"])
    on_step(len(questions) + 1, len(questions) + 1)
    return Facts(asked=asked, coverage=coverage, **found)


async def _parts(history: History, asked: Asked) -> Mapping[str, tuple[Part, ...]]:
    start, end = asked.range.start, asked.range.end
    return {by: await history.breakdown(start, end, by=by, filters=asked.filters) for by in BROKEN_DOWN}


async def _trades(history: History, asked: Asked, *, descending: bool) -> tuple[Posting, ...]:
    """The rows that realized most, or lost most."""
    found = await history.ledger(
        asked.range.start,
        asked.range.end,
        filters=asked.filters,
        term="trading",
        order="amount",
        descending=descending,
        count=MOST_TRADES,
    )
    return tuple(row for row in found.rows if (row.amount_usd > 0) is descending)


async def _coverage(history: History, asked: Asked, snapshot: Snapshot | None) -> tuple[Coverage, ...]:
    """Of every source that is told of or brought something, all rows of it, whatever the filters."""
    everything = {part.name or "": part.postings for part in await history.breakdown(by="source")}
    within = await history.breakdown(asked.range.start, asked.range.end, by="source")
    rows_in_period = {part.name: part.postings for part in within}
    readings = {} if snapshot is None else {reading.source: reading for reading in snapshot.sources}
    found = []
    for name in dict.fromkeys((*asked.sources, *everything)):
        reading = readings.get(name) or Reading(name, State.NOT_CONFIGURED)
        first, last = await _ends(history, name) if everything.get(name) else (None, None)
        found.append(Coverage(reading, everything.get(name, 0), first, last, rows_in_period.get(name, 0)))
    return tuple(found)


async def _ends(history: History, source: str) -> tuple[datetime, datetime]:
    """The instants of a source's first and last row."""
    filters = (("source", source),)
    first = await history.ledger(filters=filters, descending=False, count=1)
    last = await history.ledger(filters=filters, count=1)
    return first.rows[0].at, last.rows[0].at
