"""What changed since the last patch, to every session: texts that changed are patched, points are streamed.

A session's page holds three column sources: `fields` (every text of the page that lives, by name), `line` (net P&L
over the last snapshots) and `days` (net P&L by day). Nothing is drawn anew, and what is equal is not sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from itertools import accumulate
from typing import Any

from bokeh.document import Document
from bokeh.models import ColumnDataSource
from panel.io.document import unlocked
from panel.io.state import set_curdoc
from param.parameterized import Event

from pnl.model import PnLModel
from pnl.records import CENT, ZERO, Reading, Snapshot, State, money

log = logging.getLogger(__name__)

LINE_POINTS = 2000
UNKNOWN_AT_FIRST = (
    *("net", "trading", "realized", "unrealized", "fees", "costs", "billed", "estimated", "revenue"),
    *("trades", "open_trades", "settled"),
)
GAP_MS = 90_000
AGAIN_S = 0.005

GAP = float("nan")

type Point = tuple[float, float, float]
"""Local ms since the epoch, US dollars or `GAP`, and when the server published it in ms since the epoch."""


def fields_of(snapshot: Snapshot | None, sources: Iterable[str] = ()) -> dict[str, str]:
    """Every text of the page that follows the numbers, by name; what is unknown is a dash."""
    if snapshot is None:
        return _nothing_yet(sources)
    trading = snapshot.kalshi_realized + snapshot.kalshi_unrealized
    trades, costs, deals = (snapshot.knows(source) for source in ("kalshi", "anthropic", "john"))
    terms = (trading, -snapshot.kalshi_fees, -snapshot.total_costs, snapshot.total_revenue)
    fields = {
        "net": "—" if snapshot.is_empty else money(snapshot.net_pnl),
        "tone": "flat" if snapshot.is_empty else _tone(snapshot.net_pnl),
        "trading": _known(trading, trades, signed=True),
        "realized": _known(snapshot.kalshi_realized, trades, signed=True),
        "unrealized": _known(snapshot.kalshi_unrealized, trades, signed=True),
        "fees": _known(snapshot.kalshi_fees, trades),
        "costs": _known(snapshot.total_costs, costs),
        "billed": _known(snapshot.billed_costs, costs),
        "estimated": _known(snapshot.estimated_costs, costs),
        "revenue": _known(snapshot.total_revenue, deals),
        "equals": "=" if _adds_up(terms, snapshot.net_pnl) else "≈",
        "exact": f"{snapshot.net_pnl:f} US dollars",
        "trades": _counted(snapshot.trade_count, trades),
        "open_trades": _counted(snapshot.open_trade_count, trades),
        "settled": _counted(snapshot.settled_market_count, trades),
        "as_of": _iso(snapshot.as_of),
        "state": "complete" if snapshot.complete else "partial",
        "warning": "\n".join((*_warnings(snapshot), *snapshot.missing)),
        "notes": "\n".join(snapshot.notes),
        "drift": money(snapshot.drift_usd),
        "drift.state": snapshot.agreement.value,
    }
    for reading in snapshot.sources:
        fields |= _chip(reading)
    return fields


def _known(usd: Decimal, is_known: bool, *, signed: bool = False) -> str:  # noqa: FBT001 - reads as "known or not"
    """Unknown is not zero: a part whose source never answered is a dash, unless another source brought some of it."""
    return money(usd, signed=signed) if is_known or usd else money(None)


def _counted(count: int, is_known: bool) -> str:  # noqa: FBT001 - as above
    return f"{count:,}" if is_known or count else "—"


def _nothing_yet(sources: Iterable[str]) -> dict[str, str]:
    texts = dict.fromkeys(UNKNOWN_AT_FIRST, "—") | {
        "tone": "flat",
        "equals": "=",
        "exact": "",
        "as_of": "",
        "state": "partial",
    }
    texts |= {"warning": "Waiting for the first answers.", "notes": "", "drift": "—", "drift.state": "unknown"}
    for name in sources:
        texts |= _chip(Reading(name, State.DOWN))
    return texts


def _chip(reading: Reading[Any]) -> dict[str, str]:
    name = reading.source
    return {
        f"{name}.state": "waiting" if reading.is_waiting else reading.state.value,
        f"{name}.as_of": "" if reading.as_of is None else _iso(reading.as_of),
        f"{name}.error": reading.error or "",
    }


def _warnings(snapshot: Snapshot) -> list[str]:
    unrecorded = [] if snapshot.is_recorded else ["Not recorded: the numbers are live, but not on disk yet."]
    return unrecorded + snapshot.errors


def _tone(usd: Decimal) -> str:
    cents = usd.quantize(CENT)
    return "gain" if cents > 0 else "loss" if cents < 0 else "flat"


def _adds_up(terms: Iterable[Decimal], total: Decimal) -> bool:
    """Whether the terms still add up once each is rounded to the cent, as a reader would check."""
    return sum((term.quantize(CENT) for term in terms), ZERO) == total.quantize(CENT)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The texts that are not what they were."""
    return {name: text for name, text in after.items() if before.get(name) != text}


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """One session's column sources, filled with the present when made, then patched.

    `on_records` is called when a record came that is more than a new price: what is not streamed is read anew.
    """

    fields: ColumnDataSource
    line: ColumnDataSource
    days: ColumnDataSource
    on_records: Callable[[], None]


