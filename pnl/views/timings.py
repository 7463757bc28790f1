"""The texts of the performance panel: the latency checklist, and what the history was asked."""

from collections.abc import Hashable, Mapping
from datetime import tzinfo

from pnl.history.monitor import QueryMonitor
from pnl.metrics import Checklist, Row
from pnl.views.lines import as_lines
from pnl.views.panel import Look
from pnl.views.wish import Wish

KEPT_SLOW = 10
LONGEST_STATEMENT = 200


class TimingsPanel:
    """The performance panel, while somebody looks at it."""

    def __init__(self, queries: QueryMonitor, checklist: Checklist) -> None:
        self._queries = queries
        self._checklist = checklist

    def first(self) -> Mapping[str, str]:
        """All empty."""
        return dict.fromkeys(("past.checklist", "past.timings", "past.slow"), "")

    def depends(self, wish: Wish) -> Hashable:
        """Whether somebody looks, and each time that it is said anew."""
        return wish.timings, wish.turn if wish.timings else 0

    async def texts(self, look: Look) -> Mapping[str, str]:
        """See `Panel`."""
        if not look.wish.timings:
            return {}
        return timing_fields(self._queries, look.zone) | checklist_fields(self._checklist)


def checklist_fields(checklist: Checklist) -> dict[str, str]:
    """The checklist, a line for each row, cells separated by tabs."""
    return {"past.checklist": as_lines(_cells(row) for row in checklist.rows())}


def _cells(row: Row) -> tuple[str, ...]:
    target, spread = row.target, row.spread
    actual = ("—",) * 3 if spread is None else tuple(_ms(s) for s in (spread.p50_s, spread.p95_s, spread.p99_s))
    own = ("", "") if target.own_s is None else (f"< {_ms(target.own_s)}", row.own_verdict or "")
    return (target.title, *actual, f"< {_ms(target.target_s)}", row.verdict, *own)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:,.0f}" if ms >= 100 or ms == round(ms) else f"{ms:.1f}"  # noqa: PLR2004 - three digits


def timing_fields(queries: QueryMonitor, zone: tzinfo) -> dict[str, str]:
    """What the history was asked and what took long, likewise."""
    timings = queries.timings().items()
    cells = [
        (kind, f"{took.count:,}", *(f"{ms:,.1f}" for ms in (took.p50_ms, took.p95_ms, took.p99_ms, took.max_ms)))
        for kind, took in timings
    ]
    slow = [
        (f"{said.at.astimezone(zone):%H:%M:%S}", said.kind, f"{said.took_ms:,.0f}", _short(said.statement))
        for said in reversed(list(queries.slow)[-KEPT_SLOW:])
    ]
    return {"past.timings": as_lines(cells), "past.slow": as_lines(slow)}


def _short(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= LONGEST_STATEMENT else f"{text[:LONGEST_STATEMENT]}…"
