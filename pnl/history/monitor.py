"""How long each kind of question takes, and which statements took long."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pnl.metrics import percentiles

KEPT_TIMES = 1000
KEPT_SLOW = 100


@dataclass(frozen=True, slots=True)
class Slow:
    """A statement that took over 100 ms; the values that it was given are not in it."""

    at: datetime
    kind: str
    statement: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class Timing:
    """One kind of question: how often it was asked, and how long the last ones took, in ms, there and back."""

    count: int
    failed: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class _Kind:
    count: int = 0
    failed: int = 0
    times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))


class QueryMonitor:
    """Takes note of every question; `slow` holds the last statements that took long, newest last."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self.slow: deque[Slow] = deque(maxlen=KEPT_SLOW)

    def note(self, kind: str, took_ms: float, *, failed: bool = False, slow: Sequence[tuple[str, float]] = ()) -> None:
        """Take note of one question, and of its statements that took long."""
        seen = self._kinds.setdefault(kind, _Kind())
        seen.count += 1
        seen.failed += failed
        seen.times_ms.append(took_ms)
        now = datetime.now(UTC)
        self.slow.extend(Slow(now, kind, statement, ms) for statement, ms in slow)

    def timings(self) -> Mapping[str, Timing]:
        """Each kind of question so far, by name."""
        return {kind: _timing(seen) for kind, seen in sorted(self._kinds.items())}


def _timing(seen: _Kind) -> Timing:
    times = list(seen.times_ms)
    figures = (sum(times) / len(times), *percentiles(times), max(times))
    return Timing(seen.count, seen.failed, *(round(figure, 3) for figure in figures))
