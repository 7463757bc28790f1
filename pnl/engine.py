"""Opens everything, runs the poll loop, closes everything in reverse; the only room that composes."""

import asyncio
import ctypes
import json
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, get_args

from pnl.cache import CURRENT, WARM_S, Cache, Cached, Stats
from pnl.config import Settings
from pnl.errors import ConfigError, HistoryError, StoreError, StoreHeld, StoreReadOnly
from pnl.follower import Follower
from pnl.history.client import History
from pnl.history.process import DEADLINE_S
from pnl.history.wire import Counted
from pnl.metrics import Levels, Metrics
from pnl.model import PnLModel, as_json
from pnl.records import Agreement, Reading, Snapshot, State
from pnl.sources import Source, open_sources
from pnl.sources.breaker import BreakerState
from pnl.sources.transport import DEADLINE_S as REQUEST_S
from pnl.sources.transport import OnAnswer, Transport
from pnl.store import FILE, Archived, Beside, Change, Kind, Recorded, Store, read_beside

SLOWEST_COMMIT_S = 0.25
LATE_S = 4.0
FOLLOW_S = 0.5
RETAIN_S = 6 * 3600
SUMMARY_S = 60
CACHE_FOLDER = "cache"
POLLS_UNTIL_LATE = 2

log = logging.getLogger(__name__)


