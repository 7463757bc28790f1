"""Bars as the columns of a plot: steps of closes, gaps as gaps, and the seam where the live line begins."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

import numpy as np

from pnl.history.buckets import BUCKETS, MINUTE_MS, offsets
from pnl.history.client import Bars
from pnl.history.wire import Column
from pnl.stream.present import GAP_MS

NAMES = ("t", "right", "close", "net", "rebuilt", "low", "high")
EARLIEST_MS, LATEST_MS = 0.0, 7_258_118_400_000.0  # 1970 to 2200: what a plot can be dragged to


@dataclass(frozen=True, slots=True)
class Edges:
    """What a plot shows at its two ends beside the bars.

    Attributes:
        carried: What net P&L was when the plot begins (ms since the epoch, micro-dollars), if that is known.
        held_until: Until when the last value holds, in ms since the epoch; None: as long as its bar.
        live: The first point of the live line that goes on from here (local ms, US dollars).
    """

    carried: tuple[int, int] | None = None
    held_until: int | None = None
    live: tuple[float, float] | None = None


def equity_columns(bars: Bars, zone: tzinfo, edges: Edges | None = None) -> dict[str, Any]:
    """The steps of net P&L as columns of a plot.

    Args:
        bars: Oldest first.
        zone: Its wall clock is the plot's x axis: plots have no time zones.
        edges: What stands at the two ends.

    Returns:
        By name, all float64 and of one length: `t` and `right`, where a step begins and its bar ends, in local ms;
        `close`, in US dollars; the same as `net` where it was recorded and as `rebuilt` where it was made from the
        records, NaN elsewhere; `low` and `high`. A row that only ends a step is as high as it, and a gap is all NaN.
    """
    edges = edges or Edges()
    rows = _rows(bars, zone)
    if len(bars):
        rows = _with_live(rows, edges.live) if edges.live else _held(rows, _local(edges.held_until, zone))
        rows = _with_gaps(rows, max(BUCKETS[bars.bucket].length_ms, GAP_MS))
    if edges.carried is not None:
        rows = _with_carried(rows, edges, zone)
    return {name: rows[name] for name in NAMES}


def local_ms(ms: Column, zone: tzinfo) -> Column:
    """Instants in ms since the epoch, as the wall clock of a zone shows them."""
    if not len(ms):
        return ms.astype(np.float64)
    steps = offsets(int(ms[0]) // MINUTE_MS, int(ms[-1]) // MINUTE_MS + 1, zone)
    since, offset = (np.array(column, np.int64) for column in zip(*steps, strict=True))
    holding = np.searchsorted(since, ms // MINUTE_MS, side="right") - 1
    local: Column = (ms + offset[holding.clip(0)] * MINUTE_MS).astype(np.float64)
    return local


def moment_of(local: float, zone: tzinfo) -> datetime:
    """The instant at which a zone's wall clock shows so many ms; kept within what a plot can show."""
    kept = min(max(local, EARLIEST_MS), LATEST_MS)
    return datetime.fromtimestamp(kept / 1000, UTC).replace(tzinfo=zone)


def _local(ms: int | None, zone: tzinfo) -> float | None:
    return None if ms is None else float(local_ms(np.array([ms], np.int64), zone)[0])


def _rows(bars: Bars, zone: tzinfo) -> dict[str, Column]:
    t, close = local_ms(bars.start, zone), bars.close / 1e6
    right = t + BUCKETS[bars.bucket].length_ms  # of a month, the longest: the next one begins earlier
    right[:-1] = np.minimum(right[:-1], t[1:])
    rebuilt = np.where(bars.rebuilt, close, np.nan)
    first = np.flatnonzero(bars.rebuilt[:-1] & ~bars.rebuilt[1:]) + 1
    rebuilt[first] = close[first - 1]  # holds until the first snapshot
    return {
        "t": t,
        "right": right,
        "close": close,
        "net": np.where(bars.rebuilt, np.nan, close),
        "rebuilt": rebuilt,
        "low": bars.low / 1e6,
        "high": bars.high / 1e6,
        "open": bars.open / 1e6,
    }


def _with_live(rows: dict[str, Column], live: tuple[float, float]) -> dict[str, Column]:
    """The last bar gives way to the live line, which has its points one by one; they meet in its first point."""
    at, net = live
    if np.isnan(rows["net"][-1]):
        return _held(rows, at)
    rows["close"][-1] = rows["net"][-1] = rows["open"][-1]
    rows["right"][-1] = max(at, rows["t"][-1])
    joint = dict.fromkeys(("t", "right"), at) | dict.fromkeys(("close", "net", "low", "high"), net)
    return inserted(rows, np.array([len(rows["t"])]), {name: np.array([value]) for name, value in joint.items()})


def _held(rows: dict[str, Column], until: float | None) -> dict[str, Column]:
    """The last value as a step of its own, not a point: to the end of its bar, or as long as it is known to hold."""
    last = {name: rows[name][-1:] for name in ("close", "net", "rebuilt")}
    last |= dict.fromkeys(("low", "high"), last["close"])
    is_rebuilt = np.isnan(last["net"][0])
    end = rows["right"][-1] if until is None or not is_rebuilt else max(until, rows["t"][-1])
    return inserted(rows, np.array([len(rows["t"])]), last | {"t": np.array([end]), "right": np.array([end])})


def _with_gaps(rows: dict[str, Column], longest_ms: int) -> dict[str, Column]:
    """Where nothing was recorded for long, the step ends with its bar."""
    recorded = ~np.isnan(rows["net"])
    silent = rows["t"][1:] - rows["right"][:-1] >= longest_ms
    before = np.flatnonzero(recorded[:-1] & recorded[1:] & silent)
    end = rows["right"][before]
    rows = inserted(rows, before + 1, {"t": end, "right": end})
    usd = rows["close"][before + np.arange(len(before))]
    last = dict.fromkeys(("close", "net", "low", "high"), usd)
    return inserted(rows, before + np.arange(len(before)) + 1, {"t": end, "right": end} | last)


def _with_carried(rows: dict[str, Column], edges: Edges, zone: tzinfo) -> dict[str, Column]:
    at_ms, micros = edges.carried or (0, 0)
    at, usd = _local(at_ms, zone), micros / 1e6
    row = dict.fromkeys(("t", "right"), at) | dict.fromkeys(("close", "rebuilt", "low", "high"), usd)
    ends = [] if len(rows["t"]) else [row | {"t": _local(edges.held_until, zone) or row["t"]}]
    for number, extra in enumerate([row, *ends]):
        rows = inserted(rows, np.array([number]), {name: np.array([value]) for name, value in extra.items()})
    return rows


def inserted(rows: dict[str, Column], where: Column, values: dict[str, Column]) -> dict[str, Column]:
    """Columns with rows put in before these places; what has no value in them is NaN."""
    nothing = np.full(len(where), np.nan)
    return {name: np.insert(column, where, values.get(name, nothing)) for name, column in rows.items()}
