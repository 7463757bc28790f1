"""The checker of the chaos measurement finds what must not be, and the measurement runs to its end."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import islice

import pytest
import typer
from conftest import NOW
from typer.testing import CliRunner

from pnl.bench.chaos import POLLS_IN_FAULT, Checker, Illness, chaos, schedule
from pnl.model import PnLModel
from pnl.records import MONEY_FIELDS, Reading, Snapshot, State
from pnl.simulator.faults import FAULTS
from pnl.simulator.front import SOURCES

FRESH = Reading("john", State.FRESH, as_of=NOW)
SNAPSHOT = Snapshot(
    taken_at=NOW,
    kalshi_realized=Decimal("10.5"),
    kalshi_unrealized=Decimal("-2.25"),
    kalshi_fees=Decimal("0.75"),
    billed_costs=Decimal(3),
    estimated_costs=Decimal(1),
    total_revenue=Decimal(20),
    trade_count=2,
    open_trade_count=1,
    settled_market_count=1,
    sources=(FRESH,),
    sequence=1,
)
MICROS = [int(getattr(SNAPSHOT, name) * 1_000_000) for name in MONEY_FIELDS]


@pytest.fixture
def checker():
    """A checker beside an empty record."""
    with closing(sqlite3.connect(":memory:")) as record:
        columns = ", ".join(f"{name}_micros INTEGER" for name in MONEY_FIELDS)
        record.execute(f"CREATE TABLE pnl_snapshots (timestamp INTEGER, {columns})")
        yield Checker(PnLModel(), Counter(), record)


def record(checker, money=MICROS):
    """Put a row into the record, at the time of the snapshot."""
    row = ", ".join(map(str, (round(NOW.timestamp() * 1000), *money)))
    checker.reader.execute(f"INSERT INTO pnl_snapshots VALUES ({row})")


def test_a_snapshot_that_is_recorded_adds_up_and_is_whole_is_no_violation(checker):
    """The good case, for the others to differ from."""
    record(checker)

    checker.model.show(SNAPSHOT)

    assert (checker.shown, checker.violations) == (1, [])


def test_a_snapshot_that_is_shown_as_recorded_and_is_not_is_lost(checker):
    """Unless it says itself that it is not recorded."""
    checker.model.show(replace(SNAPSHOT, is_recorded=False))
    assert checker.lost_rows == 0

    checker.model.show(replace(SNAPSHOT, sequence=2))
    assert checker.lost_rows == len(checker.violations) == 1


@pytest.mark.parametrize("column", range(len(MONEY_FIELDS)))
def test_a_micro_dollar_more_on_disk_is_a_wrong_total(checker, column):
    """In any column."""
    record(checker, [value + (number == column) for number, value in enumerate(MICROS)])

    checker.model.show(SNAPSHOT)

    assert checker.wrong_totals == len(checker.violations) == 1


def test_a_total_that_hides_a_fault_is_a_silent_partial(checker):
    """Once a few polls of the source have ended in it."""
    record(checker)
    checker.ill["john"] = Illness(FAULTS["server_error"], ended=POLLS_IN_FAULT)

    checker.model.show(SNAPSHOT)
    assert checker.silent_partials == len(checker.violations) == 1

    checker.model.show(replace(SNAPSHOT, sources=(replace(FRESH, state=State.STALE),), sequence=2))
    assert checker.silent_partials == 1


def test_a_source_that_grows_younger_or_is_from_the_future_is_noticed(checker):
    """Its age counts from its last good answer."""
    record(checker)
    checker.ill["john"] = Illness(FAULTS["server_error"], ended=POLLS_IN_FAULT)
    stale = replace(FRESH, state=State.STALE)
    for number, as_of in enumerate(
        (NOW - timedelta(seconds=9), NOW - timedelta(seconds=8), NOW + timedelta(seconds=1))
    ):
        checker.model.show(replace(SNAPSHOT, sources=(replace(stale, as_of=as_of),), sequence=number + 1))

    assert [text.partition(" at ")[0] for text in checker.violations] == [
        "john in server_error became younger without an answer",
        "john has a negative age",
        "john in server_error became younger without an answer",
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_a_schedule_holds_every_fault_and_follows_from_its_seed(source):
    """The same seed replays, another one does not."""
    known = {name for name, fault in FAULTS.items() if source in fault.harm}
    first, again, other = (
        [fault.name for fault in islice(schedule(source, seed), 2 * len(known))] for seed in (1, 1, 2)
    )

    assert first == again != other
    assert set(first[: len(known)]) == set(first[len(known) :]) == known


def test_the_measurement_runs_to_its_end_and_finds_nothing():
    """A few faults at each source; what it prints is one JSON object."""
    app = typer.Typer()
    app.command()(chaos)

    result = CliRunner().invoke(app, ["--seconds", "2", "--seed", "5", "--json"])
    figures = json.loads(result.stdout)

    # How often a source is polled beside whatever else runs here is for the measurement to say, not for a test.
    assert [violation for violation in figures["violations"] if not violation.endswith("of its pace")] == []
    assert result.exit_code == bool(figures["violations"])
    assert figures["faults_injected"] >= len(SOURCES)
    assert Decimal(figures["total_difference_usd"]) == 0