class Hub:
    """The present of one model, and every session that follows it."""

    def __init__(self, model: PnLModel, zone: tzinfo, sources: Iterable[str]) -> None:
        self.sources = tuple(sources)
        self.fields = fields_of(None, self.sources)
        self._model = model
        self._zone = zone
        self._points: deque[Point] = deque(maxlen=LINE_POINTS)
        self._days: dict[str, list[Any]] = {"day": [], "net": [], "total": []}
        self._sessions: dict[Document, Live] = {}
        self._behind: set[Document] = set()
        model.param.watch(self._on_snapshot, "snapshot")

    @property
    def session_count(self) -> int:
        """How many pages follow."""
        return len(self._sessions)

    def recall(self, snapshots: Iterable[tuple[int, int]]) -> None:
        """Begin the line with what was recorded: (ms since the epoch, micro-dollars), oldest first."""
        live = list(self._points)
        self._points.clear()
        for at_ms, net_micros in snapshots:
            self._add_point(at_ms, net_micros / 1e6, float(at_ms))
        self._points.extend(live)
        self._each(lambda live: _replace(live.line, _columns(self._points)))

    def live(self, on_records: Callable[[], None]) -> Live:
        """Column sources for a new session, holding the present."""
        return Live(
            fields=ColumnDataSource({"name": list(self.fields), "text": list(self.fields.values())}, name="fields"),
            line=ColumnDataSource(_columns(self._points), name="line"),
            days=ColumnDataSource(self._days, name="days"),
            on_records=on_records,
        )

    def join(self, document: Document, live: Live) -> None:
        """Let a session follow; what changed while its page was loading is sent at once."""
        self._sessions[document] = live
        self._send(document, live, self._bring_up)

    def leave(self, document: Document) -> None:
        """Forget a session."""
        self._sessions.pop(document, None)
        self._behind.discard(document)

    def _on_snapshot(self, event: Event) -> None:
        self.publish(event.new)
        if event.old is None or event.old.records != event.new.records:
            self.publish_records()

    def publish(self, snapshot: Snapshot) -> None:
        """Bring every session to a new snapshot: the texts that changed, and one point."""
        after = fields_of(snapshot)
        texts = changed(self.fields, after)
        self.fields = self.fields | after
        patches = {"text": self._patches(texts)}  # made once, for every session's texts stand in the same order
        points = _columns(self._add_snapshot(snapshot) if snapshot.is_worth_recording else [])

        def send(live: Live) -> None:
            live.fields.patch(patches)
            live.line.stream(points, rollover=LINE_POINTS)

        self._each(send)

    def publish_records(self) -> None:
        """Bring every session to the days' new totals, and let it read anew what it shows of the records."""
        self._days = day_columns(self._model.day_totals(self._zone))

        def send(live: Live) -> None:
            _replace(live.days, self._days)
            live.on_records()

        self._each(send)

    def _each(self, send: Callable[[Live], None]) -> None:
        for document, live in list(self._sessions.items()):
            if is_connected(document):
                self._send(document, live, send)
            else:  # writing to it would keep Bokeh from ever clearing it away
                self.leave(document)

    def _send(self, document: Document, live: Live, send: Callable[[Live], None]) -> None:
        """Write to a session, unless another thread is at its document: then it is brought to the present later."""
        if document in self._behind:
            return
        if is_in_use(document):
            self._behind.add(document)
            asyncio.get_running_loop().call_later(AGAIN_S, self._try_again, document)
            return
        try:
            with set_curdoc(document), unlocked():
                send(live)
        except Exception:
            log.exception("a session could not be written to and is let go; its page loads itself anew")
            self.leave(document)

    def _try_again(self, document: Document) -> None:
        self._behind.discard(document)
        if document in self._sessions:
            self._send(document, self._sessions[document], self._bring_up)

    def _patches(self, texts: Mapping[str, str]) -> list[tuple[int, str]]:
        index = {name: number for number, name in enumerate(self.fields)}
        return [(index[name], text) for name, text in texts.items()]

    def _bring_up(self, live: Live) -> None:
        """Bring a session to the present, whatever it has missed."""
        self._catch_up(live)
        live.on_records()

    def _catch_up(self, live: Live) -> None:
        shown = dict(zip(live.fields.data["name"], live.fields.data["text"], strict=True))
        live.fields.patch({"text": self._patches(changed(shown, self.fields))})
        newest = max(live.line.data["t0"], default=0.0)
        missed = [point for point in self._points if point[2] > newest]
        live.line.stream(_columns(missed), rollover=LINE_POINTS)
        if live.days.data != self._days:
            _replace(live.days, self._days)

    def _add_snapshot(self, snapshot: Snapshot) -> list[Point]:
        published_ms = datetime.now(UTC).timestamp() * 1000
        return self._add_point(snapshot.taken_at.timestamp() * 1000, float(snapshot.net_pnl), published_ms)

    def _add_point(self, at_ms: float, net: float, t0: float) -> list[Point]:
        local = at_ms + _offset_ms(at_ms, self._zone)
        last = self._points[-1] if self._points else None
        gap: list[Point] = [(local - 1, GAP, t0)] if last is not None and local - last[0] > GAP_MS else []
        points: list[Point] = [*gap, (local, net, t0)]
        self._points.extend(points)
        return points


