"""Opens everything, runs the poll loop, closes everything in reverse; the only room that composes."""

import asyncio
import json
import logging
import math
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pnl.alerts import AlertWatch, Rules
from pnl.cache import CURRENT, WARM_S, Cache, Cached, Server
from pnl.config import NOTHING_SET, Settings
from pnl.engine import gauges
from pnl.engine.upkeep import Upkeep
from pnl.errors import ConfigError, HistoryError, PnlError, StoreHeld, StoreNotReady, StoreReadOnly
from pnl.follower import Follower
from pnl.history.client import History, database_at
from pnl.history.process import DEADLINE_S
from pnl.history.wire import Counted, Database
from pnl.metrics import Metrics
from pnl.model import PnLModel, as_json
from pnl.notes import Notes
from pnl.records import Reading, Snapshot, State
from pnl.sources import Source, open_sources
from pnl.sources.breaker import BreakerState
from pnl.sources.transport import DEADLINE_S as REQUEST_S
from pnl.sources.transport import OnAnswer, Transport
from pnl.sources.turn import Pace, Turn
from pnl.store import FILE, Change, Kind, Recorded, Store, beside_of, read_beside

SLOWEST_COMMIT_S = 0.25
LATE_S = 4.0
FOLLOW_S = 0.5
READY_S = 10.0
LOOK_S = 0.02
CACHE_FOLDER = "cache"
FOLLOW = "What another process records cannot be read"
TAKE_OVER = "This process cannot record in the place of another one"
POLLS_UNTIL_LATE = 2

log = logging.getLogger(__name__)


