"""All that is known of one source, in plain words: how well it answers, when it is asked next, what there is of it."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any

import panel as pn
import param
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.ledger import Ledger
from pnl.model import VENUE, PnLModel
from pnl.reconcile import in_words
from pnl.records import Agreement, Fill, Reading, Snapshot, State, money
from pnl.sources import TITLES
from pnl.sources.turn import Pace
from pnl.views.lines import as_cells, as_lines
from pnl.views.panel import Look
from pnl.views.verdict import asset, rendered
from pnl.views.wish import Wish

UNKNOWN = "—"
MOST_REFUSED = 20
STATES = {
    "waiting": "Not heard of yet: its first answer is on its way.",
    State.FRESH: "It answers, and everything of it is up to date.",
    State.STALE: "Out of date: what it said last is still shown and counted.",
    State.DOWN: "Down: it has not answered for a while, or never did.",
    State.NOT_CONFIGURED: "Not set up: nothing of it is in the numbers.",
}
BREAKERS = {
    None: UNKNOWN,
    "closed": "closed: it is asked at every turn",
    "open": "open: left alone for a while after failures",
    "half_open": "half-open: one request tries whether it answers again",
}
AGREEMENTS = {
    Agreement.UNKNOWN: "not compared at the moment",
    Agreement.AGREES: "agrees with its own figures",
    Agreement.SETTLING: "differs just now; a fill on its way may explain it",
    Agreement.DRIFTS: "differs from its own figures, and goes on to",
    Agreement.UNEXPLAINED: "only the balance moved: a transfer, or an order that rests",
}


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many records of a kind there are, and when the first and the last of them happened."""

    kind: str
    count: int
    first: datetime | date
    last: datetime | date


def coverage(model: PnLModel, name: str) -> list[Coverage]:
    """What there is of a source, by kind of record; kinds without a record are left out."""
    origin = model.sources[name].origin if name in model.sources else ""
    costs = [day for day in model.cost_days.values() if day.source == name]
    by_day = (
        ("days billed", [cost.day for cost in costs if not cost.is_estimate]),
        ("days estimated", [cost.day for cost in costs if cost.is_estimate]),
        ("deals", [deal.closed_on for deal in model.deals.values() if deal.origin == origin]),
    )
    found = [Coverage(kind, len(days), min(days), max(days)) for kind, days in by_day if days]
    return (_trading(model.ledger) if name == VENUE else []) + found


def _trading(ledger: Ledger) -> list[Coverage]:
    """Fills and settlements: the entries of a book are in the order of time, so its ends are enough."""
    settled = [book.entries[-1].at for book in ledger.books.values() if book.is_settled]
    traded = [book.entries for book in ledger.books.values() if book.fill_count]
    last = [entries[-1] if isinstance(entries[-1].record, Fill) else entries[-2] for entries in traded]
    found = []
    if traded:
        first_at, last_at = min(entries[0].at for entries in traded), max(entry.at for entry in last)
        found.append(Coverage("fills", ledger.fill_count, first_at, last_at))
    return found + ([Coverage("settlements", len(settled), min(settled), max(settled))] if settled else [])


