"""Answers kept in memory, over disk or a server, over whoever is asked: TTL, LRU, single-flight, stale-if-error, drops.

It saves or costs time and never changes an answer: whatever goes wrong with the disk or the server is a miss, and rows
that may have missed a drop are thrown away.

The disk answers at once, so it is asked on the way; a server is asked as the first step of a fetch, which those who ask
meanwhile share.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from pnl.cache.disk import Disk
from pnl.cache.keys import CURRENT, KEPT_S, kept_s, minute_key
from pnl.cache.memory import Entry, Level, Memory
from pnl.cache.shared import Server, Shared
from pnl.errors import PnlError

__all__ = [  # with what others look for in here
    "CURRENT",
    "KEPT_S",
    "WARM_S",
    "Cache",
    "Cached",
    "Filled",
    "Server",
    "Stats",
    "kept_s",
    "minute_key",
]

MINUTES_OF_A_FILL = 10
WARM_S = 30

type Fetch = Callable[[], Awaitable[bytes | None]]

log = logging.getLogger(__name__)

# Goes on while the machine sleeps, where the system has such a clock: what is old after a night must not look new.
_awake_and_asleep = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Cached(NamedTuple):  # made for every hit: a frozen dataclass would take longer than all the rest of it
    """An answer, how old it is, and what went wrong when a newer one was asked for."""

    value: bytes | None
    state: Literal["fresh", "stale", "missing"]
    level: Literal["memory", "disk", "shared", "store"]
    age_s: float
    error: PnlError | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """Told to subscribers: a fill became known at `at`, and these keys were dropped for it."""

    at: datetime
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """All levels at one instant."""

    memory: Level
    disk: Level
    shared: Level
    store: Level


class Cache:
    """Answers by key: from memory, from disk or a server, or fetched once; `async with`, on one event loop.

    Args:
        folder: Where the disk level lives; made private, deletable at any time, used by one process at a time (a second
            one goes without). None: memory only.
        entries: The most that memory holds.
        ttl_s: How long memory answers without a look at the disk.
        disk_entries: The most that the disk holds.
        clock: Seconds that only grow.
        wall: Seconds since the epoch; read once, to tell the age of what an earlier process left.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        server: Server | None = None,
        entries: int = 500,
        ttl_s: float = 0.3,
        disk_entries: int = 10_000,
        clock: Callable[[], float] = _awake_and_asleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if min(entries, disk_entries) < 1 or not ttl_s > 0:
            raise ValueError("a cache needs room for at least one entry, and a ttl_s above 0")
        self._clock = clock
        self._memory = Memory(entries, ttl_s)
        self._disk = Disk(folder, entries=disk_entries, clock=clock, epoch_s=wall() - clock())
        self.shared = Shared(server, clock=clock)
        self._store = Level()
        self._flights: dict[str, asyncio.Task[Cached]] = {}  # whose answers will be kept
        self._running: set[asyncio.Task[Cached]] = set()
        self._subscribers: dict[object, Callable[[Filled], None]] = {}

    async def __aenter__(self) -> Self:
        await self._disk.open()
        await self.shared.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.gather(*self._running, return_exceptions=True)
        finally:
            await self.shared.aclose()
            await self._disk.aclose()

    @property
    def stats(self) -> Stats:
        """What each level did since the cache was made."""
        levels = (self._memory.counts, self._disk.counts, self.shared.counts, self._store)
        return Stats(*map(replace, levels))

    @property
    def waiting(self) -> int:
        """How many keys the disk or the server has not written yet."""
        return self._disk.waiting + self.shared.waiting

    async def get(self, key: str, fetch: Fetch, *, ttl_s: float, stale_s: float = math.inf) -> Cached:
        """The value of a key, fetched when no level has a fresh one.

        Those who ask while a fetch is under way share it; it goes on when they are cancelled.

        Args:
            key: Its beginning decides how long the value is kept (`KEPT_S`).
            fetch: Asks the source or the store; None is its way to say that there is no such value.
            ttl_s: How long a fetched value is fresh; no longer than it is kept.
            stale_s: For how long after that it may stand in for a fetch that failed, as long as it is kept.

        Returns:
            `fresh`, just fetched or inside its TTL; `stale`, the last value, as the fetch failed; or `missing`, with
            None. `error` holds the fetch's failure, which is not raised.

        Raises:
            Exception: Whatever `fetch` raises that is no `PnlError`.
        """
        found = self.peek(key)
        if found is not None:
            return found
        flight = self._flights.get(key) or self._take_off(key, self._fetch(key, fetch, ttl_s, stale_s))
        return await asyncio.shield(flight)

    def peek(self, key: str) -> Cached | None:
        """The fresh value that memory or disk has, at once; None: it must be fetched."""
        now = self._clock()
        entry = self._memory.get(key, now)
        if entry is not None:
            return Cached(entry.value, "fresh", "memory", now - entry.stored_at)
        if key in self._flights:  # the disk was asked before that
            return None
        entry = self._disk.get(key, now)
        if entry is None:
            return None
        self._memory.put(key, entry, now)
        return Cached(entry.value, "fresh", "disk", now - entry.stored_at)

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep a value, fresh for `ttl_s`; it overrules a fetch that is under way.

        Raises:
            TypeError: The value is not bytes.
            ValueError: `ttl_s` is below 0 or no number.
        """
        self._flights.pop(key, None)
        self._keep(key, value, ttl_s)

    def drop(self, *keys: str) -> None:
        """Forget keys on every level; what is being fetched for them now will not be kept."""
        for key in keys:
            self._flights.pop(key, None)
            self._memory.drop(key)
        self._disk.drop(keys)
        self.shared.drop(keys)

    async def flush(self) -> None:
        """Wait until disk and server have, or have failed at, what was put and dropped so far."""
        await self._disk.flush()
        await self.shared.flush()

    def warm(self, snapshot: bytes) -> None:
        """Keep the snapshot that was just recorded."""
        self.put(CURRENT, snapshot, WARM_S)

    def on_fill(self, at: datetime) -> None:
        """Drop what a fill changes: the current snapshot and the ten minutes up to `at`; then tell the subscribers.

        Args:
            at: When the fill became known, UTC-aware; that it was made some minutes before is allowed for.
        """
        if at.tzinfo is None:
            raise ValueError("the time of a fill needs a time zone")
        minute = int(at.timestamp()) // 60
        minutes = (minute_key((minute - back) * 60_000) for back in range(MINUTES_OF_A_FILL))
        event = Filled(at, (CURRENT, *minutes))
        self.drop(*event.keys)
        for tell in tuple(self._subscribers.values()):
            try:
                tell(event)
            except Exception:
                log.exception("a subscriber failed at %s", event)

    def on_cost(self) -> None:
        """Drop what a cost changes: the current snapshot."""
        self.drop(CURRENT)

    def subscribe(self, tell: Callable[[Filled], None]) -> Callable[[], object]:
        """Have `tell` called after each fill; calling what is returned ends that."""
        ticket = object()
        self._subscribers[ticket] = tell
        return partial(self._subscribers.pop, ticket, None)

    def _take_off(self, key: str, fetching: Coroutine[Any, Any, Cached]) -> asyncio.Task[Cached]:
        flight = asyncio.create_task(fetching, name=f"cache-fetch {key}")
        self._flights[key] = flight
        self._running.add(flight)
        flight.add_done_callback(partial(self._landed, key))
        return flight

    def _landed(self, key: str, flight: asyncio.Task[Cached]) -> None:
        self._running.discard(flight)
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _fetch(self, key: str, fetch: Fetch, ttl_s: float, stale_s: float) -> Cached:
        there = await self.shared.read(key)
        now = self._clock()
        if there is not None and there.is_fresh(now) and not self._was_overruled(key):
            self._memory.put(key, there, now)
            return Cached(there.value, "fresh", "shared", now - there.stored_at)
        try:
            value = await fetch()
        except Exception as error:
            self._store.errors += 1
            if isinstance(error, PnlError):
                return self._last_good(key, stale_s, error, None if self._was_overruled(key) else there)
            raise
        if value is None:
            self._store.misses += 1
            if not self._was_overruled(key):
                self.drop(key)
            return Cached(None, "missing", "store", 0.0)
        self._store.hits += 1
        if not self._was_overruled(key):
            self._keep(key, value, ttl_s)
        return Cached(value, "fresh", "store", 0.0)

    def _was_overruled(self, key: str) -> bool:
        """Whether a drop or a put came while this flight was under way."""
        return self._flights.get(key) is not asyncio.current_task()

    def _last_good(self, key: str, stale_s: float, error: PnlError, there: Entry | None) -> Cached:
        now = self._clock()
        lasts = ((self._memory, self._memory.last(key)), (self._disk, self._disk.last(key)), (self.shared, there))
        for level, entry in lasts:
            if entry is None or not 0 <= now - entry.stored_at < min(kept_s(key), entry.ttl_s + stale_s):
                continue
            if entry.is_fresh(now):
                return Cached(entry.value, "fresh", level.name, now - entry.stored_at, error)
            level.counts.stale += 1
            return Cached(entry.value, "stale", level.name, now - entry.stored_at, error)
        return Cached(None, "missing", "store", 0.0, error)

    def _keep(self, key: str, value: bytes, ttl_s: float) -> None:
        if type(value) is not bytes:
            raise TypeError(f"the cache keeps bytes, and {key} got {type(value).__name__}")
        if not ttl_s >= 0:
            raise ValueError(f"ttl_s of {key} is {ttl_s}; it is a number of seconds from 0 on")
        now = self._clock()
        entry = Entry(value, now, min(ttl_s, kept_s(key)))
        self._memory.put(key, entry, now)
        self._disk.put(key, entry)
        self.shared.put(key, entry)
