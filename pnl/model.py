"""The current truth: polls the sources, takes their answers in, and puts all of it together as one `Snapshot`."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import islice
from time import perf_counter
from typing import Self

import param

from pnl.errors import SourceError
from pnl.journal import COMPONENTS
from pnl.ledger import Ledger, MarkRule
from pnl.reconcile import Baseline, Drift, compare, in_words
from pnl.records import (
    EPOCH,
    MICRO,
    MONEY_FIELDS,
    ZERO,
    Agreement,
    Batch,
    CostDay,
    Deal,
    Known,
    Mark,
    Reading,
    Refused,
    Snapshot,
    State,
    Trace,
)
from pnl.sources import Source
from pnl.store import Change, Recorded

MILLISECOND = timedelta(milliseconds=1)
MOST_REFUSED = 10_000
VENUE = "kalshi"
BASELINE = "cash_baseline"
SAID = (Agreement.DRIFTS, Agreement.UNEXPLAINED)
JITTER = timedelta(seconds=1)
MOST_NAMED = 3
KNOWLEDGE = ("ledger", "marks", "cost_days", "deals", "damage", "drift", "readings", "_quoteless", "_known", "_refused")

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class PnLModel(param.Parameterized):
    """Net P&L and everything behind it, watched through `snapshot`.

    It is told its sources (`read_from`) and keeps what they said: of one that fails, its last good value, marked stale.
    `failures` holds what went wrong with each source last, and when, also once it is well again.
    """

    mark: MarkRule = param.Selector(  # type: ignore[assignment]
        default="mid", objects=["mid", "bid"], constant=True, doc="Which price values an open position."
    )
    snapshot = param.ClassSelector(
        default=None, class_=Snapshot, allow_None=True, doc="The newest numbers in US dollars; None before the first."
    )
    net_pnl = param.ClassSelector(
        default=None, class_=Decimal, allow_None=True, doc="Trading − costs + revenue, in US dollars; None: unknown."
    )
    failures_until_down = param.Integer(
        default=3, bounds=(0, 100), constant=True, doc="Failures in a row after which a stale source counts as down."
    )

    def __init__(self, *, now: Callable[[], datetime] = _now, **params: object) -> None:
        super().__init__(**params)
        self.sources: dict[str, Source] = {}
        self.ledger = Ledger()
        self.marks: dict[str, Mark] = {}
        self.cost_days: dict[tuple[str, date], CostDay] = {}
        self.deals: dict[tuple[str, str], Deal] = {}
        self._quoteless: set[str] = set()
        self.readings: dict[str, Reading[Batch]] = {}
        self._known: dict[str, Known] = {}
        self._failures: dict[str, int] = {}
        self._refused: dict[str, dict[tuple[str, str], Refused]] = {}
        self.failures: dict[str, tuple[datetime, str]] = {}
        self.damage: tuple[str, ...] = ()
        self._remarks: tuple[str, ...] = ()
        self._now = now
        self.drift = Drift()
        self._taken_at = EPOCH
        self._sequence = self._news_count = 0

    def read_from(self, sources: Iterable[Source], not_configured: Iterable[str] = ()) -> Self:
        """Set what is polled, and what is left out of the numbers and named."""
        self.sources = {source.name: source for source in sources}
        self.readings = {name: Reading(name, State.NOT_CONFIGURED) for name in not_configured}
        self.readings |= {name: Reading(name, State.DOWN) for name in self.sources}
        self._known = {name: Known() for name in self.sources}
        self._failures = dict.fromkeys(self.sources, 0)
        self._refused = {name: {} for name in self.sources}
        return self

    def restore(self, recorded: Recorded) -> None:
        """Begin with what the store holds, so that there are numbers before the first poll: stale, with their age."""
        self.become(self.restored(recorded))

    def restored(self, recorded: Recorded) -> "PnLModel":
        """Another model of the same sources that begins so; nothing of this one changes, so any thread may ask it."""
        others = [name for name in self.readings if name not in self.sources]
        model = PnLModel(mark=self.mark, failures_until_down=self.failures_until_down, now=self._now)
        model.read_from(self.sources.values(), others).begin_with(recorded)
        return model

    def become(self, other: "PnLModel") -> None:
        """Know what another model knows, all of it at once; what is shown stays."""
        for name in KNOWLEDGE:
            setattr(self, name, getattr(other, name))
        self._news_count += 1

    def begin_with(self, recorded: Recorded) -> None:
        """Take in what the store holds, in a model that knows nothing yet."""
        self.damage = recorded.damage
        origins = {source.origin for source in self.sources.values()}
        trades = "kalshi" in self.sources  # what a source brought counts as long as that source is configured
        self._take_in(
            Batch(
                fills=recorded.fills if trades else (),
                settlements=recorded.settlements if trades else (),
                marks=recorded.marks,
                cost_days=tuple(day for day in recorded.cost_days if day.source in self.sources),
                deals=tuple(deal for deal in recorded.deals if deal.origin in origins),
            ),
            origin="",
        )
        for name, source in self.sources.items():
            known, as_of = recorded.sources.get(source.origin, (Known(), None))
            self._known[name] = known
            if baseline := known.cursors.get(BASELINE):
                self.drift = Drift(baseline=Baseline.parse(baseline))
            self._refused[name] = {(row.what, row.key): row for row in recorded.refused.get(source.origin, ())}
            if as_of is not None:
                waiting = f"{name}: showing what was recorded; not asked since the start"
                refused = tuple(self._refused[name].values())
                self.readings[name] = Reading(name, State.STALE, as_of=as_of, error=waiting, refused=refused)

    async def pull(self, name: str) -> Change:
        """Poll one source and take its answer in.

        Returns:
            What is to be recorded: what was news in the answer, and the snapshot that includes it.
        """
        source = self.sources[name]
        known = replace(self._known[name], open_tickers=self.ledger.open_tickers)
        trace = Trace(source=name, requested=perf_counter())
        try:
            batch = await source.poll(known)
        except SourceError as error:
            return self.fail(name, str(error))
        except Exception:
            log.exception("source %s broke", name)  # a third party's bug must not stop the others
            return self.fail(name, f"{name}: the source itself broke; its log has the details")
        trace.parsed = perf_counter()
        return self.accept(name, batch, trace)

    async def pull_all(self) -> list[Change]:
        """Poll every source at once; a slow or failing one takes nothing from the others."""
        return list(await asyncio.gather(*(self.pull(name) for name in self.sources)))

    def accept(self, name: str, batch: Batch, trace: Trace | None = None) -> Change:
        """Take in a good answer, or the good part of one; `trace` tells how it came here."""
        trace = trace or Trace(source=name)
        before = self.readings[name]
        source = self.sources[name]
        news = self._take_in(batch, origin=source.origin)
        as_of = before.as_of if batch.error else self._now()
        self._failures[name] = self._failures[name] + 1 if batch.error else 0
        self._reconcile(name, batch)
        self._note_failure(name, batch.error)
        self._known[name] = Known({**self._known[name].cursors, **batch.cursors, **self._baseline(name)})
        state = State.FRESH if batch.error is None else self._failed_state(name, as_of)
        self._set_aside(name, batch)
        self.readings[name] = Reading(name, state, batch, as_of, batch.error, tuple(self._refused[name].values()))
        news = replace(news, cursors=self._known[name].cursors, refused=batch.refused, reread=batch.reread)
        trace.aggregated = perf_counter()
        snapshot = self.put_together(trace)
        return Change(snapshot, source.origin, news, as_of, known_at=snapshot.taken_at)

    def _set_aside(self, name: str, batch: Batch) -> None:
        """Remember the rows that were refused until they are read again and are good, or gone."""
        kept = {key: row for key, row in self._refused[name].items() if row.what not in batch.reread}
        together = kept | {(row.what, row.key): row for row in batch.refused}
        self._refused[name] = dict(islice(together.items(), MOST_REFUSED))  # a flood must not fill the memory

    def _reconcile(self, name: str, batch: Batch) -> None:
        """Hold the ledger against the venue's own figures, unless a part of them and of the records is missing."""
        if name == VENUE:
            self.drift = compare(None if batch.error else batch.account, self.ledger, self.drift, at=self._now())

    def _baseline(self, name: str) -> dict[str, str]:
        return {BASELINE: str(self.drift.baseline)} if name == VENUE and self.drift.baseline else {}

    def fail(self, name: str, error: str) -> Change:
        """Note that a source could not be read; its last good value stays."""
        before = self.readings[name]
        self._reconcile(name, Batch(error=error))
        self._note_failure(name, error)
        self._failures[name] += 1
        state = self._failed_state(name, before.as_of)
        self.readings[name] = replace(before, state=state, error=error)
        return Change(self.put_together())

    def late(self, name: str, after_s: float) -> Change | None:
        """Note that a source takes long to answer; None when it was not fresh anyway."""
        before = self.readings[name]
        if before.state is not State.FRESH:
            return None
        error = f"{name}: no answer for {after_s:g} s; still waiting for it"
        self._note_failure(name, error)
        self.readings[name] = replace(before, state=State.STALE, error=error)
        return Change(self.put_together())

    def _note_failure(self, name: str, error: str | None) -> None:
        if error is not None:
            self.failures[name] = self._now(), error

    def _failed_state(self, name: str, as_of: datetime | None) -> State:
        lost = as_of is None or self._failures[name] > self.failures_until_down
        return State.DOWN if lost else State.STALE

    def _take_in(self, batch: Batch, *, origin: str) -> Batch:
        """Add records to what is known; returns the ones that changed something."""
        fills, settlements = self.ledger.add(batch.fills, batch.settlements)
        marks = self._take_in_marks(batch.marks)
        cost_days = tuple(day for day in batch.cost_days if self._is_new_day(day))
        self.cost_days.update(((day.source, day.day), day) for day in cost_days)
        deals, all_of_them = self._take_in_deals(batch, origin=origin)
        self._news_count += len(fills) + len(settlements) + len(cost_days) + len(deals) + all_of_them
        return Batch(fills, settlements, marks, cost_days, deals, holds_all_deals=all_of_them)

    def _is_new_day(self, day: CostDay) -> bool:
        known = self.cost_days.get((day.source, day.day))
        return known is None or (known != day and not day.is_cut)

    def _take_in_marks(self, marks: Iterable[Mark]) -> tuple[Mark, ...]:
        """An empty book keeps the last good price; where there was none yet, the last trade stands in."""
        news = []
        for mark in marks:
            (self._quoteless.discard if mark.is_real else self._quoteless.add)(mark.ticker)
            price = mark if mark.is_real or mark.ticker in self.marks else _at_last_trade(mark)
            if price.is_real and self._is_new_price(price):
                self.marks[mark.ticker] = price
                news.append(price)
        return tuple(news)

    def _is_new_price(self, mark: Mark) -> bool:
        known = self.marks.get(mark.ticker)
        return known is None or _quote(known) != _quote(mark)

    def _take_in_deals(self, batch: Batch, *, origin: str) -> tuple[tuple[Deal, ...], bool]:
        latest: dict[tuple[str, str], Deal] = {}
        for deal in sorted(batch.deals, key=lambda deal: deal.updated_at):  # stable: of equals, the later row
            latest[deal.origin, deal.deal_id] = deal
        gone = []
        if batch.holds_all_deals:
            gone = [key for key in self.deals if key[0] == origin and key not in latest]
        for key in gone:
            del self.deals[key]
        news = tuple(deal for key, deal in latest.items() if self._is_newer(deal, self.deals.get(key)))
        self.deals.update(((deal.origin, deal.deal_id), deal) for deal in news)
        return (tuple(latest.values()), True) if gone else (news, False)

    @staticmethod
    def _is_newer(deal: Deal, known: Deal | None) -> bool:
        return known is None or (deal != known and deal.updated_at >= known.updated_at)

    def show(self, snapshot: Snapshot) -> None:
        """Make a snapshot the current one; an older one than is shown already changes nothing."""
        if self.snapshot is None or snapshot.sequence > self.snapshot.sequence:
            shown = replace(snapshot, notes=(*snapshot.notes, *self._remarks)) if self._remarks else snapshot
            self.param.update(snapshot=shown, net_pnl=shown.net_pnl)

    def remark(self, *remarks: str) -> None:
        """Say something of this process with what is shown, from now on until it says something else; not recorded."""
        before, self._remarks = self._remarks, remarks
        if self.snapshot is not None and remarks != before:
            notes = self.snapshot.notes[: len(self.snapshot.notes) - len(before)]
            self.param.update(snapshot=replace(self.snapshot, notes=(*notes, *remarks)))

    def was_recorded(self, sequence: int) -> None:
        """Say of the snapshot that is shown, if it still is this one, that it is on disk by now."""
        if self.snapshot is not None and self.snapshot.sequence == sequence:
            self.param.update(snapshot=replace(self.snapshot, is_recorded=True))

    def show_recorded(self, snapshot: Snapshot) -> None:
        """Show a snapshot that another process put together."""
        self._sequence += 1
        self.show(replace(snapshot, sequence=self._sequence))

    def price(self, marks: Iterable[Mark]) -> None:
        """Take in prices that another process recorded; its snapshot has them in it."""
        self._take_in_marks(marks)

    async def poll(self) -> Snapshot:
        """Poll every source once and show the result, without recording it; for notebooks."""
        await self.pull_all()
        snapshot = self.put_together()
        self.show(snapshot)
        return snapshot

    def put_together(self, trace: Trace | None = None) -> Snapshot:
        """The snapshot of what is known now; `trace` tells of what came last."""
        trace = trace or Trace()
        self._sequence += 1
        trading = self.ledger.totals(self.marks, rule=self.mark)
        costs = self.cost_days.values()
        fees_usd = sum((deal.fee_usd for deal in self.deals.values()), ZERO)
        snapshot = Snapshot(
            taken_at=self._next_instant(),
            kalshi_realized=_to_micros(trading.realized_usd),
            kalshi_unrealized=_to_micros(trading.unrealized_usd),
            kalshi_fees=_to_micros(trading.fees_usd),
            billed_costs=_to_micros(sum((d.total_usd for d in costs if not d.is_estimate), fees_usd)),
            estimated_costs=_to_micros(sum((d.total_usd for d in costs if d.is_estimate), ZERO)),
            total_revenue=_to_micros(sum((deal.revenue_usd for deal in self.deals.values()), ZERO)),
            trade_count=trading.fill_count,
            open_trade_count=trading.open_fill_count,
            settled_market_count=trading.settled_market_count,
            sources=tuple(reading.without_value() for reading in self.readings.values()),
            missing=self._missing(trading.unpriced),
            notes=(*self.damage, *self._odd(trading.oddities)),
            sequence=self._sequence,
            agreement=self.drift.state,
            drift_usd=None if self.drift.drift_usd is None else _to_micros(self.drift.drift_usd),
            news_count=self._news_count,
            trace=trace,
        )
        trace.computed = perf_counter()
        return snapshot

    def _missing(self, unpriced: Sequence[str]) -> tuple[str, ...]:
        """What the totals lack, in words: rows that were set aside, open markets that nothing prices."""
        refused = [str(row) for reading in self.readings.values() for row in reading.refused]
        without_price = [f"{ticker} has no price yet, its open P&L is left out" for ticker in unpriced]
        return _some(refused, "more rows set aside") + _some(without_price, "more without a price")

    @property
    def unquoted(self) -> frozenset[str]:
        """Open markets without quotes now, which are valued at their last good price."""
        return frozenset(self._quoteless & self.ledger.open_tickers & self.marks.keys())

    def _odd(self, oddities: Sequence[str]) -> tuple[str, ...]:
        """What is counted all the same, and a person should know."""
        valued = [f"{ticker} has no quotes now and is valued at its last price" for ticker in sorted(self.unquoted)]
        drifting = in_words(self.drift) if self.drift.state in SAID else []
        return (
            *_some(drifting, "more differences from Kalshi's own figures"),
            *_some(oddities, "more odd settlements"),
            *_some(valued, "more without quotes"),
        )

    def _next_instant(self) -> datetime:
        """Now, to the millisecond, and never the same twice; a clock that was set back by more is followed."""
        now = self._now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        is_too_soon = now <= self._taken_at < now + JITTER
        self._taken_at = self._taken_at + MILLISECOND if is_too_soon else now
        return self._taken_at

    def day_totals(self, zone: tzinfo) -> Mapping[date, Mapping[str, Decimal]]:
        """What each day made by component, oldest first, without open P&L; fees and costs are above zero.

        Trading stands on its day of `zone`, costs on their UTC day, deals on the day that they closed.
        """
        days: defaultdict[date, dict[str, Decimal]] = defaultdict(lambda: dict.fromkeys(COMPONENTS, ZERO))
        for book in self.ledger.books.values():
            for entry in book.entries:
                day = days[entry.at.astimezone(zone).date()]
                day["kalshi_realized"] += entry.realized_usd
                day["kalshi_fees"] += entry.fee_usd
        for cost in self.cost_days.values():
            days[cost.day]["estimated_costs" if cost.is_estimate else "billed_costs"] += cost.total_usd
        for deal in self.deals.values():
            days[deal.closed_on]["total_revenue"] += deal.revenue_usd
            days[deal.closed_on]["billed_costs"] += deal.fee_usd
        return {day: days[day] for day in sorted(days)}


