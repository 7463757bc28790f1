"""What changed since the last patch, to every session: texts that changed are patched, points are streamed.

A session's page holds three column sources: `fields` (every text of the page that lives, by name), `line` (net P&L
over the last snapshots) and `days` (net P&L by day). Nothing is drawn anew, and what is equal is not sent.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal
from typing import Any

from bokeh.document import Document
from bokeh.models import ColumnDataSource
from panel.io.document import unlocked
from panel.io.state import set_curdoc

from pnl.records import ZERO, Reading, Snapshot, money

LINE_POINTS = 2000
GAP_MS = 90_000

GAP = float("nan")

type Point = tuple[float, float, float]
"""Local ms since the epoch, US dollars or `GAP`, and when the server published it in ms since the epoch."""


def fields_of(snapshot: Snapshot | None, sources: Iterable[str] = ()) -> dict[str, str]:
    """Every text of the page that follows the numbers, by name; what is unknown is a dash."""
    if snapshot is None:
        return _nothing_yet(sources)
    trading = snapshot.kalshi_realized + snapshot.kalshi_unrealized
    terms = (trading, -snapshot.kalshi_fees, -snapshot.total_costs, snapshot.total_revenue)
    fields = {
        "net": money(snapshot.net_pnl),
        "tone": _tone(snapshot.net_pnl),
        "trading": money(trading, signed=True),
        "realized": money(snapshot.kalshi_realized, signed=True),
        "unrealized": money(snapshot.kalshi_unrealized, signed=True),
        "fees": money(snapshot.kalshi_fees),
        "costs": money(snapshot.total_costs),
        "billed": money(snapshot.billed_costs),
        "estimated": money(snapshot.estimated_costs),
        "revenue": money(snapshot.total_revenue),
        "equals": "=" if _adds_up(terms, snapshot.net_pnl) else "≈",
        "exact": f"{snapshot.net_pnl:f} US dollars",
        "trades": f"{snapshot.trade_count:,}",
        "open_trades": f"{snapshot.open_trade_count:,}",
        "settled": f"{snapshot.settled_market_count:,}",
        "as_of": _iso(snapshot.as_of),
        "state": "complete" if snapshot.complete else "partial",
        "warning": "\n".join((*_warnings(snapshot), *snapshot.missing, *snapshot.notes)),
    }
    for reading in snapshot.sources:
        fields |= _chip(reading)
    return fields


def _nothing_yet(sources: Iterable[str]) -> dict[str, str]:
    names = "net trading realized unrealized fees costs billed estimated revenue trades open_trades settled".split()
    texts = dict.fromkeys(names, "—") | {"tone": "flat", "equals": "=", "exact": "", "as_of": "", "state": "partial"}
    texts["warning"] = "Waiting for the first answers."
    for name in sources:
        texts |= {f"{name}.state": "down", f"{name}.as_of": "", f"{name}.error": "not asked yet"}
    return texts


def _chip(reading: Reading[Any]) -> dict[str, str]:
    name = reading.source
    return {
        f"{name}.state": reading.state.value,
        f"{name}.as_of": "" if reading.as_of is None else _iso(reading.as_of),
        f"{name}.error": reading.error or "",
    }


def _warnings(snapshot: Snapshot) -> list[str]:
    late = [f"{r.source}: {r.error}" if not (r.error or "").startswith(r.source) else str(r.error)
            for r in snapshot.sources if r.error]
    return late if snapshot.is_recorded else ["Not recorded: the numbers are live, but not on disk yet.", *late]


def _tone(usd: Decimal) -> str:
    cents = usd.quantize(Decimal("0.01"))
    return "gain" if cents > 0 else "loss" if cents < 0 else "flat"


def _adds_up(terms: Iterable[Decimal], total: Decimal) -> bool:
    """Whether the terms still add up once each is rounded to the cent, as a reader would check."""
    cent = Decimal("0.01")
    return sum((term.quantize(cent) for term in terms), ZERO) == total.quantize(cent)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The texts that are not what they were."""
    return {name: text for name, text in after.items() if before.get(name) != text}


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """One session's column sources; filled with the present when made, then patched."""

    fields: ColumnDataSource
    line: ColumnDataSource
    days: ColumnDataSource


