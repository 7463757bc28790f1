"""The commands that read the history: what they print adds up, and each mistake is one line."""

import asyncio
import csv
import io
import json
from decimal import Decimal

import pytest
from test_store import EVERYTHING, NOW, record, snapshot
from typer.testing import CliRunner

from pnl.cli import app
from pnl.errors import ConfigError, HistoryError
from pnl.store import Change, Store

COLUMNS = ["bucket_start", "open", "high", "low", "close", "count"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with a few snapshots and records, and nothing else in the settings."""

    async def fill():
        async with Store(tmp_path, kind="real") as store:
            await record(store, *[Change(snapshot(1000 * n, -(n**2))) for n in range(100)])
            await record(store, Change(snapshot(200_000, 5), "kalshi", EVERYTHING, NOW))

    asyncio.run(fill())
    monkeypatch.setenv("PNL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PNL_TIMEZONE", "UTC")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def bars(*arguments):
    done = run("history", *arguments)
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_bars_are_exact_and_the_same_in_every_format(folder):
    """Text of US dollars in CSV and JSON, decimals in Parquet."""
    rows = bars("--bucket", "10s")

    assert list(rows[0]) == COLUMNS
    recorded = [row for row in rows if row["bucket_start"] >= f"{NOW:%Y-%m-%dT%H:%M}"]
    assert sum(int(row["count"]) for row in recorded) == 101
    assert Decimal(recorded[-1]["close"]) == snapshot(200_000, 5).net_pnl
    assert json.loads(run("history", "--bucket", "10s", "--format", "json").stdout) == [
        {**row, "count": int(row["count"])} for row in rows
    ]
    done = run("history", "--bucket", "10s", "--format", "parquet", "--out", str(folder / "bars.parquet"))
    assert done.exit_code == 0
    assert (folder / "bars.parquet").read_bytes()[:4] == b"PAR1"
    assert not (folder / "bars.parquet.part").exists()


def test_a_long_range_comes_in_pieces_and_is_the_same(folder):
    """A month at a time, without a bar twice or lost at the edges."""
    pieces = bars("--bucket", "1h")
    days = bars("--bucket", "1d")

    assert sum(int(row["count"]) for row in pieces) == sum(int(row["count"]) for row in days)
    assert len({row["bucket_start"] for row in pieces}) == len(pieces)
    assert folder.exists()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("history", "--bucket", "7m"), HistoryError, "there is no bucket '7m'"),
        (("history", "--range", "whenever"), HistoryError, "is no range of time"),
        (("history", "--from", "2026-07", "--to", "2026-05"), HistoryError, "ends before it begins"),
        (("history", "--range", "7d", "--from", "2026-07"), HistoryError, "type one of them"),
        (("history", "--column", "profit"), HistoryError, "there is no money column 'profit'"),
        (("history", "--format", "parquet"), HistoryError, "--out"),
        (("history", "--format", "parquet", "--out", "/nowhere/x.parquet"), HistoryError, "cannot be written"),
        (("sql", "SELEC 1"), HistoryError, "syntax error"),
        (("sql", "DELETE FROM chain"), HistoryError, "one SELECT"),
        (("sql", "SELECT * FROM sqlite_scan('/etc/passwd', 'x')"), HistoryError, "sqlite_scan cannot be used"),
        (("sql", "SELECT * FROM read_csv('/etc/passwd')"), HistoryError, "read_csv cannot be used"),
        (("sql", "--seconds", "0.2", "SELECT count(*) FROM range(1000000000000)"), HistoryError, "longer than 0.2 s"),
    ],
)
def test_each_mistake_is_one_line_that_says_what_to_do(folder, arguments, error, says):
    """And nothing is written or changed."""
    done = run(*arguments)

    assert isinstance(done.exception, error), done.output
    assert says in str(done.exception)
    assert folder.exists()


def test_where_nothing_is_recorded_it_is_said(tmp_path, monkeypatch):
    """With what to do about it, once there is a source."""
    monkeypatch.setenv("PNL_DATA_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("PNL_JOHN_URL", str(tmp_path / "deals.csv"))

    done = run("history")

    assert isinstance(done.exception, HistoryError)
    assert "nothing is recorded in" in str(done.exception)


def test_sql_shows_what_it_finds_as_text(folder):
    """Markup in a title is shown, not followed; more rows than wanted are counted as such."""
    found = json.loads(
        run("sql", "--json", "--rows", "2", "SELECT timestamp, '[red]x[/red]' AS a FROM pnl_snapshots").stdout
    )
    assert (found["columns"], len(found["rows"]), found["is_cut"]) == (["timestamp", "a"], 2, True)

    assert "[red]x[/red]" in run("sql", "SELECT '[red]x[/red]'").stdout
    assert folder.exists()


def test_a_title_cannot_give_the_terminal_orders(folder):
    """The codes that move its cursor, set its title or its colours are shown as what they are: no letters."""
    shown = run("sql", "SELECT 'a' || chr(27) || ']0;owned' || chr(7) || chr(155) || '2Jb' AS title").stdout

    assert "a�]0;owned��2Jb" in shown
    assert folder.exists()


def test_the_doctor_says_what_there_is_and_shows_no_secret(folder, monkeypatch):
    """A file that others can read is pointed out, and the exit code says so."""
    monkeypatch.setenv("PNL_JOHN_TOKEN", "canary-4711")
    (folder / "pnl.seal").chmod(0o644)

    done = run("doctor")

    assert done.exit_code == 1
    assert "canary-4711" not in done.stdout
    for told in ("kalshi: fills", "newest snapshot", "drift", "chmod 600", "Speed of the history"):
        assert told in done.stdout


def test_a_setting_that_makes_no_sense_stops_before_anything_is_read(folder, monkeypatch):
    """By its name."""
    monkeypatch.setenv("PNL_TIMEZONE", "Mars/Olympus")

    done = run("history")

    assert isinstance(done.exception, ConfigError)
    assert "PNL_TIMEZONE" in str(done.exception)
    assert folder.exists()


@pytest.mark.parametrize("by", ["source", "market", "event", "series", "day", "month"])
def test_a_period_is_its_parts_to_the_last_digit(folder, by):
    """The same figures as the page's, for people and as JSON."""
    done = run("period", "--range", "all", "--by", by, "--json")

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert sum(Decimal(part["net_pnl"]) for part in found["parts"]) == Decimal(found["net_pnl"])
    terms = {name: Decimal(found[name]) for name in ("trading", "fees", "costs", "revenue")}
    assert terms["trading"] - terms["fees"] - terms["costs"] + terms["revenue"] == Decimal(found["net_pnl"])
    assert found["before"] is None
    assert folder.exists()


def test_a_period_is_shown_beside_the_one_before_it(folder):
    """With the deepest falls."""
    done = run("period", "--range", f"{NOW:%Y-%m}", "--by", "source")

    assert done.exit_code == 0, done.output
    assert "the one before" in done.stdout
    assert "Deepest falls" in done.stdout
    assert folder.exists()


def test_a_breakdown_that_there_is_not_is_named(folder):
    """With those that there are."""
    assert isinstance(run("period", "--by", "nonsense").exception, HistoryError)
    assert folder.exists()
