"""What an engine does beside polling: alerts judged, old snapshots archived, reports written, a replica watched."""

import asyncio
import ctypes
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from pnl.alerts import News, Notifier
from pnl.alerts.notify import message, troubles
from pnl.errors import HistoryError, PnlError, StoreError
from pnl.report import Schedule
from pnl.store import Archived, newest_beside

if TYPE_CHECKING:
    from pnl.engine import Engine

RETAIN_S = 6 * 3600
REPORT_S = 30
SUMMARY_S = 60
JUDGE_S = 1.0
REPLICA_S, MOST_BEHIND_S = 5.0, 5.0

type Works = Mapping[str, Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


class Upkeep:
    """The works of one engine that nobody waits for, by name; each goes on whatever fails in it."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.notifier = Notifier(() if engine.is_demo else engine.settings.notify_targets)
        self._schedule = Schedule.of(engine.settings)

    async def aclose(self) -> None:
        """Stop telling of alerts."""
        await self.notifier.aclose()

    def of_every_process(self) -> Works:
        """What a process does whether it records or follows."""
        replica = self._engine.settings.store_read_url
        works = {"summarize": self._summarize(), "judge": self._judge(), "check-targets": self._check_targets()}
        return works if replica is None else works | {"watch-replica": self._watch_replica(replica)}

    def of_who_records(self) -> Works:
        """What one process does for all that follow it."""
        works = {"retain": self._retain()}
        return works if self._schedule is None else works | {"report": self._report()}

    async def _summarize(self) -> None:
        """Log once a minute where the time went, and give back the memory that pages left behind."""
        while True:
            await asyncio.sleep(SUMMARY_S)
            if summary := self._engine.metrics.spans.summary():
                log.info("where the time went: %s", summary)
            await asyncio.to_thread(_give_back_memory)

    async def _judge(self) -> None:
        """Once a second, whatever comes: some alerts are of what does not. The process that records tells of them."""
        while True:
            try:
                with self._engine.metrics.spans("judge"):
                    news = self._engine.alerts.look(self._engine.model, datetime.now(UTC))
                if self._engine.is_recording:
                    await self._tell(news)
            except Exception:
                log.exception("the alerts could not be judged")
            await asyncio.sleep(JUDGE_S)

    async def _check_targets(self) -> None:
        for trouble in await asyncio.to_thread(troubles, self.notifier.targets):
            log.warning("%s", trouble)

    async def _watch_replica(self, url: SecretStr) -> None:
        """Say on the pages how old the history is that a replica answers, should it be old."""
        while True:
            await asyncio.sleep(REPLICA_S)
            try:
                self._engine.remark("replica", await self._said_of_replica(url))
            except Exception:
                log.exception("the replica could not be looked at")

    async def _said_of_replica(self, url: SecretStr) -> str | None:
        shown, settings = self._engine.model.snapshot, self._engine.settings
        try:
            newest = await asyncio.to_thread(newest_beside, settings.data_dir, url, self._engine.kind)
        except StoreError:
            return "The history cannot be asked now: its replica (PNL_STORE_READ_URL) does not answer."
        if shown is None or newest is None or not shown.is_worth_recording:
            return None
        behind_s = (shown.taken_at - newest.taken_at).total_seconds()
        says = f"The history ends {behind_s:.0f} s before the newest number: a replica (PNL_STORE_READ_URL) answers it."
        return says if behind_s > MOST_BEHIND_S else None

    async def _tell(self, news: Sequence[News]) -> None:
        """Remember it first: a crash between the two then takes a message, and the page still says it."""
        try:
            if self._engine.alerts.is_to_be_kept:
                await asyncio.to_thread(self._engine.alerts.keep)
        except OSError as error:
            if news:  # else it was said already, and is tried again each second
                log.warning("a restart would tell of this alert again, the disk cannot be written: %s", error.strerror)
        for each in news:
            self.notifier.send(*message(each, is_simulated=self._engine.settings.is_simulated))

    async def _retain(self) -> None:
        """Move months of old snapshots into the archive, now and then."""
        while True:
            try:
                await self.retain()
            except (HistoryError, StoreError) as error:
                log.warning("old snapshots stay where they are: %s", error)
            except Exception:
                log.exception("old snapshots stay where they are")
            await asyncio.sleep(RETAIN_S)

    async def retain(self) -> None:
        """Move the months of snapshots that are old enough into the archive.

        Raises:
            HistoryError: A file cannot be written.
            StoreError: A file does not hold what is recorded, or the store cannot be written.
        """
        store, history = self._engine.store, self._engine.history
        await store.drop_archived()
        now_ms = time.time_ns() // 1_000_000
        for month in await store.due_months(now_ms, self._engine.settings.raw_days):
            written = await history.archive(month.name, start_ms=month.start_ms, until_ms=month.until_ms)
            await store.retire(Archived(month.name, month.until_ms, **written))

    async def _report(self) -> None:
        """Write each report once it is due; the first look waits until the sources had time to answer."""
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                await self.report_if_due(datetime.now(UTC))
            except PnlError as error:
                log.warning("the report that is due is not written: %s", error)
            except Exception:
                log.exception("the report that is due is not written")

    async def report_if_due(self, now: datetime) -> Path | None:
        """Write the report that should be there by now; returns its file, None if there is nothing to do.

        Raises:
            HistoryError: The history cannot be asked.
            ReportError: The file cannot be written.
        """
        due = None if self._schedule is None else self._schedule.due(now)
        if self._schedule is None or due is None:
            return None
        engine, sources = self._engine, tuple(self._engine.model.readings)
        await self._schedule.write(engine.history, due, now=now, kind=engine.kind_of_numbers, sources=sources)
        log.info("report: %s", due.path.name)
        return due.path


def _give_back_memory() -> None:
    """Freed memory stays with the process otherwise: glibc keeps what each thread that built a page once had."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
