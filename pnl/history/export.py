"""Bars as files and streams: money exact to the micro-dollar, instants with their offset."""

import csv
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, tzinfo
from typing import TextIO

from pnl.history.buckets import BUCKETS
from pnl.history.client import Bars, History
from pnl.rows import to_usd

COLUMNS = ("bucket_start", "open", "high", "low", "close", "count")


def rows(bars: Bars, zone: tzinfo) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Each bar as texts: when it starts in the reporting time zone, US dollars, and how many snapshots."""
    money = (bars.open, bars.high, bars.low, bars.close)
    for start, *micros, count in zip(*(column.tolist() for column in (bars.start, *money, bars.count)), strict=True):
        at = datetime.fromtimestamp(start / 1000, zone).isoformat()
        first, high, low, last = (f"{to_usd(value):f}" for value in micros)
        yield at, first, high, low, last, count


async def pieces(
    history: History, start: datetime | None, end: datetime | None, *, bucket: str, column: str, zone: tzinfo
) -> AsyncIterator[tuple[Bars, int, int]]:
    """Bars of a long range, a month at a time where the buckets are less than a day.

    Yields:
        Bars, and which piece of how many this is.
    """
    months = await history.bars(start, end, bucket="1mo", column=column)
    if BUCKETS[bucket].calendar or len(months) <= 1:
        yield await history.bars(start, end, bucket=bucket, column=column), 1, 1
        return
    starts = [datetime.fromtimestamp(ms / 1000, zone) for ms in months.start[1:].tolist()]
    edges = [start, *starts, end]
    for number in range(len(edges) - 1):
        bars = await history.bars(edges[number], edges[number + 1], bucket=bucket, column=column)
        yield bars, number + 1, len(edges) - 1


class CsvWriter:
    """Writes bars as CSV."""

    def __init__(self, out: TextIO, zone: tzinfo) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._zone = zone

    def write(self, bars: Bars) -> None:
        """Write some more."""
        self._writer.writerows(rows(bars, self._zone))

    def close(self) -> None:
        """There is nothing behind the last row."""


class JsonWriter:
    """Writes bars as one JSON list of objects, money as texts."""

    def __init__(self, out: TextIO, zone: tzinfo) -> None:
        self._out = out
        self._zone = zone
        self._between = "[\n"

    def write(self, bars: Bars) -> None:
        """Write some more."""
        for row in rows(bars, self._zone):
            self._out.write(self._between + json.dumps(dict(zip(COLUMNS, row, strict=True))))
            self._between = ",\n"

    def close(self) -> None:
        """End the list."""
        self._out.write("[]\n" if self._between == "[\n" else "\n]\n")