class Health:
    """The texts about every source, made anew only for a new snapshot.

    Args:
        model: Whose sources.
        zone: The reporting time zone.
        sources: The names of all sources that there may be, configured or not.
        paces: By name, how a source is asked at the moment; see `Engine.paces`.
    """

    def __init__(
        self,
        model: PnLModel,
        zone: tzinfo,
        sources: Sequence[str],
        *,
        paces: Callable[[], Mapping[str, Pace]] = dict,
    ) -> None:
        self._model = model
        self._zone = zone
        self._sources = tuple(sources)
        self._paces = paces
        self._made_for: Snapshot | None = None
        self._texts: dict[str, str] = {}
        self._records: tuple[object, ...] | None = None
        self._coverage: dict[str, list[Coverage]] = {}

    def texts(self) -> dict[str, str]:
        """Every text by name, always the same names."""
        snapshot = self._model.snapshot
        if not self._texts or snapshot is not self._made_for:
            self._texts, self._made_for = self._make(snapshot), snapshot
        return self._texts

    def _make(self, snapshot: Snapshot | None) -> dict[str, str]:
        readings = {} if snapshot is None else {reading.source: reading for reading in snapshot.sources}
        paces = self._paces()
        self._cover(snapshot)
        texts: dict[str, str] = {}
        for name in self._sources:
            reading = readings.get(name, Reading(name, State.DOWN))
            texts |= self._of(reading, paces.get(name)) | self._drift(name, snapshot)
        return texts

    def _cover(self, snapshot: Snapshot | None) -> None:
        """Count the records anew when there are other ones, and not for a new price."""
        records = None if snapshot is None else (self._model.ledger, *snapshot.records)
        if records is None or records != self._records:
            self._coverage = {name: coverage(self._model, name) for name in self._sources}
            self._records = records

    def _of(self, reading: Reading[Any], pace: Pace | None) -> dict[str, str]:
        name = reading.source
        source = self._model.sources.get(name)
        kinds = self._coverage[name]
        texts = {
            "state": STATES["waiting" if reading.is_waiting else reading.state],
            "good": UNKNOWN if reading.as_of is None else self._when(reading.as_of, seconds=True),
            "error": self._error(reading),
            "next": UNKNOWN if pace is None else f"{pace.next_at.astimezone(self._zone):%H:%M:%S}",
            "next_at": "" if pace is None else f"{pace.next_at.isoformat(timespec='seconds')}",
            "breaker": BREAKERS[None if pace is None else pace.breaker],
            "polls": UNKNOWN if source is None else f"every {source.poll_s:g} s",
            "coverage": self._span(kinds),
            "rows": as_lines((k.kind, f"{k.count:,}", self._when(k.first), self._when(k.last)) for k in kinds),
            "billed": _billed(kinds),
            "refused": f"{len(reading.refused):,}",
            "refused.rows": as_lines((row.what, row.key, row.reason) for row in reading.refused[:MOST_REFUSED]),
        }
        return {f"health.{name}.{part}": text for part, text in texts.items()}

    def _error(self, reading: Reading[Any]) -> str:
        if reading.error is not None:
            return reading.error
        if reading.source not in self._model.failures:
            return "none since the start"
        at, error = self._model.failures[reading.source]
        return f"none now; the last, {self._when(at, seconds=True)}: {error}"

    def _span(self, kinds: Sequence[Coverage]) -> str:
        if not kinds:
            return UNKNOWN
        days = [(self._day(kind.first), self._day(kind.last)) for kind in kinds]
        return f"{min(first for first, _ in days)} – {max(last for _, last in days)}"

    def _day(self, at: datetime | date) -> date:
        return at.astimezone(self._zone).date() if isinstance(at, datetime) else at

    def _when(self, at: datetime | date, *, seconds: bool = False) -> str:
        if isinstance(at, datetime):
            return f"{at.astimezone(self._zone):%Y-%m-%d %H:%M{':%S' if seconds else ''}}"
        return f"{at}"

    def _drift(self, name: str, snapshot: Snapshot | None) -> dict[str, str]:
        """How far the venue's own figures are from the ledger; of other sources there is nothing to compare."""
        usd, words, lines = "", "", []
        if name == VENUE:
            agreement = Agreement.UNKNOWN if snapshot is None else snapshot.agreement
            usd, words = money(_drift_usd(snapshot)), AGREEMENTS[agreement]
            is_known = agreement is not Agreement.UNKNOWN and agreement is self._model.drift.state
            lines = in_words(self._model.drift)[:MOST_REFUSED] if is_known else []
        texts = {"drift": usd, "drift.state": words, "drift.lines": "\n".join(lines)}
        return {f"health.{name}.{part}": text for part, text in texts.items()}


def _drift_usd(snapshot: Snapshot | None) -> Decimal | None:
    return None if snapshot is None else snapshot.drift_usd


def _billed(kinds: Sequence[Coverage]) -> str:
    billed = [kind.last for kind in kinds if kind.kind == "days billed"]
    return f"{billed[0]} (UTC)" if billed else ""


class HealthPanel:
    """The sources, while somebody looks at one of them: their next tries alone would be a message for each answer."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def first(self) -> Mapping[str, str]:
        """As they are when the page is made."""
        return self._health.texts()

    def depends(self, wish: Wish) -> Hashable:
        """Whether somebody looks, and each time that it is said anew."""
        return wish.health, wish.turn if wish.health else 0

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        return self._health.texts() if look.wish.health else {}


def health_html(fields: Mapping[str, str], sources: Sequence[str], *, is_open: bool = False) -> Markup:
    """A drawer for each source with these texts, all of them escaped.

    Args:
        fields: The texts by name: those of `Health` and, for ages and states, those of `fields_of`.
        sources: The names to make a drawer for.
        is_open: Show all of them where they stand, instead of one when its chip is chosen.
    """
    return rendered("health.html", f=fields, sources=sources, titles=TITLES, is_open=is_open, cells=as_cells)


class HealthView(Viewer):
    """The health of every source in a notebook cell or an app of one's own; follows the model by itself."""

    model = param.ClassSelector(class_=PnLModel, doc="Whose sources are shown.")

    def __init__(self, model: PnLModel, *, zone: tzinfo = UTC, **params: Any) -> None:
        super().__init__(model=model, **params)
        self._sources = list(model.readings)
        self._health = Health(model, zone, self._sources)
        self._pane = pn.pane.HTML(pn.bind(self._html, model.param.snapshot), sizing_mode="stretch_width")

    def _html(self, _snapshot: Snapshot | None) -> str:
        styles = f"<style>{asset('page.css')}{asset('health.css')}</style>"
        drawers = health_html(self._health.texts(), self._sources, is_open=True)
        return f"{styles}<div class='pnl'>{drawers}</div>"

    def __panel__(self) -> Viewable:
        return self._pane
