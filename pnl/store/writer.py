"""The thread that owns the one writing connection.

What is appended waits in a queue; the first append after a pause is committed at once, later ones are gathered for
`commit_ms` or `commit_rows`. A future tells when a write is on disk.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import SecretStr

from pnl.config import private_folder
from pnl.errors import StoreError, StoreHeld
from pnl.records import MONEY_FIELDS, Snapshot
from pnl.store.address import Address
from pnl.store.beside import FILE, read_newest
from pnl.store.file import FilePlace
from pnl.store.place import Kind, Place, with_postgres
from pnl.store.retention import Archived, Month, drop_some, due, has_dropped_all, note_archived, oldest_raw
from pnl.store.tables import Change, Recorded

MOST_WAITING = 10_000
RETRY_S = 1.0

type Waiting = tuple[Change, Future[None]]

log = logging.getLogger(__name__)


class Store:
    """The record of one data folder, or of the database at `url`, open for writing by this process alone; `async with`.

    `on_commit` is told of each commit, by the writer's thread: how many seconds it took.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: Kind,
        url: SecretStr | None = None,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        commit_rows: int = 100,
        commit_ms: int = 100,
        on_commit: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._folder = folder
        self._place = FilePlace(folder, kind, synchronous) if url is None else _in_database(url, kind, synchronous)
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._gathered: list[Waiting] = []
        self._stuck_since: float | None = None
        self.lost_to: str | None = None  # the process that records now, after this one had lost its connection
        self._broken: set[str] = set()
        self._thread: threading.Thread | None = None
        self._opened: Future[Recorded] = Future()

    @property
    def path(self) -> Path:
        """The database file, where there is one."""
        return self._folder / FILE

    async def __aenter__(self) -> Self:
        private_folder(self._folder)
        await asyncio.to_thread(self._place.hold)
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write what waits, close, and only then let another process in; blocks for it. Closing twice is fine."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        self._place.release()

    @property
    def waiting(self) -> int:
        """How many changes are not on disk yet."""
        return self._queue.qsize() + len(self._gathered)

    @property
    def stuck_s(self) -> float:
        """For how many seconds a commit has been under way, or failing; 0 while nothing waits for one."""
        since = self._stuck_since
        return 0.0 if since is None else time.perf_counter() - since

    @property
    def recorded(self) -> Recorded:
        """What the store held when it was opened."""
        return self._opened.result()

    def append(self, change: Change) -> Future[None]:
        """Queue a change; the future is done once it is on disk.

        Raises:
            StoreError: By the future: it could not be written. It stays queued, and is written with a later change.
        """
        done: Future[None] = Future()
        self._queue.put((change, done))
        return done

    async def due_months(self, now_ms: int, keep_days: int) -> list[Month]:
        """The months of snapshots that are to be archived, oldest first."""
        with_oldest = await asyncio.to_thread(self._place.look, oldest_raw)
        return list(due(with_oldest, now_ms, keep_days))

    async def retire(self, archived: Archived) -> None:
        """Take a month from its file from now on, and delete its rows, a few at a time.

        Raises:
            StoreError: The file does not hold what is recorded; nothing is deleted.
        """
        await asyncio.wrap_future(self.append(Change(upkeep=note_archived(archived))))
        await self.drop_archived()

    async def drop_archived(self) -> None:
        """Delete the rows that are in the archive, also those that an earlier process left."""
        while await asyncio.to_thread(self._place.look, has_dropped_all) is False:
            await asyncio.wrap_future(self.append(Change(upkeep=drop_some)))

    async def snapshots(self, *, column: str = "net_pnl", limit: int = 1000) -> list[tuple[int, int]]:
        """The last snapshots of one money column: (ms since the epoch, micro-dollars), oldest first."""
        if column not in MONEY_FIELDS:
            raise ValueError(f"{column!r} is no money column; there are {', '.join(MONEY_FIELDS)}")
        query = f"SELECT timestamp, {column}_micros FROM pnl_snapshots ORDER BY timestamp DESC LIMIT ?"  # noqa: S608
        found: list[tuple[int, int]] = await asyncio.to_thread(
            self._place.look, lambda c: c.execute(query, (limit,)).fetchall()
        )
        return found[::-1]

    async def newest(self, sources: Iterable[str]) -> Snapshot | None:
        """The last snapshot, with what it says of these sources; None before the first."""
        return await asyncio.to_thread(self._place.look, lambda connection: read_newest(connection, sources))

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        with ExitStack() as opened:
            try:
                recorded = opened.enter_context(self._place.open_to_write())
            except Exception as error:  # noqa: BLE001 - who waits for the store must hear of it, whatever it was
                self._opened.set_exception(error)
                return
            self._opened.set_result(recorded)
            self._write_until_stopped()

    def _write_until_stopped(self) -> None:
        committed_at = -self._commit_s
        while self._gather(self._gathered, until=committed_at + self._commit_s):
            self._gathered = self._commit(self._gathered)
            committed_at = time.monotonic()
        self._gathered = self._commit(self._gathered)

    def _gather(self, waiting: list[Waiting], until: float) -> bool:
        """Wait for a change, then for more until the next commit is due; False once the store is closing.

        What could not be written is tried again after a while, also when nothing comes.
        """
        timeout = RETRY_S if waiting else None
        is_first = True
        while is_first or len(waiting) < self._commit_rows:
            try:
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                return True
            if item is None:
                return False
            item[1].set_running_or_notify_cancel()  # from here on nobody can cancel it: it is written in any case
            waiting.append(item)
            is_first, timeout = False, max(0.0, until - time.monotonic())
        return True

    def _commit(self, waiting: list[Waiting]) -> list[Waiting]:
        """Write what waits; returns what goes on waiting, for a disk with space or a lock that is let go."""
        try:
            if waiting:
                self._write(waiting)
        except Exception as error:  # whatever it was, who waits must hear of it and the thread must live on
            if isinstance(error, StoreHeld):  # whoever records now has read the same from the sources
                self.lost_to, self._stuck_since = error.holder, None
                self._tell(waiting, error, "that process records now")
                return []
            if self._place.is_passing(error):
                self._tell(waiting, error, "what waits is kept and written later")
                return _at_most(waiting, MOST_WAITING)
            if len(waiting) > 1:  # one of them cannot be held; the others must not wait for it
                return [left for one in waiting for left in self._commit([one])]
            log.exception("a change cannot be written")
            self._broken.update(change.origin for change, _ in waiting)
            self._tell(waiting, error, "it is left out, and its source read again from there at the next start")
        return []

    def _write(self, waiting: Sequence[Waiting]) -> None:
        began = time.perf_counter()
        self._stuck_since = self._stuck_since or began
        self._place.write([change for change, _ in waiting], broken=self._broken)
        self._stuck_since = None
        self._on_commit(time.perf_counter() - began)
        for _, done in waiting:
            if not done.done():
                done.set_result(None)

    def _tell(self, waiting: Sequence[Waiting], error: Exception, then: str) -> None:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        for _, done in waiting:
            if not done.done():
                done.set_exception(StoreError(f"{self._place} cannot be written: {why}; {then}"))


def _in_database(url: SecretStr, kind: Kind, synchronous: Literal["FULL", "NORMAL"]) -> Place:
    with with_postgres():
        from pnl.store.database import DatabasePlace  # noqa: PLC0415 - a part that may be left out
    return DatabasePlace(Address.of(url), kind, synchronous)


def _at_most(waiting: list[Waiting], most: int) -> list[Waiting]:
    """Let go of the oldest snapshots of a queue that grows too long, never of a record."""
    excess = len(waiting) - most
    if excess <= 0:
        return waiting
    log.error("the disk cannot be written for long: the oldest %s snapshots that wait are let go", excess)
    records = [(replace(change, snapshot=None), done) for change, done in waiting[:excess] if change.origin]
    return records + waiting[excess:]
