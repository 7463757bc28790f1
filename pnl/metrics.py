"""Where the time goes: the latency checklist, the profiler's spans, and what Prometheus reads of it all."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pnl.records import Trace

KEPT = 1000
SLOW_S = 0.5
MS = 1000

type Verdict = Literal["met", "missed", "not measured yet"]
type Levels = Mapping[tuple[str, ...], float | None]
"""The values of one gauge by its labels; None: not known."""

log = logging.getLogger(__name__)


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The p50, p95 and p99 of at least one value."""
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return cuts[49], cuts[94], cuts[98]


@dataclass(frozen=True, slots=True)
class Spread:
    """How the last durations of one kind spread, in seconds; `count` is of all that there ever were."""

    count: int
    mean_s: float
    min_s: float
    max_s: float
    p50_s: float
    p95_s: float
    p99_s: float


class Durations:
    """The last durations of one kind, so many of them and no more."""

    def __init__(self, kept: int = KEPT) -> None:
        self._last: deque[float] = deque(maxlen=kept)
        self._count = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._last.append(seconds)
        self._count += 1

    def spread(self) -> Spread | None:
        """None before the first."""
        last = list(self._last)
        if not last:
            return None
        return Spread(self._count, math.fsum(last) / len(last), min(last), max(last), *percentiles(last))


class Target(NamedTuple):
    """What one step may take, in seconds; `own_s` is our own target, where the step is this program's own work."""

    title: str
    target_s: float
    own_s: float | None = None


CHECKLIST: Mapping[str, Target] = {
    "kalshi_fetch": Target("Kalshi API fetch", 0.2),
    "anthropic_fetch": Target("Anthropic API fetch", 0.1),
    "john_fetch": Target("John API fetch", 0.15),
    "aggregation": Target("Data aggregation", 0.05, 0.005),
    "pnl": Target("P&L calculation", 0.03, 0.003),
    "cache_write": Target("Cache write", 0.02, 0.002),
    "db_insert": Target("DB insert", 0.05, 0.005),
    "broadcast": Target("WebSocket broadcast", 0.1, 0.01),
    "network": Target("Network transmission", 0.1),
    "render": Target("Browser render", 0.05),
    "total": Target("Total (API → render)", 0.5, 0.05),
}
"""The rows of the latency checklist.

A fetch is all the requests of one poll; an insert is one transaction, without the wait for it (`Trace.commit_s` has
both). `total` is from the first byte of an answer to the painted number, so that our
own target holds however long an upstream thinks.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the checklist as it stands; a target is met while 95 of 100 durations keep it."""

    name: str
    target: Target
    spread: Spread | None

    @property
    def verdict(self) -> Verdict:
        """Against the target."""
        return self._against(self.target.target_s)

    @property
    def own_verdict(self) -> Verdict | None:
        """Against our own target; None where there is none."""
        return None if self.target.own_s is None else self._against(self.target.own_s)

    def _against(self, target_s: float) -> Verdict:
        if self.spread is None:
            return "not measured yet"
        return "met" if self.spread.p95_s < target_s else "missed"


class Checklist:
    """The latency budget: every row with its targets and what it really took."""

    def __init__(self, kept: int = KEPT) -> None:
        self._durations = {name: Durations(kept) for name in CHECKLIST}

    def observe(self, row: str, seconds: float | None) -> None:
        """Take note of one duration; one that is unknown, negative or no number is left out (clocks differ).

        Raises:
            ValueError: There is no such row.
        """
        if row not in self._durations:
            raise ValueError(f"{row!r} is no row of the checklist; there are {', '.join(CHECKLIST)}")
        if seconds is not None and 0 <= seconds < math.inf:
            self._durations[row].add(seconds)

    def rows(self) -> list[Row]:
        """Every row, in order, measured or not."""
        return [Row(name, target, self._durations[name].spread()) for name, target in CHECKLIST.items()]


class Spans:
    """The profiler: `with spans("commit"):` takes note of how long the block took, also of one that fails.

    Args:
        slow_s: Seconds from which on a span is logged as slow.
        clock: Seconds that only grow.
    """

    def __init__(self, *, slow_s: float = SLOW_S, clock: Callable[[], float] = time.perf_counter) -> None:
        self._slow_s = slow_s
        self._clock = clock
        self._spans: dict[str, Durations] = {}

    @contextmanager
    def __call__(self, name: str, *, slow_s: float | None = None) -> Iterator[None]:
        """Time the block; `slow_s` where another limit than usual holds."""
        began = self._clock()
        try:
            yield
        finally:
            took_s = self._clock() - began
            self._spans.setdefault(name, Durations()).add(took_s)
            if took_s >= (self._slow_s if slow_s is None else slow_s):
                log.warning("slow: %s took %.0f ms", name, took_s * MS)

    def spreads(self) -> dict[str, Spread]:
        """How each span spreads, by name."""
        found = {name: durations.spread() for name, durations in sorted(self._spans.items())}
        return {name: spread for name, spread in found.items() if spread is not None}

    def summary(self) -> str:
        """All spans in one line, in milliseconds; empty before the first."""
        return "; ".join(
            f"{name} {s.count} times, mean {s.mean_s * MS:.1f}, min {s.min_s * MS:.1f}, "
            f"p95 {s.p95_s * MS:.1f}, max {s.max_s * MS:.1f} ms"
            for name, s in self.spreads().items()
        )


GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pnl_connected_clients": ("Pages that follow the numbers now.", ()),
    "pnl_sessions": ("Sessions that the server holds, opened by a browser or not.", ()),
    "pnl_cache_hit_ratio": ("Hits per question since the start, 0-1.", ("cache", "level")),
    "pnl_shared_cache_up": ("Whether the cache that processes share can be reached; nothing where none is set.", ()),
    "pnl_source_age_seconds": ("Age of a source's last good answer.", ("source",)),
    "pnl_source_state": ("1 for the state that a source is in.", ("source", "state")),
    "pnl_breaker_state": ("1 for the state that a source's breaker is in.", ("source", "state")),
    "pnl_queue_depth": ("What waits to be written.", ("queue",)),
    "pnl_snapshot_recorded": ("Whether the newest numbers are on disk.", ()),
    "pnl_drift_usd": ("How far the venue's own figures are from ours, in US dollars.", ()),
    "pnl_drift_state": ("1 for what the comparison with the venue's own figures says.", ("state",)),
}
"""The gauges, each with its help and its labels, whose values are all from fixed sets."""


class _Gauges(Collector):
    """Asks for the value of each gauge when it is scraped, and at no other time."""

    def __init__(self) -> None:
        self.reads: dict[str, Callable[[], Levels]] = {}

    def describe(self) -> Iterator[GaugeMetricFamily]:
        for name, (about, labels) in GAUGES.items():
            yield GaugeMetricFamily(name, about, labels=labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for family in self.describe():
            for labels, value in self._levels(family.name).items():
                family.add_metric(labels, math.nan if value is None else value)
            yield family

    def _levels(self, name: str) -> Levels:
        try:
            return self.reads[name]() if name in self.reads else {}
        except Exception:
            log.exception("%s cannot be read", name)  # the others can
            return {}


class Metrics:
    """All that is measured of one running `pnl`, on a registry of its own.

    The stream tells it of what it sends: `broadcast` for each message, `delivered` for each that is known to have come
    through, and `checklist.observe` for the rows broadcast, network, render and total.
    """

    def __init__(self) -> None:
        self.checklist = Checklist()
        self.spans = Spans()
        self.registry = CollectorRegistry()
        self._gauges = _Gauges()
        self.registry.register(self._gauges)
        ProcessCollector(registry=self.registry)
        self._fetches = self._histogram("pnl_fetch_seconds", "All requests of one poll.", "source")
        self._aggregation = self._histogram(
            "pnl_aggregation_latency_seconds", "From a source's last whole answer to the totals that include it."
        )
        self._commits = self._histogram("pnl_commit_latency_seconds", "One transaction of the store, with its fsync.")
        self._records = self._histogram(
            "pnl_record_latency_seconds",
            "From totals until they are on disk, waiting for a commit with others included.",
        )
        self._queries = self._histogram("pnl_history_query_seconds", "One question to the history.", "kind")
        self._deliveries = self._histogram(
            "pnl_ws_message_latency_seconds", "From publishing a message until its page has it."
        )
        self._broadcasts = Counter(
            "pnl_broadcasts", "Messages for all pages, by what they hold.", ["type"], registry=self.registry
        )

        self._shared_losses = Counter(
            "pnl_shared_cache_losses", "How often the cache that processes share was lost.", registry=self.registry
        )

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        buckets = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

    def watch(self, gauge: str, read: Callable[[], Levels]) -> None:
        """Have a gauge (see `GAUGES`) read by `read` at each scrape.

        Raises:
            ValueError: There is no such gauge.
        """
        if gauge not in GAUGES:
            raise ValueError(f"{gauge!r} is no gauge; there are {', '.join(GAUGES)}")
        self._gauges.reads[gauge] = read

    def traced(self, trace: Trace) -> None:
        """Take note of how a snapshot was made; steps that it did not go through are left out."""
        steps = {
            f"{trace.source}_fetch": trace.fetch_s,
            "aggregation": trace.aggregation_s,
            "pnl": trace.computing_s,
            "cache_write": trace.caching_s,
        }
        for row, seconds in steps.items():
            if row in CHECKLIST:  # a third party's source has no row
                self.checklist.observe(row, seconds)
        if trace.fetch_s is not None:
            self._fetches.labels(trace.source).observe(trace.fetch_s)
        if trace.aggregation_s is not None and trace.computing_s is not None:
            self._aggregation.observe(trace.aggregation_s + trace.computing_s)
        if trace.commit_s is not None:
            self._records.observe(trace.commit_s)

    def committed(self, seconds: float) -> None:
        """The store made a commit; told by its writer's thread, and by no other."""
        self.checklist.observe("db_insert", seconds)
        self._commits.observe(seconds)

    def queried(self, kind: str, seconds: float) -> None:
        """The history answered a question, or failed to."""
        self._queries.labels(kind).observe(seconds)

    def broadcast(self, kind: str) -> None:
        """A message for all pages was sent; `kind` is one of a few fixed words."""
        self._broadcasts.labels(kind).inc()

    def lost_shared_cache(self) -> None:
        """The cache that processes share cannot be reached any more."""
        self._shared_losses.inc()

    def delivered(self, seconds: float) -> None:
        """A page has a message that was published so many seconds before."""
        if 0 <= seconds < math.inf:  # by another machine's clock
            self._deliveries.observe(seconds)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """What Prometheus reads, and its content type; `accept` is the header of who asks."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