class Engine:
    """One running `pnl`: sources, store and model; opened and closed with `async with`.

    With `records=False` it reads what is recorded and writes nothing: for a look beside the process that writes.
    With `follows=True` it does not mind another process that writes: it shows what that one records, and takes its
    place as soon as it is gone.
    Whoever wants to show the numbers watches `engine.model.param.snapshot`: it changes once they are committed.
    What is measured of all that is in `engine.metrics`.
    """

    is_demo = False

    def __init__(
        self, settings: Settings, *, records: bool = True, follows: bool = False, on_answer: OnAnswer | None = None
    ) -> None:
        self.settings = settings
        self._records = records
        self._follows = follows
        self._holder: str | None = None
        self.metrics = Metrics()
        self.model = PnLModel(mark=settings.kalshi_mark)
        self.store = self._store()
        self.cache = Cache(None)
        self.history = self._history(Counted())
        self._on_answer = on_answer
        self._transport = Transport()
        self.resources = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def late_s(self) -> float:
        """Seconds after which silence means that something is wrong: a few polls of the quickest source."""
        return min(self.late_sources_s.values(), default=LATE_S)

    @property
    def late_sources_s(self) -> dict[str, float]:
        """By source, how old its last good answer gets at most while it answers, and now and then fails to."""
        return {name: LATE_S + POLLS_UNTIL_LATE * source.poll_s for name, source in self.model.sources.items()}

    @property
    def unwritten_s(self) -> float:
        """For how long nothing could be recorded; 0 while all is well, and where another process does it."""
        return self.store.stuck_s if self._records else math.inf

    async def open(self) -> None:
        """Open every part, in order; `resources` closes them in reverse."""
        if not self.settings.has_source:
            raise ConfigError(
                "no source is configured: set PNL_KALSHI_KEY_ID and PNL_KALSHI_PRIVATE_KEY_PATH, "
                "PNL_ANTHROPIC_ADMIN_KEY or PNL_JOHN_URL (the README tells how); `panel serve app/` shows a demo"
            )
        self._transport = Transport(
            on_answer=self._on_answer,
            breaker_failures=self.settings.breaker_failures,
            breaker_s=self.settings.breaker_s,
        )
        await self.resources.enter_async_context(self._transport)
        sources, others = open_sources(self.settings, self._transport)
        self.history = self._history(counted(sources))
        recorded = await self._open_store()
        # Closed before the store, which keeps its log beside the file while anybody reads.
        self.resources.push_async_callback(self.history.aclose)
        self.model.read_from(sources, others).restore(recorded)
        if any(reading.state is State.STALE for reading in self.model.readings.values()):
            await self._show_restored()

    def _history(self, counts: Counted) -> History:
        settings = self.settings
        return History(
            settings.data_dir / FILE,
            kind=_kind(settings),
            zone=settings.timezone,
            counted=counts,
            version=lambda: self.model.snapshot and self.model.snapshot.sequence,
            on_query=self.metrics.queried,
        )

    def _store(self) -> Store:
        settings = self.settings
        return Store(
            settings.data_dir,
            kind=_kind(settings),
            synchronous=settings.store_synchronous,
            commit_rows=settings.commit_rows,
            commit_ms=settings.commit_ms,
            on_commit=self.metrics.committed,
        )

    async def _show_restored(self) -> None:
        """What is on disk stands before the first poll ends, and is recorded as the stale total that it is."""
        snapshot = self.model.put_together()
        if self._records and self._holder is None:
            await self._record(Change(snapshot))
        else:
            self.model.show(snapshot)

    async def _open_store(self) -> Recorded:
        """Become the process that records; else read what there is."""
        if not self._records:
            return await self._read_beside()
        self.store = self._store()
        try:
            await self.resources.enter_async_context(self.store)
        except StoreHeld as held:
            if not self._follows:
                raise
            self._holder = held.holder
            return await self._read_beside()
        except StoreReadOnly as error:
            if not self._follows:
                raise
            log.warning("%s", error)
            self._records = False
            return await self._read_beside()
        self.cache = await self.resources.enter_async_context(Cache(self.settings.data_dir / CACHE_FOLDER))
        return self.store.recorded

    async def _read_beside(self) -> Recorded:
        return await asyncio.to_thread(read_beside, self.settings.data_dir, _kind(self.settings))

    def start(self) -> None:
        """Begin to poll, each source at its own pace, so that a slow one holds nobody up; or to follow who does."""
        self._run("summarize", self._summarize())
        if self._holder is None:
            self._start_polling()
        else:
            self._run("follow", self._follow())

    def _start_polling(self) -> None:
        for name in self.model.sources:
            self._run(f"poll-{name}", self._poll(name))
        if self._records:
            self._run("retain", self._retain())

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _summarize(self) -> None:
        """Log once a minute where the time went, and give back the memory that pages left behind."""
        while True:
            await asyncio.sleep(SUMMARY_S)
            if summary := self.metrics.spans.summary():
                log.info("where the time went: %s", summary)
            await asyncio.to_thread(_give_back_memory)

    async def _retain(self) -> None:
        """Move months of old snapshots into the archive, now and then."""
        while True:
            try:
                await self.retain()
            except (HistoryError, StoreError) as error:
                log.warning("old snapshots stay where they are: %s", error)
            await asyncio.sleep(RETAIN_S)

    async def retain(self) -> None:
        """Move the months of snapshots that are old enough into the archive.

        Raises:
            HistoryError: A file cannot be written.
            StoreError: A file does not hold what is recorded, or the store cannot be written.
        """
        await self.store.drop_archived()
        now_ms = time.time_ns() // 1_000_000
        for month in await self.store.due_months(now_ms, self.settings.raw_days):
            written = await self.history.archive(month.name, start_ms=month.start_ms, until_ms=month.until_ms)
            await self.store.retire(Archived(month.name, month.until_ms, **written))

    async def _follow(self) -> None:
        """Show what another process records, and go on in its place once it lets go of the folder."""
        with Beside(self.store.path, _kind(self.settings)) as beside:
            follower = Follower(self.model, beside)
            while not await self._takes_over():
                try:
                    await follower.catch_up(str(self._holder))
                except StoreError as error:
                    log.warning("%s", error)
                await asyncio.sleep(FOLLOW_S)
        self._start_polling()

    async def _takes_over(self) -> bool:
        """Try to become the process that records."""
        self._holder = None
        try:
            recorded = await self._open_store()
        except StoreError as error:
            log.warning("%s", error)
            self._holder = "another process"
        if self._holder is None:
            self.model.restore(recorded)
        return self._holder is None

    async def aclose(self) -> None:
        """Stop polling, write what waits, close everything."""
        self._stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.resources.aclose()

    def close_store(self) -> None:
        """Stop polling and write what waits, from a callback of a loop that will not run again to close the rest."""
        self._stop()
        try:
            self.history.kill()  # SQLite keeps its log beside the file while anybody reads it
        finally:
            self.store.close()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def sync(self) -> Snapshot:
        """Poll every source once, side by side, and record the result.

        Raises:
            StoreError: It could not be recorded.
        """
        changes = [replace(change, snapshot=None) for change in await self.model.pull_all()]
        snapshot = replace(self.model.put_together(), is_recorded=self._records)
        if self._records:
            changes += [Change(snapshot)] if snapshot.is_worth_recording else []
            await asyncio.gather(*(asyncio.wrap_future(self.store.append(change)) for change in changes))
        self.model.show(snapshot)
        return snapshot

    async def _poll(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        poll_s = self.model.sources[name].poll_s
        due = loop.time()
        while True:
            try:
                with self.metrics.spans(f"poll {name}", slow_s=REQUEST_S):
                    change = await self._pull(name, patience_s=poll_s * POLLS_UNTIL_LATE + 1)
                await self._record(change)
            except Exception:
                log.exception("a poll of %s could not be shown", name)  # the next one may, and must be tried
            due = max(due + poll_s, loop.time())  # a late poll is not made up for by a burst
            await asyncio.sleep(due - loop.time())

    async def _pull(self, name: str, *, patience_s: float) -> Change:
        """Poll a source; one that takes too long is shown as stale while it goes on."""
        self._transport.take_requested(name)  # of a poll that was cut off
        pull = asyncio.create_task(self.model.pull(name), name=f"pull-{name}")
        try:
            answered, _ = await asyncio.wait([pull], timeout=patience_s)
            if not answered and (change := self.model.late(name, patience_s)) is not None:
                await self._record(change)
            change = await pull
        finally:
            pull.cancel()
        requested = self._transport.take_requested(name)
        if requested is not None and change.snapshot is not None and change.snapshot.trace.source == name:
            trace = change.snapshot.trace
            trace.requested, trace.first_byte, trace.body = requested
        return change

    async def _record(self, change: Change) -> None:
        """Commit a change, then show it; a commit that fails or takes long does not hold the page back."""
        snapshot = change.snapshot
        if not self._records:
            self._show(snapshot, is_recorded=False)
            return
        if snapshot is not None and not snapshot.is_worth_recording:
            change = replace(change, snapshot=None)
        with self.metrics.spans("commit"):
            trouble = await self._commit(change)
        committed = time.perf_counter()
        if trouble:
            log.warning("not recorded yet: %s", trouble)
        with self.metrics.spans("cache"):
            self._refresh_cache(change, is_recorded=trouble is None)
        if change.snapshot is not None and trouble is None:
            change.snapshot.trace.committed, change.snapshot.trace.cached = committed, time.perf_counter()
        self._show(snapshot, is_recorded=trouble is None)

    async def _commit(self, change: Change) -> str | None:
        """Why a change is not on disk after a while; None: it is."""
        written = self.store.append(change)
        done = asyncio.wrap_future(written)
        done.add_done_callback(_hear)
        await asyncio.wait([done], timeout=SLOWEST_COMMIT_S)
        return _trouble(written)

    def _refresh_cache(self, change: Change, *, is_recorded: bool) -> None:
        """Forget what a new record changes, and keep the snapshot that includes it once it is on disk."""
        if change.batch.fills:
            self.cache.on_fill(datetime.now(UTC))
        if change.batch.cost_days:
            self.cache.on_cost()
        if change.snapshot is not None and is_recorded:
            self.cache.warm(_as_bytes(change.snapshot))

    async def warm_history(self) -> None:
        """Have the process for the history read what is recorded, before anybody asks."""
        with suppress(HistoryError):
            await self.history.bars()

    async def current(self) -> Cached:
        """The newest recorded snapshot as JSON, from memory, disk or the store, and how old it is."""
        return await self.cache.get(CURRENT, self._read_current, ttl_s=WARM_S)

    async def _read_current(self) -> bytes | None:
        newest = await self.store.newest(self.model.readings)
        return None if newest is None else _as_bytes(newest)

    def _show(self, snapshot: Snapshot | None, *, is_recorded: bool) -> None:
        if snapshot is None:
            return
        with self.metrics.spans("show"):
            self.model.show(replace(snapshot, is_recorded=is_recorded))
        self.metrics.traced(snapshot.trace)  # only now: nobody waits for it

    def _watch(self) -> None:
        """Let what stands elsewhere already be read when somebody asks for the metrics."""
        watch = self.metrics.watch
        watch("pnl_cache_hit_ratio", lambda: _ratios(current=self.cache.stats, history=self.history.shared))
        watch("pnl_source_age_seconds", self._ages_s)
        watch("pnl_source_state", lambda: _states(State, {r.source: r.state for r in self.readings}))
        watch("pnl_breaker_state", self._breaker_states)
        watch("pnl_queue_depth", lambda: {("store",): self.store.waiting, ("cache",): self.cache.waiting})
        watch("pnl_snapshot_recorded", lambda: _of(self.model.snapshot, lambda shown: shown.is_recorded))
        watch("pnl_drift_usd", lambda: _of(self.model.snapshot, lambda shown: shown.drift_usd))
        watch("pnl_drift_state", lambda: {(state,): state is self._agreement for state in Agreement})

    @property
    def readings(self) -> Sequence[Reading[Any]]:
        """How good each source's answer is in what is shown now."""
        shown = self.model.snapshot
        return tuple(self.model.readings.values()) if shown is None else shown.sources

    def _ages_s(self) -> Levels:
        now = datetime.now(UTC)
        return {(r.source,): r.age_s(now) for r in self.readings if r.state is not State.NOT_CONFIGURED}

    def _breaker_states(self) -> Levels:
        breakers = self._transport.breakers
        return _states(get_args(BreakerState.__value__), {name: breakers[name].state for name in breakers})

    @property
    def _agreement(self) -> Agreement:
        return Agreement.UNKNOWN if self.model.snapshot is None else self.model.snapshot.agreement


def _states(states: Iterable[str], of: Mapping[str, str]) -> Levels:
    return {(source, state): state == now for source, now in of.items() for state in states}


def _of(shown: Snapshot | None, figure: Callable[[Snapshot], Decimal | bool | None]) -> Levels:
    value = None if shown is None else figure(shown)
    return {(): None if value is None else float(value)}


def _ratios(**caches: Stats) -> Levels:
    return {
        (cache, name): level.hit_ratio
        for cache, stats in caches.items()
        for name, level in zip(("memory", "disk", "store"), (stats.memory, stats.disk, stats.store), strict=True)
    }


def counted(sources: Iterable[Source]) -> Counted:
    """Whose records the history counts: those of the sources that are configured."""
    sources = list(sources)
    return Counted(frozenset(source.name for source in sources), frozenset(source.origin for source in sources))


def history_of(settings: Settings, *, deadline_s: float = DEADLINE_S) -> History:
    """The history of a data folder, for a look without an engine; `async with`.

    Without any source in the settings, whatever the folder holds is shown, and all of it counts.
    """
    kind, counts = None, Counted()
    if settings.has_source:
        kind, counts = _kind(settings), counted(open_sources(settings, Transport())[0])
    path = settings.data_dir / FILE
    return History(path, kind=kind, zone=settings.timezone, counted=counts, deadline_s=deadline_s)


def _give_back_memory() -> None:
    """Freed memory stays with the process otherwise: glibc keeps what each thread that built a page once had."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _as_bytes(snapshot: Snapshot) -> bytes:
    return json.dumps(as_json(snapshot, snapshot.taken_at)).encode()


def _trouble(written: Future[None]) -> str | None:
    """Why a change is not on disk; asks the writer itself, for a loop that was held up hears of it late."""
    if not written.done():
        return f"the commit takes over {SLOWEST_COMMIT_S} s"
    error = written.exception()
    return None if error is None else str(error)


def _hear(done: asyncio.Future[None]) -> None:
    """Take note of a failure that comes after everybody stopped waiting, or asyncio calls it unheard."""
    if not done.cancelled():
        done.exception()


def _kind(settings: Settings) -> Kind:
    return "simulated" if settings.is_simulated else "real"
