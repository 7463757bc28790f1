"""`pnl bench latency`: how the panel's table is read, and that in a real run no row is without a figure."""

import json

import pytest
import typer
from browsing import require_chromium

from pnl.bench.latency import as_table, is_measured, latency, parsed
from pnl.metrics import CHECKLIST, Checklist
from pnl.views.timings import checklist_fields


def test_the_table_is_read_back_as_it_was_written():
    """Names, figures and verdicts; a row without figures has none."""
    checklist = Checklist()
    checklist.observe("db_insert", 1.5)
    checklist.observe("aggregation", 0.002)

    rows = parsed(checklist_fields(checklist)["past.checklist"])

    assert list(rows) == list(CHECKLIST)
    assert rows["db_insert"] == {
        "title": "DB insert",
        "target_ms": 50,
        "own_target_ms": 5,
        "p50_ms": 1500,
        "p95_ms": 1500,
        "p99_ms": 1500,
        "verdict": "missed",
        "own_verdict": "missed",
    }
    assert rows["aggregation"]["p95_ms"] == 2
    assert rows["network"]["own_target_ms"] is rows["network"]["own_verdict"] is None
    assert [name for name, row in rows.items() if is_measured(row)] == ["aggregation", "db_insert"]


def test_people_see_every_row_and_why_one_has_no_figure():
    """Measured or not."""
    rows = parsed(checklist_fields(Checklist())["past.checklist"])
    rows["render"]["why"] = "no browser"

    table = as_table(rows)

    assert table.row_count == len(CHECKLIST)
    verdicts = list(table.columns[5].cells)
    assert verdicts.count("not measured yet: no browser") == 1
    assert verdicts.count("not measured yet") == len(CHECKLIST) - 1


def run(capsys):
    """What a real run prints for programs, and its exit code."""
    with pytest.raises(typer.Exit) as ended:
        latency(seconds=1, as_json=True)
    return json.loads(capsys.readouterr().out), ended.value.exit_code


def test_in_a_real_run_every_row_has_figures(capsys):
    """From the answer of an API to the browser that painted it."""
    require_chromium()
    rows, code = run(capsys)

    assert code == 0
    assert list(rows) == list(CHECKLIST)
    for name, row in rows.items():
        assert 0 <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"], name
        assert row["verdict"] in {"met", "missed"}, name
        assert (row["own_target_ms"] is None) == (row["own_verdict"] is None), name
        assert "why" not in row


def test_without_a_browser_its_rows_say_so_and_the_others_are_measured(capsys, monkeypatch):
    """What is not measured is no success."""
    monkeypatch.setenv("PATH", "/nowhere")
    rows, code = run(capsys)

    assert code == 1
    assert {name for name, row in rows.items() if not is_measured(row)} == {"network", "render", "total"}
    for name in ("network", "render", "total"):
        assert rows[name]["verdict"] == "not measured yet"
        assert "apt-get install chromium" in rows[name]["why"]