def is_connected(document: Document) -> bool:
    """Whether a page still listens; a document without a session is somebody's own."""
    session = getattr(document.session_context, "session", None)
    return session is None or session.connection_count > 0


def is_in_use(document: Document) -> bool:
    """Whether a callback runs on a document: Bokeh runs it in another thread, and holds the session's lock for it."""
    session = getattr(document.session_context, "session", None)
    lock = getattr(session, "_lock", None)
    return lock is not None and lock.locked()


def day_columns(totals: Mapping[date, Decimal]) -> dict[str, list[float]]:
    """Totals by day as columns of a plot: the day's start in ms, its net and the running total in US dollars."""
    return {
        "day": [datetime.combine(day, time(), UTC).timestamp() * 1000 for day in totals],
        "net": [float(usd) for usd in totals.values()],
        "total": [float(usd) for usd in accumulate(totals.values())],
    }


def _replace(source: ColumnDataSource, columns: dict[str, list[Any]]) -> None:
    source.data = columns


def _columns(points: Iterable[Point]) -> dict[str, Any]:
    t, net, t0 = zip(*points, strict=True) if (points := list(points)) else ((), (), ())
    return {"t": list(t), "net": list(net), "t0": list(t0)}


def _offset_ms(at_ms: float, zone: tzinfo) -> float:
    """Plots have no time zones: a point stands at the wall clock's time of the reporting zone."""
    offset = datetime.fromtimestamp(at_ms / 1000, zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds() * 1000
