"""Reports by themselves: written once when due or missed, whole, for their owner alone; a wrong schedule is named."""

import stat
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from recording import KIND, Bookkeeper, instant, recorded
from test_report import NOW, business

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import ConfigError, ReportError
from pnl.history.client import History
from pnl.report import Schedule, write_whole
from pnl.simulator.demo import demo_settings

NEW_YORK = ZoneInfo("America/New_York")
MONDAYS = "0 7 * * 1"


def schedule(folder, cron=MONDAYS, within="week-1"):
    return Schedule(cron, within, folder, NEW_YORK)


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_report_is_due_until_its_file_is_there(tmp_path):
    """Its name tells the period and the instant, by the wall clock."""
    due = schedule(tmp_path).due(instant("2026-11-23 07:00:01"))

    assert due.at == instant("2026-11-23 07:00")
    assert (due.range.start, due.range.end) == (instant("2026-11-16"), instant("2026-11-23"))
    assert due.path == tmp_path / "pnl-report-week-1-2026-11-23-0700.html"
    due.path.touch()
    assert schedule(tmp_path).due(instant("2026-11-24 12:00")) is None
    assert schedule(tmp_path).due(instant("2026-11-30 07:01")).at == instant("2026-11-30 07:00")


def test_one_that_was_missed_is_due_with_the_period_that_it_should_have_had(tmp_path):
    """Of several, the last one; a period up to now ends when the report was due."""
    due = schedule(tmp_path, within="7d").due(instant("2026-12-09 23:00"))

    assert due.at == instant("2026-12-07 07:00")
    assert (due.range.start, due.range.end) == (instant("2026-12-01"), due.at)


@pytest.mark.parametrize(
    ("now", "at"),
    [
        ("2026-03-08 12:00", "2026-03-08T03:00:00-04:00"),  # there was no 02:30
        ("2026-11-01 12:00", "2026-11-01T02:30:00-05:00"),
    ],
)
def test_the_wall_clock_counts_when_clocks_change(tmp_path, now, at):
    """A time that is skipped comes as soon as it can."""
    assert schedule(tmp_path, "30 2 * * *").due(instant(now).astimezone(UTC)).at == datetime.fromisoformat(at)


def test_a_time_that_comes_twice_brings_one_report(tmp_path):
    """The night in which clocks are set back has one file."""
    first = datetime(2026, 11, 1, 5, 31, tzinfo=UTC)  # 01:31 for the first time
    paths = {schedule(tmp_path, "30 1 * * *").due(now).path for now in (first, first + timedelta(hours=1))}

    assert len(paths) == 1


@pytest.mark.parametrize("cron", ["7 Uhr", "* * * *", "0 7 * * 1 *", "61 7 * * *", "@daily"])
def test_a_schedule_that_makes_no_sense_is_named(monkeypatch, cron):
    """With one that does."""
    monkeypatch.setenv("PNL_REPORT_CRON", cron)

    with pytest.raises(ConfigError, match=r"PNL_REPORT_CRON: should be five fields .* 0 7 \* \* 1"):
        load_settings()


def test_a_period_that_makes_no_sense_is_named(tmp_path, monkeypatch):
    """Before anything is opened."""
    monkeypatch.setenv("PNL_REPORT_CRON", MONDAYS)
    monkeypatch.setenv("PNL_REPORT_RANGE", "whenever")

    with pytest.raises(ConfigError, match="PNL_REPORT_RANGE: 'whenever' is no range"):
        Engine(load_settings(data_dir=tmp_path))


def test_without_a_schedule_there_is_none(tmp_path):
    """Nothing is written by itself."""
    assert Schedule.of(load_settings(data_dir=tmp_path)) is None


async def test_a_report_is_written_once_whole_and_for_its_owner(tmp_path):
    """A deleted one does not come back."""
    books, folder = Bookkeeper(), tmp_path / "reports"
    trading, _, _ = business()
    path = await recorded(tmp_path / "data", books.change(NOW, trading))
    mine = schedule(folder, "0 7 * * *", "day-1")
    async with History(path, kind=KIND, zone="America/New_York", deadline_s=120) as history:
        due = mine.due(instant("2026-11-21 09:00"))
        await mine.write(history, due, now=instant("2026-11-21 09:00"))

    assert names(folder) == ["pnl-report-day-1-2026-11-21-0700.html"]
    assert stat.S_IMODE(due.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert due.path.read_text().rstrip().endswith("</html>")
    due.path.unlink()
    assert mine.due(instant("2026-11-21 10:00")) is None


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    """Not half of the new one."""
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"report\.html cannot be written"):
        write_whole(tmp_path / "report.html", "new")
    with pytest.raises(ReportError, match="cannot be written"):
        write_whole(tmp_path / "nowhere" / "report.html", "new")

    assert names(tmp_path) == ["report.html"]


async def test_the_engine_writes_the_report_that_is_due(tmp_path, simulator, clock):
    """Into the data folder unless told otherwise, marked as what it is."""
    settings = demo_settings(load_settings(data_dir=tmp_path, report_cron="0 7 * * *"), simulator)
    async with Engine(settings) as engine:
        await engine.sync()
        await engine.warm_history()
        written = await engine.upkeep.report_if_due(clock())
        again = await engine.upkeep.report_if_due(clock())

    assert written.parent == settings.data_dir / "reports"
    assert written.name == "pnl-report-7d-2026-11-21-0700.html"
    assert "SIMULATED" in written.read_text()
    assert again is None