class Engine:
    """One running `pnl`: sources, store and model; opened and closed with `async with`.

    With `records=False` it reads what is recorded and writes nothing: for a look beside the process that writes.
    With `follows=True` it is a dashboard's: it does not mind another process that writes, but shows what that one
    records, and takes its place as soon as it is gone; and its history is started at once, as pages will ask for it.
    Whoever wants to show the numbers watches `engine.model.param.snapshot`: it changes once they are committed. What a
    person should be told of is in `engine.alerts`, watched through `param.current`.
    What is measured of all that is in `engine.metrics`, what a person noted in `engine.notes`.
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
        self.alerts = AlertWatch(_rules(settings))
        self.store = self._store()
        self.cache = Cache(None)
        self._held = AsyncExitStack()  # what only the process that records has open
        self._lost = asyncio.Event()
        self.notes = Notes(settings.data_dir)
        self.history = self._history(Counted())
        self._on_answer = on_answer
        self._transport = Transport()
        self.resources = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._recording: list[asyncio.Task[None]] = []  # those of them that only the process that records has
        self._remarks: dict[str, str | None] = {}  # by part of this process
        self._troubles: dict[str, str | None] = {}  # by what cannot be done
        self._turns: dict[str, Turn] = {}
        self.upkeep = Upkeep(self)
        gauges.watch(self)

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
            raise ConfigError(NOTHING_SET)
        self._transport = Transport(
            on_answer=self._on_answer,
            breaker_failures=self.settings.breaker_failures,
            breaker_s=self.settings.breaker_s,
        )
        await self.resources.enter_async_context(self._transport)
        self.notes.folder = self.settings.data_dir  # a demo knows its own only now
        sources, others = open_sources(self.settings, self._transport)
        self.history = self._history(counted(sources))
        self.resources.push_async_callback(self.history.aclose)  # also when the store cannot be opened
        if self._follows:
            await self.history.start()  # it loads its libraries while the store is read
        recorded = await self._open_store()
        # Closed before the store, which keeps its log beside the file while anybody reads.
        self.resources.push_async_callback(self.history.aclose)
        self.model.read_from(sources, others).restore(recorded)
        self.alerts.recall(self.settings.data_dir)
        self.resources.push_async_callback(self.upkeep.aclose)
        if any(reading.state is State.STALE for reading in self.model.readings.values()):
            await self._show_restored()

    def _history(self, counts: Counted) -> History:
        settings = self.settings
        return History(
            settings.data_dir / FILE,
            kind=self.kind,
            zone=settings.timezone,
            counted=counts,
            database=_database(settings),
            version=lambda: self.model.snapshot and (self.model.snapshot.sequence, self.model.snapshot.is_recorded),
            on_query=self.metrics.queried,
        )

    def _store(self) -> Store:
        settings = self.settings
        return Store(
            settings.data_dir,
            kind=self.kind,
            url=settings.store_url,
            synchronous=settings.store_synchronous,
            commit_rows=settings.commit_rows,
            commit_ms=settings.commit_ms,
            on_commit=self._committed,
        )

    def _committed(self, seconds: float) -> None:
        """In the writer's thread."""
        self.metrics.committed(seconds)
        self.cache.shared.tell()

    async def _show_restored(self) -> None:
        """What is on disk stands before the first poll ends, and is recorded as the stale total that it is."""
        snapshot = self.model.put_together()
        if self.is_recording:
            await self._record(Change(snapshot))
        else:
            self.model.show(snapshot)

    async def _open_store(self) -> Recorded:
        """Become the process that records; else read what there is."""
        if not self._records:
            return await self._read_beside()
        try:
            return await self._hold_store()
        except StoreHeld as held:
            if not self._follows:
                raise
            self._holder = held.holder
        except StoreReadOnly as error:
            if not self._follows:
                raise
            log.warning("%s", error)
            self._records = False
        if self._holder is None:
            return await self._read_beside()
        recorded = await self._read_held()
        self.cache = Cache(None, server=self._server(recorded, writes=False))
        return recorded

    async def _hold_store(self) -> Recorded:
        """Open the store for writing, and then the cache, which only the process that has the store writes."""
        self.store = self._store()
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.store)
            server = self._server(self.store.recorded, writes=True)
            cache = Cache(None if server else self.settings.data_dir / CACHE_FOLDER, server=server)
            self.cache = await held.enter_async_context(cache)
            self._held = await self.resources.enter_async_context(held.pop_all())
        return self.store.recorded

    def _server(self, recorded: Recorded, *, writes: bool) -> Server | None:
        """What the processes of this data folder share; a copy of the folder is another one."""
        if self.settings.cache_url is None or not recorded.identity:
            return None
        copy = f"{self.store.path.stat().st_ino:x}" if self.settings.store_url is None else "database"
        space = f"{recorded.identity}-{copy}"
        return Server(self.settings.cache_url, space, writes=writes, on_change=self._shared_changed)

    def _shared_changed(self, trouble: str | None) -> None:
        if trouble is not None:
            self.metrics.lost_shared_cache()
        self._remark_shared(trouble)

    def _remark_shared(self, trouble: str | None) -> None:
        says = f"The shared cache (PNL_CACHE_URL) is not used: {trouble}. The numbers are the same without it."
        self.remark("shared cache", says if trouble else None)

    def remark(self, part: str, says: str | None) -> None:
        """Say on the pages of this process what is wrong with a part of it, until that part is well again."""
        self._remarks[part] = says
        self.model.remark(*(each for each in self._remarks.values() if each is not None))

    def _cannot(self, what: str, error: Exception | None) -> None:
        """Say what this process cannot do with the record of another one, and go on; None: it can again."""
        why = None if error is None else f"{error}"
        if error is not None and why != self._troubles.get(what):  # it is tried again many times a minute
            log.warning("%s: %s", what, why, exc_info=None if isinstance(error, PnlError) else error)
        self._troubles[what] = why
        unable = next((each for each in (FOLLOW, TAKE_OVER) if self._troubles.get(each) is not None), None)
        self.remark("record", unable and f"{unable} now; the log says why, and it is tried again by itself.")

    async def _read_beside(self) -> Recorded:
        settings = self.settings
        return await asyncio.to_thread(read_beside, settings.data_dir, settings.store_url, self.kind)

    async def _read_held(self) -> Recorded:
        """The same, where its holder may have begun just now: it makes its database, or migrates it, for a moment."""
        is_too_early, until = retry_if_exception_type(StoreNotReady), stop_after_delay(READY_S)
        attempts = AsyncRetrying(retry=is_too_early, stop=until, wait=wait_fixed(LOOK_S), reraise=True)
        return await attempts(self._read_beside)

    def start(self) -> None:
        """Begin to poll, each source at its own pace, so that a slow one holds nobody up; or to follow who does."""
        for name, work in self.upkeep.of_every_process().items():
            self._run(name, work)
        if self._holder is None:
            self._start_polling()
        else:
            self._run("follow", self._follow())

    def _start_polling(self) -> None:
        sources = self.model.sources
        apart_s = min((source.poll_s for source in sources.values()), default=0.0) / max(len(sources), 1)
        for number, (name, source) in enumerate(sources.items()):
            # Asked together they would answer together, and all but the first wait for the next message to the pages.
            self._turns[name] = Turn(source.poll_s, phase_s=number * apart_s)
            self._recording.append(self._run(f"poll-{name}", self._poll(name)))
        if self._records:
            self._recording.extend(self._run(name, work) for name, work in self.upkeep.of_who_records().items())
            self._run("give-way", self._give_way())

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_mourn)
        self._tasks.append(task)
        return task

    @property
    def kind_of_numbers(self) -> str:
        """What is to be warned of: `demo` or `simulated`; empty for real ones."""
        return "demo" if self.is_demo else "simulated" if self.settings.is_simulated else ""

    async def _give_way(self) -> None:
        """Follow the process that records now, should this one lose its database to it."""
        await self._lost.wait()
        self._lost.clear()
        log.warning("%s records now; it is followed from here on", self.store.lost_to)
        self._holder, self._turns = self.store.lost_to, {}
        for task in self._recording:
            task.cancel()
        await asyncio.gather(*self._recording, return_exceptions=True)
        self._recording.clear()
        await self._held.aclose()
        self.cache = Cache(None, server=self._server(self.store.recorded, writes=False))
        await self._follow()

    async def _follow(self) -> None:
        """Show what another process records, and go on in its place once it lets go of the folder or database."""
        with beside_of(self.settings.data_dir, self.settings.store_url, self.kind) as beside:
            follower = Follower(self.model, beside)
            async with self.cache:
                while not await self._takes_over(follower):
                    await self._catch_up(follower)
        self._remark_shared(self.cache.shared.trouble)
        self._start_polling()

    async def _catch_up(self, follower: Follower) -> None:
        """Look at the record once, and for a while again whenever its writer says so."""
        until = time.monotonic() + FOLLOW_S
        while True:
            try:
                await follower.catch_up(str(self._holder))
                self._cannot(FOLLOW, None)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next look may do better
                self._cannot(FOLLOW, error)
            await asyncio.sleep(LOOK_S)
            if (left_s := until - time.monotonic()) <= 0:
                return
            await self.cache.shared.heard(left_s)

    async def _takes_over(self, follower: Follower) -> bool:
        """Try to become the process that records; whatever goes wrong, the next try may do better."""
        try:
            recorded = await self._hold_or_read(follower)
        except StoreHeld as held:
            self._holder = held.holder
            self._cannot(TAKE_OVER, None)
            return False
        except Exception as error:  # noqa: BLE001 - see above
            self._holder = "another process"
            self._cannot(TAKE_OVER, error)
            return False
        self._holder = None
        self._cannot(TAKE_OVER, None)
        self._cannot(FOLLOW, None)
        self.model.restore(recorded)
        return True

    async def _hold_or_read(self, follower: Follower) -> Recorded:
        """Hold the store, or, where nothing can be written, only read it.

        Who holds a database is asked on the connection that is there: to try for it takes a new one.
        """
        if (holder := await follower.holder()) is not None:
            raise StoreHeld(f"{holder} records", holder)
        try:
            return await self._hold_store()
        except StoreReadOnly as error:
            recorded = await self._read_beside()
            log.warning("%s", error)
            self._records = False
            return recorded

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
        poll_s = self.model.sources[name].poll_s
        while True:
            try:
                with self.metrics.spans(f"poll {name}", slow_s=REQUEST_S):
                    change = await self._pull(name, patience_s=poll_s * POLLS_UNTIL_LATE + 1)
                await self._record(change)
            except Exception:
                log.exception("a poll of %s could not be shown", name)  # the next one may, and must be tried
            await self._turns[name].wait()

    def poll_now(self, name: str) -> bool:
        """Ask a source at once and not at its turn; to be called on the loop.

        Returns:
            Whether it is asked: not within 5 s of the last such wish, nor where there is no such source here.
        """
        return name in self._turns and self._turns[name].hurry()

    @property
    def paces(self) -> dict[str, Pace]:
        """By source, how it is asked at the moment; none while another process asks."""
        return {name: self._pace(name, turn) for name, turn in self._turns.items()}

    def _pace(self, name: str, turn: Turn) -> Pace:
        breaker = self._transport.breakers.get(name)
        if breaker is None:
            return Pace(turn.next_at())
        return Pace(turn.next_at(rest_s=breaker.next_try_s), breaker.state)

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
        if self.store.lost_to is not None:
            self._lost.set()
        if change.snapshot is not None and not written.done():
            done.add_done_callback(partial(self._is_on_disk, change.snapshot.sequence))
        return _trouble(written)

    def _is_on_disk(self, sequence: int, done: asyncio.Future[None]) -> None:
        """Take back that the snapshot is not recorded, once it is."""
        if not done.cancelled() and done.exception() is None:
            self.model.was_recorded(sequence)

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

    @property
    def kind(self) -> Kind:
        """Which numbers these are; the two are never in one place."""
        return _kind(self.settings)

    @property
    def is_recording(self) -> bool:
        """Whether this is the process that records, and so tells people of what it finds."""
        return self._records and self._holder is None

    @property
    def breaker_states(self) -> Mapping[str, BreakerState]:
        """Of each source that was asked."""
        return {name: breaker.state for name, breaker in self._transport.breakers.items()}

    @property
    def readings(self) -> Sequence[Reading[Any]]:
        """How good each source's answer is in what is shown now."""
        shown = self.model.snapshot
        return tuple(self.model.readings.values()) if shown is None else shown.sources


def _rules(settings: Settings) -> Rules:
    return Rules(settings.daily_loss_limit, settings.cost_budget, settings.alert_hold_s, settings.zone)


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
    return History(
        path, kind=kind, zone=settings.timezone, counted=counts, database=_database(settings), deadline_s=deadline_s
    )


def _database(settings: Settings) -> Database | None:
    """The database that the history is read from."""
    url = settings.store_read_url or settings.store_url
    return None if url is None else database_at(url)


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


def _mourn(task: asyncio.Task[None]) -> None:
    """Tell of a task that should have lived on: else nobody hears of it before the engine is closed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has ended; start this process anew", task.get_name(), exc_info=error)


def _kind(settings: Settings) -> Kind:
    return "simulated" if settings.is_simulated else "real"