def _to_micros(usd: Decimal) -> Decimal:
    return usd.quantize(MICRO)


def _at_last_trade(mark: Mark) -> Mark:
    price = ZERO if mark.last_trade_usd is None else mark.last_trade_usd
    return replace(mark, yes_bid_usd=price, yes_ask_usd=price)


def _quote(mark: Mark) -> tuple[Decimal, Decimal, str, datetime | None]:
    return mark.yes_bid_usd, mark.yes_ask_usd, mark.title, mark.closes_at


def _some(lines: Sequence[str], what: str) -> tuple[str, ...]:
    """The first few of many lines, and how many are left."""
    rest = len(lines) - MOST_NAMED
    return (*lines[:MOST_NAMED], *([f"and {rest} {what}"] if rest > 0 else []))


def _text(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"


def as_json(snapshot: Snapshot, now: datetime) -> dict[str, object]:
    """The snapshot as `pnl snapshot --json` prints it: money as decimal strings in US dollars, ages in seconds."""
    money = {name: f"{getattr(snapshot, name):f}" for name in MONEY_FIELDS}
    counts = {name: getattr(snapshot, name) for name in ("trade_count", "open_trade_count", "settled_market_count")}
    sources = {
        reading.source: {"state": reading.state.value, "age_s": reading.age_s(now), "error": reading.error}
        for reading in snapshot.sources
    }
    return {
        "as_of": snapshot.as_of.isoformat(timespec="milliseconds"),
        **money,
        **counts,
        "complete": snapshot.complete,
        "recorded": snapshot.is_recorded,
        "sources": sources,
        "drift": {"state": snapshot.agreement.value, "usd": _text(snapshot.drift_usd)},
        "missing": list(snapshot.missing),
        "notes": list(snapshot.notes),
    }
