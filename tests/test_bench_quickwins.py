"""`pnl bench quickwins`: every promise is tried both ways, and a false one is called so."""

import json

import pytest
from rich.console import Console

from pnl.bench.quickwins import WINS, Tried, as_table, quickwins

VERDICTS = {"holds", "false here: less than claimed", "false here: no gain", "false here: a loss"}
PARTS = {"claim", "claimed_ratio", "measured_ratio", "verdict"}
EIGHT = {
    "wal",
    "indexes",
    "local_cache",
    "batch_writes",
    "parallel_calls",
    "delta",
    "memoisation",
    "connection_pooling",
}


def test_every_win_has_both_figures_and_a_verdict(capsys):
    """One flat JSON object; none of the eight is left out."""
    quickwins(rounds=1, rows=1000, as_json=True)

    figures = json.loads(capsys.readouterr().out)
    assert {win.name for win in WINS} >= EIGHT
    assert not any(isinstance(value, dict | list) for value in figures.values())
    assert figures["delta_on_bytes"] < figures["delta_off_bytes"]  # bytes are the same on any machine
    for win in WINS:
        expected = {*PARTS, f"off_{win.unit}", f"on_{win.unit}"}
        found = {part: figures.pop(f"{win.name}_{part}") for part in expected}
        assert min(found[f"off_{win.unit}"], found[f"on_{win.unit}"], found["measured_ratio"]) > 0
        assert found["verdict"] in VERDICTS
        assert found["claimed_ratio"] >= 1
    assert figures == {}


def tried(name, ratio):
    win = next(win for win in WINS if win.name == name)
    return Tried(win, off=ratio, on=1.0, ratio=ratio)


@pytest.mark.parametrize(
    ("name", "ratio", "verdict"),
    [
        ("wal", 3.0, "holds"),
        ("wal", 2.9, "false here: less than claimed"),
        ("wal", 1.05, "false here: no gain"),
        ("wal", 0.95, "false here: no gain"),
        ("wal", 0.5, "false here: a loss"),
        ("memoisation", 1.05, "false here: no gain"),
        ("memoisation", 1.2, "holds"),
    ],
)
def test_a_claim_holds_or_is_false_here(name, ratio, verdict):
    """Where no figure was promised, any gain that is more than noise will do."""
    assert tried(name, ratio).verdict == verdict


def test_the_table_puts_what_was_claimed_beside_what_was_measured():
    """And says plainly what is not true."""
    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_table([tried("wal", 2.0), tried("delta", 12.0)]))

    wal, delta = (line for line in shown.get().splitlines() if "wal" in line or "delta" in line)
    assert "3x faster writes" in wal
    assert "2x" in wal
    assert "false here: less than claimed" in wal
    assert "holds" in delta
    assert "12 B" in delta
