"""What is recorded: how much of what and from when, whether it agrees with the venue, and how fast it answers."""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pnl.config import Settings
from pnl.doctor.findings import Finding, Mark
from pnl.engine import history_of
from pnl.errors import ConfigError, HistoryError
from pnl.history.client import History
from pnl.records import Agreement, Snapshot, money
from pnl.store import FILE

ASKED = 5
MOST_TEXT = 200
COVERAGE = """
SELECT 'kalshi: fills', count(*), make_timestamp(min(timestamp))::DATE, make_timestamp(max(timestamp))::DATE
FROM kalshi_trades
UNION ALL
SELECT 'kalshi: settlements', count(*), make_timestamp(min(settled_at))::DATE, make_timestamp(max(settled_at))::DATE
FROM kalshi_settlements
UNION ALL
SELECT source || ': costs', count(*), min(day)::DATE, max(day)::DATE FROM anthropic_costs GROUP BY source
UNION ALL
SELECT 'john: deals', count(*), min(closed_date)::DATE, max(closed_date)::DATE FROM john_revenue
UNION ALL
SELECT 'snapshots', count(*), make_timestamp(min(timestamp) * 1000)::DATE, make_timestamp(max(timestamp) * 1000)::DATE
FROM pnl_snapshots
"""
SET_ASIDE = "SELECT origin, count(*), min(what || ' ' || key || ': ' || reason) FROM quarantine GROUP BY origin"

Recorded = partial(Finding, "Records")
Asked = partial(Finding, "Speed of the history")


async def records_found(settings: Settings) -> AsyncIterator[Finding]:
    """What the store holds, asked in the process that reads it; where that fails, why."""
    if settings.store_url is None and not (settings.data_dir / FILE).exists():
        yield Recorded("records", "nothing is recorded yet", Mark.SKIPPED, "run `pnl sync`, or start the dashboard")
        return
    try:
        async with history_of(settings) as history:
            async for finding in _found(history):
                yield finding
    except ConfigError as error:
        yield Recorded("records", f"not read until the settings are put right: {error}", Mark.SKIPPED)
    except HistoryError as error:
        yield Recorded("records", str(error), Mark.FAILED)


async def _found(history: History) -> AsyncIterator[Finding]:
    for row in (await history.sql(COVERAGE)).rows:
        yield _coverage(*row)
    newest = await history.snapshot_at(datetime.now(UTC), ())
    for finding in () if newest is None else newest_found(newest, datetime.now(UTC)):
        yield finding
    for origin, count, first in (await history.sql(SET_ASIDE)).rows:
        advice = "it is asked for again by itself; put it right at the source"
        yield Recorded("set aside", f"{count} rows of {origin}: {first}"[:MOST_TEXT], Mark.WARNING, advice)
    for (what,) in (await history.sql("SELECT what FROM damage ORDER BY found_ms")).rows:
        yield Recorded("damage", what, Mark.FAILED, "the README tells what is saved, under When something fails")
    await _ask(history)
    for finding in _timings(history):
        yield finding


def _coverage(name: str, count: int, first: Any, last: Any) -> Finding:
    return Recorded(name, f"{count:,} rows, {first} to {last}" if count else "none")


def newest_found(newest: Snapshot, now: datetime) -> Iterable[Finding]:
    """How old the newest snapshot is, and whether the venue's own figures agree with it."""
    age_s = (now - newest.taken_at).total_seconds()
    yield Recorded("newest snapshot", f"{age_s:,.0f} s old, net {money(newest.net_pnl)}")
    drift = money(newest.drift_usd, signed=True)
    match newest.agreement:
        case Agreement.UNKNOWN:
            yield Recorded("drift", "not compared with the venue's own figures yet", Mark.SKIPPED)
        case Agreement.DRIFTS:
            advice = "some record is missing or wrong; `pnl sync` reads again, the page's notes name the market"
            yield Recorded("drift", f"the venue's own figures differ by {drift}", Mark.FAILED, advice)
        case Agreement.UNEXPLAINED:
            said = f"the balance moved by {drift} without a record: a transfer, or an order that rests"
            yield Recorded("drift", said, Mark.WARNING)
        case agreement:
            yield Recorded("drift", f"{drift}; the venue's own figures: {agreement.value}")


async def _ask(history: History) -> None:
    for _ in range(ASKED):
        await history.booked()
        await history.breakdown(by="market")
        await history.drawdowns()
        await history.bars()


def _timings(history: History) -> Iterator[Finding]:
    for kind, timing in history.queries.timings().items():
        yield Asked(kind, f"the slowest took {timing.max_ms:.0f} ms; beside it the p50", took_ms=timing.p50_ms)
    for slow in history.queries.slow:
        yield Asked(f"slow: {slow.kind}", slow.statement[:MOST_TEXT], Mark.WARNING, took_ms=slow.took_ms)
