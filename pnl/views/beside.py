"""What stands beside the line of the equity plot, as columns: high-water mark, the period before, notes, an instant."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

import numpy as np

from pnl.history.buckets import BUCKETS
from pnl.history.client import Bars, Underwater
from pnl.history.wire import Column
from pnl.rows import to_ms
from pnl.stream.present import GAP_MS
from pnl.stream.present import local_ms as wall_ms
from pnl.views.equity import NAMES, Edges, inserted, local_ms

COLUMNS: Mapping[str, Sequence[str]] = {
    "steps": NAMES,
    "under": ("t", "high", "under"),
    "ghost": ("t", "net"),
    "notes": ("t", "number", "text"),
    "instant": ("t",),
}
"""What the plots of one page's past are drawn from: the columns of each source, by its name."""


def empty(name: str) -> dict[str, Any]:
    """One of `COLUMNS` without a row."""
    return {column: [] for column in COLUMNS[name]}


def under_columns(under: Underwater, bars: Bars, zone: tzinfo, edges: Edges) -> dict[str, Any]:
    """The high-water mark, and how far below it net P&L was.

    Args:
        under: Oldest first.
        bars: The bars of the same time: what is rebuilt holds until the next one, what was recorded as long as it is.
        zone: Its wall clock is the plot's x axis.
        edges: What stands at the plot's ends.

    Returns:
        By name, float64 and of one length: `t`, where a bucket begins, in local ms; `high` and `under`, the mark and
        what is below it (never above zero), in US dollars. A gap has no mark and nothing below it; the last row only
        ends the one before.
    """
    if not len(under):
        return empty("under")
    rows = {"t": local_ms(under.start, zone), "high": under.high / 1e6, "under": under.under / 1e6}
    is_rebuilt = _is_rebuilt(bars, under.start)
    length = BUCKETS[under.bucket].length_ms
    ends = rows["t"] + length
    last = {name: column[-1:] for name, column in rows.items()}
    last["t"] = np.maximum(last["t"], _last_end(ends[-1], is_rebuilt=is_rebuilt[-1], zone=zone, edges=edges))
    silent = np.flatnonzero(~is_rebuilt[:-1] & (rows["t"][1:] - ends[:-1] >= max(length, GAP_MS)))
    rows = inserted(rows, np.array([len(ends)]), last)
    return inserted(rows, silent + 1, {"t": ends[silent], "under": np.zeros(len(silent))})


def _is_rebuilt(bars: Bars, start: Column) -> Column:
    """Whether the bar in which each of these begins is rebuilt from the records."""
    if not len(bars):
        return np.ones(len(start), np.bool_)
    return bars.rebuilt[np.maximum(np.searchsorted(bars.start, start, side="right") - 1, 0)]


def _last_end(end: float, *, is_rebuilt: bool, zone: tzinfo, edges: Edges) -> float:
    if edges.live is not None:
        return edges.live[0]
    return wall_ms(edges.held_until, zone) if is_rebuilt and edges.held_until is not None else end


def ghost_columns(steps: Mapping[str, Any], before: Mapping[str, Any], shift_ms: float, end: float) -> dict[str, Any]:
    """The period before, moved to where this one begins.

    Args:
        steps: This period's steps, see `equity_columns`.
        before: Those of the period before.
        shift_ms: By how much later this one begins, by the wall clock.
        end: When this one ends, in local ms.

    Returns:
        `t` and `net`, float64 and of one length, NaN for a gap; empty where one of the two is not known.
    """
    first, first_before = _first(steps), _first(before)
    if first is None or first_before is None:
        return empty("ghost")
    t = before["t"] + shift_ms
    seen = t <= end
    return {"t": t[seen], "net": (before["close"] - first_before + first)[seen]}


def _first(steps: Mapping[str, Any]) -> float | None:
    return next((float(usd) for usd in steps["close"] if not np.isnan(usd)), None)


def instant_columns(moment: datetime | None, zone: tzinfo) -> dict[str, Any]:
    """An instant that is looked at; no row for none."""
    return {"t": [] if moment is None else [wall_ms(to_ms(moment), zone)]}
