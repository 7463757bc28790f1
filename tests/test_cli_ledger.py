"""`pnl ledger`: the newest rows for people, all of them for programs, and each mistake in one line."""

import csv
import io
import json
from decimal import Decimal

import pytest
from recording import Bookkeeper, recorded
from test_export import HOSTILE, START, read, records
from typer.testing import CliRunner

from pnl.cli import app
from pnl.cli.ledger import Form
from pnl.errors import HistoryError
from pnl.history.ledger_export import FORMS
from pnl.web.export import CONTENT_TYPES


@pytest.fixture
async def folder(tmp_path, monkeypatch):
    """A data folder with hostile records, and nothing else in the settings."""
    await recorded(tmp_path / "data", Bookkeeper().without_snapshot(START, records()))
    monkeypatch.setenv("PNL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PNL_TIMEZONE", "America/New_York")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["ledger", *arguments], env={"COLUMNS": "120"})


def test_every_format_can_be_asked_for_everywhere():
    """By the page, by the command, and in a notebook."""
    assert set(CONTENT_TYPES) == set(FORMS) == {form.value for form in Form} - {"table"}


def test_the_output_has_all_rows_and_a_file_has_the_same(folder):
    """CSV and JSON as text; every format as a file, by its name."""
    printed = run("--format", "csv", "--filter", "series=KX1", "--term", "fees")
    assert printed.exit_code == 0, printed.output
    rows = list(csv.DictReader(io.StringIO(printed.stdout, newline="")))
    assert {row["series"] for row in rows} == {"KX1"}
    fees = [Decimal(row["fees_usd"]) for row in rows]
    objects = json.loads(run("--format", "json", "--filter", "series=KX1", "--term", "fees").stdout)
    assert [Decimal(row["fees_usd"]) for row in objects] == fees

    done = run("--filter", "series=KX1", "--term", "fees", "--out", str(folder / "l.parquet"))

    assert done.exit_code == 0, done.output
    assert [row["fees_usd"] for row in read(folder / "l.parquet")] == fees
    assert f"{len(fees)} rows in " in done.stderr


def test_a_table_shows_the_newest_rows_and_the_sum_of_all(folder):
    """Texts stay texts: neither a terminal's codes nor markup."""
    done = run("--limit", "3", "--filter", "source=john")

    assert done.exit_code == 0, done.output
    assert f"{len(HOSTILE)} rows, net $243.80" in done.stdout
    assert f"the newest 3 of {len(HOSTILE)} rows" in done.stderr
    everything = run("--limit", "1000").stdout
    assert all(letter.isprintable() or letter == "\n" for letter in everything)
    assert folder.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--filter", "KXBTCD"), "should look like series=KXBTCD"),
        (("--filter", "luck=1"), "no breakdown by 'luck'"),
        (("--term", "luck"), "no term 'luck'"),
        (("--range", "whenever"), "is no range of time"),
        (("--format", "xlsx"), "--out"),
        (("--format", "table", "--out", "x.txt"), "for the screen"),
        (("--out", "x.doc"), "--format"),
        (("--out", "/nowhere/x.csv"), "x.csv cannot be written"),
    ],
)
def test_each_mistake_is_one_line_that_says_what_to_do(folder, arguments, says):
    """And nothing is written."""
    done = run(*arguments)

    assert isinstance(done.exception, HistoryError), done.output
    assert says in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["data"]
