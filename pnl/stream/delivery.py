"""How long it takes from an answer to a pixel: what was sent when, and what pages report of its arrival."""

import time
from collections import OrderedDict
from typing import NamedTuple

import msgspec
from bokeh.core.properties import String
from bokeh.model import DataModel

from pnl.metrics import Metrics
from pnl.records import Trace

REMEMBERED = 600
LONGEST_MS = 60_000
REPORTS_PER_S = 2
EVERY_S = 2.0


class Seen(DataModel):
    """What a page reports: a `Report` as JSON, written by the browser now and then."""

    report = String(default="")


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the point that was published at `t0` came to a page and stood in it: ms since the epoch, by our clock."""

    t0: float
    received: float
    painted: float


class Sent(NamedTuple):
    """A message for all pages: when it was made and began to go out, in ms since the epoch; its snapshot's trace."""

    at_ms: float
    trace: Trace


class Deliveries:
    """Takes note of each message for all pages, and of what became of some of them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sent: OrderedDict[float, Sent] = OrderedDict()

    def sent(self, t0: float, trace: Trace) -> None:
        """A snapshot's message is on its way.

        Args:
            t0: When it was published, in ms since the epoch.
            trace: Of the snapshot, encoded already; written on.
        """
        trace.sent = time.perf_counter()
        self._sent[t0] = Sent((time.time() - (trace.sending_s or 0.0)) * 1000, trace)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        self._metrics.broadcast("snapshot")
        self._metrics.checklist.observe("broadcast", trace.broadcast_s)

    def hear(self, said: str) -> None:
        """Take a page's report; what is none, or is about nothing that was sent, is not from our page and not heard."""
        try:
            report = msgspec.json.decode(said, type=Report)
        except msgspec.DecodeError:
            return
        sent = self._sent.get(report.t0)
        if sent is None or not report.t0 <= report.painted <= report.t0 + LONGEST_MS:
            return
        self._metrics.delivered((report.received - report.t0) / 1000)
        observe = self._metrics.checklist.observe
        observe("network", max(report.received - sent.at_ms, 0) / 1000)  # clocks agree to a millisecond at best
        observe("render", (report.painted - report.received) / 1000)
        before_s = sent.trace.answering_s
        observe("total", None if before_s is None else before_s + (report.painted - sent.at_ms) / 1000)


def every_s(sessions: int) -> float:
    """How often each of so many pages reports, so that all of them together stay cheap."""
    return max(EVERY_S, sessions / REPORTS_PER_S)
