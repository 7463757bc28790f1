"""What operators' programs read of an engine at any time: its sources, breakers, caches, queues and newest snapshot."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, get_args

from pnl.cache import Stats
from pnl.cache.shared import Shared
from pnl.metrics import Levels
from pnl.records import Agreement, Snapshot, State
from pnl.sources.breaker import BreakerState

if TYPE_CHECKING:
    from pnl.engine import Engine


def watch(engine: "Engine") -> None:
    """Let what stands in an engine's parts be read when somebody asks for its metrics."""
    add = engine.metrics.watch
    add("pnl_cache_hit_ratio", lambda: _ratios(current=engine.cache.stats, history=engine.history.shared))
    add("pnl_shared_cache_up", lambda: _is_up(engine.cache.shared))
    add("pnl_source_age_seconds", lambda: _ages_s(engine))
    add("pnl_source_state", lambda: _states(State, {r.source: r.state for r in engine.readings}))
    add("pnl_breaker_state", lambda: _states(get_args(BreakerState.__value__), engine.breaker_states))
    add("pnl_queue_depth", lambda: {("store",): engine.store.waiting, ("cache",): engine.cache.waiting})
    add("pnl_snapshot_recorded", lambda: _of(engine.model.snapshot, lambda shown: shown.is_recorded))
    add("pnl_drift_usd", lambda: _of(engine.model.snapshot, lambda shown: shown.drift_usd))
    add("pnl_drift_state", lambda: _agreement(engine.model.snapshot))


def _ages_s(engine: "Engine") -> Levels:
    now = datetime.now(UTC)
    return {(r.source,): r.age_s(now) for r in engine.readings if r.state is not State.NOT_CONFIGURED}


def _agreement(shown: Snapshot | None) -> Levels:
    now = Agreement.UNKNOWN if shown is None else shown.agreement
    return {(state,): state is now for state in Agreement}


def _states(states: Iterable[str], of: Mapping[str, str]) -> Levels:
    return {(source, state): state == now for source, now in of.items() for state in states}


def _of(shown: Snapshot | None, figure: Callable[[Snapshot], Decimal | bool | None]) -> Levels:
    value = None if shown is None else figure(shown)
    return {(): None if value is None else float(value)}


def _ratios(**caches: Stats) -> Levels:
    return {
        (cache, level.name): getattr(stats, level.name).hit_ratio
        for cache, stats in caches.items()
        for level in fields(stats)
    }


def _is_up(shared: Shared) -> Levels:
    return {(): shared.trouble is None} if shared.is_set else {}