class Hub:
    """The present, and every session that follows it."""

    def __init__(self, zone: tzinfo = UTC, sources: Iterable[str] = ()) -> None:
        self._zone = zone
        self._fields = fields_of(None, sources)
        self._points: deque[Point] = deque(maxlen=LINE_POINTS)
        self._days: dict[str, list[Any]] = {"day": [], "net": [], "total": []}
        self._sessions: dict[Document, Live] = {}

    @property
    def session_count(self) -> int:
        """How many pages follow."""
        return len(self._sessions)

    def recall(self, snapshots: Iterable[tuple[int, int]]) -> None:
        """Begin the line with what was recorded: (ms since the epoch, micro-dollars), oldest first."""
        for at_ms, net_micros in snapshots:
            self._add_point(at_ms, net_micros / 1e6, float(at_ms))

    def live(self) -> Live:
        """Column sources for a new session, holding the present."""
        names, texts = list(self._fields), list(self._fields.values())
        return Live(
            fields=ColumnDataSource({"name": names, "text": texts}, name="fields"),
            line=ColumnDataSource(_columns(self._points), name="line"),
            days=ColumnDataSource(self._days, name="days"),
        )

    def join(self, document: Document, live: Live) -> None:
        """Let a session follow; what changed while its page was loading is sent at once."""
        self._sessions[document] = live
        with set_curdoc(document), unlocked():
            self._catch_up(live)

    def leave(self, document: Document) -> None:
        """Forget a session."""
        self._sessions.pop(document, None)

    def publish(self, snapshot: Snapshot) -> None:
        """Bring every session to a new snapshot."""
        after = fields_of(snapshot)
        texts = changed(self._fields, after)
        self._fields = self._fields | after
        at_ms = snapshot.taken_at.timestamp() * 1000
        points = self._add_point(at_ms, float(snapshot.net_pnl), datetime.now(UTC).timestamp() * 1000)
        for document, live in list(self._sessions.items()):
            with set_curdoc(document), unlocked():
                live.fields.patch({"text": self._patches(texts)})
                live.line.stream(_columns(points), rollover=LINE_POINTS)

    def publish_days(self, totals: Mapping[date, Decimal]) -> None:
        """Bring every session to new totals by day."""
        net = [float(usd) for usd in totals.values()]
        total = [float(usd) for usd in _running(totals.values())]
        start = [datetime.combine(day, time(), UTC).timestamp() * 1000 for day in totals]
        self._days = {"day": start, "net": net, "total": total}
        for document, live in list(self._sessions.items()):
            with set_curdoc(document), unlocked():
                live.days.data = self._days

    def _patches(self, texts: Mapping[str, str]) -> list[tuple[int, str]]:
        index = {name: number for number, name in enumerate(self._fields)}
        return [(index[name], text) for name, text in texts.items()]

    def _catch_up(self, live: Live) -> None:
        names, texts = live.fields.data["name"], live.fields.data["text"]
        shown = dict(zip(names, texts, strict=True))
        live.fields.patch({"text": self._patches(changed(shown, self._fields))})
        newest = max((t0 for t0 in live.line.data["t0"]), default=0.0)
        live.line.stream(_columns([point for point in self._points if point[2] > newest]), rollover=LINE_POINTS)
        live.days.data = self._days

    def _add_point(self, at_ms: float, net: float, t0: float) -> list[Point]:
        local = at_ms + _offset_ms(at_ms, self._zone)
        last = self._points[-1] if self._points else None
        gap: list[Point] = [(local - 1, GAP, t0)] if last is not None and local - last[0] > GAP_MS else []
        points: list[Point] = [*gap, (local, net, t0)]
        self._points.extend(points)
        return points


def _columns(points: Iterable[Point]) -> dict[str, list[Any]]:
    t, net, t0 = zip(*points, strict=True) if (points := list(points)) else ((), (), ())
    return {"t": list(t), "net": list(net), "t0": list(t0)}


def _running(parts: Iterable[Decimal]) -> Iterable[Decimal]:
    total = ZERO
    for part in parts:
        total += part
        yield total


def _offset_ms(at_ms: float, zone: tzinfo) -> float:
    """Plots have no time zones: a point stands at the wall clock's time of the reporting zone."""
    offset = datetime.fromtimestamp(at_ms / 1000, zone).utcoffset()
    return 0.0 if offset is None else offset.total_seconds() * 1000
