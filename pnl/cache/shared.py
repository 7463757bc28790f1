"""The level of the cache that processes share, in Redis or Valkey, and what they tell each other there.

One process writes: the one that records. It says on a channel, after each commit and every second, which generation its
rows are of. Rows are believed while they are of the generation that was heard last, on a connection that has not
broken since. A server that was away, or a process that could not reach it, may have missed a drop; the writer begins a
new generation then, and what was there before is of no use to anybody.

The server's clock tells how old a row is, from the time that it still has to live: machines' clocks differ.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from pnl.cache.keys import kept_s
from pnl.cache.link import Link
from pnl.cache.memory import Entry, Level
from pnl.cache.row import LARGEST_BYTES, Refused, pack, unpack

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline, PubSub

VERSION = 1
"""Of the rows and of what is told; programs of different versions do not see each other's."""

READ_WAITS_S = 0.1
SAY_S = 1.0
BELIEVED_S = 3.0
CLOSE_WAITS_S = 0.5
NOT_THERE = -2
MOST_QUEUED, MOST_TOGETHER = 1000, 50

_STAMP = struct.Struct(">8sI")  # its generation, ms that it is fresh
_GENERATION = struct.Struct(">Q")  # ns since the epoch when it began, so that a later one is greater

log = logging.getLogger("pnl.cache")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the shared level is.

    `space` keeps programs apart that use one server: those with the same one share their values. `writes` is true for
    one process of them at a time. `on_change` is called, on the event loop, when the server is lost, with why, and with
    None when it is back.
    """

    url: SecretStr
    space: str
    writes: bool
    on_change: Callable[[str | None], None] = field(default=lambda _trouble: None)


class Shared:
    """Rows on a server that may be away at any time: then all is a miss, nothing is written, and nobody waits."""

    name: Literal["shared"] = "shared"

    def __init__(self, server: Server | None, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._writes = server is not None and server.writes
        self._prefix = f"pnl:{VERSION}:{server.space if server else ''}:"
        self._channel = f"{self._prefix}commits"
        self._link = None if server is None else Link(server.url, self._work, on_change=server.on_change)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._redis: Redis | None = None  # None: it is not there now
        self._generation, self._heard_at = b"", 0.0
        self._queued: dict[str, Entry | None] = {}  # None: to be dropped
        self._writing: dict[str, Entry | None] = {}
        self._has_news, self._has_heard, self._is_written = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_written.set()
        self.counts = Level()

    async def open(self) -> None:
        """Connect, or find out that the server is not there."""
        if self._link is not None:
            self._loop = asyncio.get_running_loop()
            await self._link.open()

    async def aclose(self) -> None:
        """Write what is queued, if that is possible soon, and close; twice is fine."""
        if self._link is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.flush(), CLOSE_WAITS_S)
            await self._link.aclose()

    async def flush(self) -> None:
        """Wait until nothing is queued."""
        await self._is_written.wait()

    @property
    def is_set(self) -> bool:
        """Whether there is such a level at all."""
        return self._link is not None

    @property
    def trouble(self) -> str | None:
        """Why the server is not there now, in words; None while it is, or where there is none."""
        return None if self._link is None else self._link.trouble

    @property
    def waiting(self) -> int:
        """How many keys are not written yet."""
        return len(self._queued) + len(self._writing)

    async def read(self, key: str) -> Entry | None:
        """The last value, however old; None also when the server does not answer at once."""
        if self._redis is None or not self._is_believed():
            return None
        entry = await self._read(self._redis, key)
        is_hit = entry is not None and entry.is_fresh(self._clock())
        self.counts.hits += is_hit
        self.counts.misses += not is_hit
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Queue a value."""
        self._queue({key: entry if len(entry.value) <= LARGEST_BYTES else None})

    def drop(self, keys: Iterable[str]) -> None:
        """Forget keys at once, and queue that they are deleted."""
        self._queue(dict.fromkeys(keys))

    def tell(self) -> None:
        """Say to the others that something was recorded; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(self._has_news.set)

    async def heard(self, within_s: float) -> None:
        """Wait until another process has said something, but no longer than so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_heard.wait(), within_s)
        self._has_heard.clear()

    def _queue(self, entries: Mapping[str, Entry | None]) -> None:
        if self._redis is None or not self._writes:
            return
        is_full = len(self._queued) >= MOST_QUEUED
        for key, entry in entries.items():
            self._queued[key] = None if is_full else entry  # the row before it is wrong in any case
        self._is_written.clear()
        self._has_news.set()

    def _is_believed(self) -> bool:
        return bool(self._generation) and (self._writes or self._clock() - self._heard_at < BELIEVED_S)

    async def _read(self, redis: "Redis", key: str) -> Entry | None:
        for not_there_yet in (self._queued, self._writing):
            if key in not_there_yet:
                return not_there_yet[key]
        asked_at, generation = self._clock(), self._generation
        try:
            async with asyncio.timeout(READ_WAITS_S):
                left_ms, row = await self._ask(redis, key)
            if self._redis is redis and self._generation == generation:
                return _entry(key, row, left_ms, generation, asked_at)
        except Refused as error:  # a row that nobody here has written
            self.counts.errors += 1
            log.warning("the shared cache has a row that is not read: %s", error)
            self.drop([key])
        except Exception:  # noqa: BLE001 - whatever it was, it is a miss; who writes or listens finds out what it was
            self.counts.errors += 1
        return None

    async def _ask(self, redis: "Redis", key: str) -> tuple[Any, Any]:
        async with redis.pipeline(transaction=False) as questions:
            questions.pttl(self._prefix + key)  # first: a row that is replaced between the two must not look younger
            questions.get(self._prefix + key)
            left_ms, row = await questions.execute(raise_on_error=False)
        return left_ms, row

    async def _work(self, redis: "Redis") -> None:
        """Listen, and write if it is ours to write, until the connection breaks."""
        try:
            await redis.ping()  # it says why it refuses, which to subscribe does not
            async with redis.pubsub(ignore_subscribe_messages=True) as ears:
                await ears.subscribe(self._channel)
                self._begin(redis)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen(redis, ears))  # who writes hears at once that the server is gone
                    if self._writes:
                        tasks.create_task(self._write(redis))
        finally:
            self._end()

    def _begin(self, redis: "Redis") -> None:
        self._generation = _GENERATION.pack(time.time_ns()) if self._writes else b""
        self._redis = redis
        if self._link is not None:
            self._link.reached()

    def _end(self) -> None:
        self._redis, self._generation = None, b""
        self._queued, self._writing = {}, {}
        self._is_written.set()

    async def _listen(self, redis: "Redis", ears: "PubSub") -> None:
        while True:
            message = await ears.get_message(ignore_subscribe_messages=True, timeout=SAY_S)
            if message is None:
                await redis.ping()  # a server that is gone without a word says nothing either
            elif not self._writes:
                self._hear(message["data"])

    def _hear(self, said: object) -> None:
        """Take note of the generation; one that is older than the last comes late, unless that one fell silent."""
        if not isinstance(said, bytes) or len(said) != _GENERATION.size:
            return
        if said >= self._generation or not self._is_believed():
            self._generation, self._heard_at = said, self._clock()
        self._has_heard.set()

    async def _write(self, redis: "Redis") -> None:
        while True:
            self._has_news.clear()
            async with redis.pipeline(transaction=False) as together:
                self._take_queued(together)
                together.publish(self._channel, self._generation)
                await together.execute()
            self._writing = {}
            if self._queued:
                continue
            self._is_written.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), SAY_S)

    def _take_queued(self, together: "Pipeline") -> None:
        now = self._clock()
        self._writing = dict(islice(self._queued.items(), MOST_TOGETHER))
        for key, entry in self._writing.items():
            del self._queued[key]
            left_ms = 0 if entry is None else round(1000 * (entry.stored_at + kept_s(key) - now))
            if entry is None or left_ms <= 0:
                together.delete(self._prefix + key)
            else:
                stamp = _STAMP.pack(self._generation, round(1000 * entry.ttl_s))
                together.set(self._prefix + key, pack(key, stamp, entry.value), px=left_ms)


def _entry(key: str, row: object, left_ms: object, generation: bytes, asked_at: float) -> Entry | None:
    """What a row holds; None if there is none, or it is of another generation.

    Raises:
        Refused: It is no row of this cache.
    """
    if row is None or left_ms == NOT_THERE:
        return None
    kept_ms = 1000 * kept_s(key)
    if not isinstance(row, bytes) or not isinstance(left_ms, int) or not 0 <= left_ms <= kept_ms:
        raise Refused("it is no text, or is kept for longer than it may be")
    stamp, value = unpack(key, row, _STAMP.size)
    of_generation, ttl_ms = _STAMP.unpack(stamp)
    if of_generation != generation:
        return None
    return Entry(value, asked_at - (kept_ms - left_ms) / 1000, min(ttl_ms, kept_ms) / 1000)
