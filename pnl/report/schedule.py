"""When a report is due by itself, and writing it then."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from pnl.config import Settings
from pnl.errors import ConfigError, HistoryError
from pnl.history.client import History
from pnl.history.ranges import Range, parse_range
from pnl.report.facts import OWN, Asked
from pnl.report.file import file_name, write_whole
from pnl.report.page import report_html

FOLDER = "reports"


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is to be there: since when, its period, and its file."""

    at: datetime
    range: Range
    path: Path


class Schedule:
    """The reports that are written by themselves, into one folder.

    A report is due at an instant by the wall clock, and there if a file with that instant in its name is. So one that
    was missed is written once the program runs again, of the same period; of several that were missed, the last one.

    Args:
        cron: Five fields.
        within: The period, as `parse_range` takes it; one that goes up to now ends when the report is due.
        folder: Made when the first report is written.
        zone: Whose wall clock the five fields mean.

    Raises:
        ConfigError: The period makes no sense.
    """

    def __init__(self, cron: str, within: str, folder: Path, zone: tzinfo) -> None:
        self._cron = cron
        self._within = within
        self._folder = folder
        self._zone = zone
        self._written: Path | None = None
        try:
            self._range(datetime.now(UTC))
        except HistoryError as error:
            raise ConfigError(f"PNL_REPORT_RANGE: {error}") from error

    @classmethod
    def of(cls, settings: Settings) -> "Schedule | None":
        """The one of the settings, None if there is none."""
        if settings.report_cron is None:
            return None
        folder = settings.report_dir or settings.data_dir / FOLDER
        return cls(settings.report_cron, settings.report_range, folder, settings.zone)

    def due(self, now: datetime) -> Due | None:
        """The last report that should be there by now; None if it is."""
        from croniter import croniter  # noqa: PLC0415 - its import starts another program

        at: datetime = croniter(self._cron, now.astimezone(self._zone)).get_prev(datetime)
        due = Due(at, self._range(at), self._folder / file_name(self._range(at), at, self._zone))
        return None if due.path == self._written or due.path.exists() else due

    def _range(self, at: datetime) -> Range:
        found = parse_range(self._within, zone=self._zone, now=at)
        return replace(found, end=at) if found.is_live else found

    async def write(
        self, history: History, due: Due, *, now: datetime, kind: str = "", sources: tuple[str, ...] = OWN
    ) -> None:
        """Write a report that is due.

        Raises:
            HistoryError: The history cannot be asked.
            ReportError: The file cannot be written.
        """
        asked = Asked(range=due.range, zone=self._zone, written_at=now, kind=kind, sources=sources)
        html = await report_html(history, asked)
        await asyncio.to_thread(write_whole, due.path, html, makes_folder=True)
        self._written = due.path  # whoever deletes it does not want it back
