"""Everything together on the simulated market: recorded before it is shown, and one failure alone."""

import asyncio
import json
import re
import sqlite3
import sys
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from aiohttp import web
from inbox import listening

from pnl.alerts import AlertState
from pnl.cache import CURRENT
from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import ConfigError, StoreHeld
from pnl.records import Batch, Cost, CostDay, State, Trace
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.simulator.demo import Demo, demo_settings, engine_for
from pnl.sources import source_classes

# What apprise does to find its services.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@asynccontextmanager
async def simulated(folder, world=None):
    """A simulator, and settings that read it into a folder."""
    async with Simulator(world or LivingMarket(days=3)) as simulator:
        yield simulator, demo_settings(load_settings(data_dir=folder), simulator)


async def next_snapshot(model, *, is_wanted=lambda _snapshot: True):
    """Wait for a snapshot that is wanted."""
    found = asyncio.get_running_loop().create_future()

    def look(event):
        if is_wanted(event.new) and not found.done():
            found.set_result(event.new)

    watcher = model.param.watch(look, "snapshot")
    try:
        return await asyncio.wait_for(found, 120)
    finally:
        model.param.unwatch(watcher)


def names(alerts, state):
    """The rules that are in a state."""
    return {alert.name for alert in alerts.rules if alert.state == state}


async def next_alerts(watch, *, is_wanted):
    """Wait until the alerts are as wanted."""
    changed = asyncio.Event()
    watcher = watch.param.watch(lambda _event: changed.set(), "current")
    try:
        async with asyncio.timeout(60):
            while not is_wanted(watch.current):
                changed.clear()
                await changed.wait()
    finally:
        watch.param.unwatch(watcher)
    return watch.current


def rows_of(folder, query):
    with sqlite3.connect(f"file:{folder / 'pnl.db'}?mode=ro", uri=True) as reader:
        return reader.execute(query).fetchall()


async def test_a_snapshot_is_on_disk_before_it_is_shown(tmp_path):
    """Whoever saw a number finds it recorded."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        found = []

        def look(event):
            if event.new.is_worth_recording and event.new.is_recorded:
                shown_ms = int(event.new.taken_at.timestamp() * 1000)
                found.append(
                    rows_of(engine.store.path.parent, f"SELECT 1 FROM pnl_snapshots WHERE timestamp = {shown_ms}")
                )

        engine.model.param.watch(look, "snapshot")
        engine.start()
        await next_snapshot(engine.model, is_wanted=lambda snapshot: snapshot.complete and snapshot.is_recorded)

    assert found
    assert all(found)


async def test_a_commit_that_cannot_be_made_does_not_hold_the_page_back(tmp_path, caplog):
    """The number is shown, marked as not recorded, and written once it can be."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        folder = engine.store.path.parent
        blocker = sqlite3.connect(folder / "pnl.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        engine.start()
        unrecorded = await next_snapshot(engine.model, is_wanted=lambda snapshot: not snapshot.is_waiting)
        blocker.execute("ROLLBACK")
        recorded = await next_snapshot(engine.model, is_wanted=lambda snapshot: snapshot.is_recorded)
        blocker.close()

    assert not unrecorded.is_recorded
    assert "not recorded yet" in caplog.text
    for snapshot in (unrecorded, recorded):
        shown_ms = int(snapshot.taken_at.timestamp() * 1000)
        assert rows_of(folder, f"SELECT 1 FROM pnl_snapshots WHERE timestamp = {shown_ms}")


async def test_a_commit_that_comes_late_is_said_of_the_snapshot_that_is_shown(tmp_path):
    """It does not stay marked until the next poll."""
    async with AsyncExitStack() as stack:
        _simulator, settings = await stack.enter_async_context(simulated(tmp_path))
        engine = await stack.enter_async_context(Engine(settings.model_copy(update={"poll_s": 600})))
        with closing(sqlite3.connect(engine.store.path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            engine.start()
            unrecorded = await next_snapshot(engine.model, is_wanted=lambda snapshot: not snapshot.is_waiting)
            blocker.execute("ROLLBACK")
        recorded = await next_snapshot(engine.model, is_wanted=lambda snapshot: snapshot.is_recorded)

    assert not unrecorded.is_recorded
    assert recorded.sequence == unrecorded.sequence
    assert recorded.net_pnl == unrecorded.net_pnl


async def test_a_restart_shows_what_was_recorded_before_any_poll_ends(tmp_path):
    """Stale and with its age, but the same to the last digit."""
    async with simulated(tmp_path) as (simulator, settings):
        async with Engine(settings) as engine:
            before = await engine.sync()
        asked = simulator.requests.total()
        async with Engine(settings) as again:
            restored = again.model.snapshot

            assert simulator.requests.total() == asked

    assert restored.trade_count == before.trade_count > 0
    assert (restored.kalshi_realized, restored.total_costs) == (before.kalshi_realized, before.total_costs)
    assert {reading.state for reading in restored.sources} == {State.STALE}


async def test_each_snapshot_carries_the_trace_of_its_making(tmp_path):
    """From the request to the cache in the order of time; the checklist and the spans have been told of it."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        engine.start()
        snapshots = [
            await next_snapshot(engine.model, is_wanted=lambda s, name=name: s.trace.cached and s.trace.source == name)
            for name in ("anthropic", "kalshi")
        ]
        recorded = await engine.store.newest(engine.model.sources)
        rows = {row.name: row.spread for row in engine.metrics.checklist.rows()}
        spans = engine.metrics.spans.spreads()

    for snapshot in snapshots:
        trace = snapshot.trace
        steps = [getattr(trace, field.name) for field in fields(trace)][1:-2]
        assert None not in steps
        assert steps == sorted(steps)
        assert (trace.encoded, trace.sent) == (None, None)
        assert snapshot == replace(snapshot, trace=Trace())
    assert recorded.trace == Trace()
    measured = {name for name, spread in rows.items() if spread}
    assert measured >= {"anthropic_fetch", "kalshi_fetch", "aggregation", "pnl", "db_insert", "cache_write"}
    assert spans.keys() >= {"poll anthropic", "poll kalshi", "commit", "cache", "show"}


async def test_a_poll_that_fails_leaves_no_request_in_the_trace_of_the_next(tmp_path):
    """Its snapshot is of no source, and the next fetch is timed from its own request."""
    async with simulated(tmp_path) as (simulator, settings):
        simulator.answers["/deals"] = lambda _request: web.Response(status=400)
        async with Engine(settings.model_copy(update={"john_poll_s": 0.1})) as engine:
            engine.start()
            failed = await next_snapshot(engine.model, is_wanted=lambda s: "/deals" in "".join(s.errors))
            del simulator.answers["/deals"]
            good = await next_snapshot(engine.model, is_wanted=lambda s: s.trace.source == "john")

    assert failed.trace.source != "john"
    assert good.trace.requested > failed.trace.computed


async def test_the_log_tells_now_and_then_where_the_time_went(tmp_path, caplog, monkeypatch):
    """Each span in one line."""
    caplog.set_level("INFO", "pnl.engine")
    monkeypatch.setattr("pnl.engine.upkeep.SUMMARY_S", 0.05)
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        engine.start()
        said = await logged(
            caplog, r"where the time went: .*(commit \d+ times, mean [\d.]+, min [\d.]+, p95 [\d.]+, max)"
        )

    assert int(said.split()[1]) > 0


async def logged(caplog, pattern):
    async with asyncio.timeout(60):
        while True:
            if found := re.search(pattern, caplog.text):
                return found[1]
            await asyncio.sleep(0.01)


async def test_one_source_that_hangs_holds_up_no_other(tmp_path):
    """Each is polled at its own pace."""
    async with simulated(tmp_path) as (simulator, settings):
        asked = asyncio.Event()

        async def hang(_request):
            asked.set()
            await asyncio.Event().wait()

        simulator.answers["/deals"] = hang
        async with Engine(settings) as engine:
            engine.start()
            await asked.wait()
            snapshot = await next_snapshot(engine.model, is_wanted=lambda snapshot: snapshot.knows("kalshi"))

    assert snapshot.trade_count > 0
    assert not snapshot.complete
    assert snapshot.is_waiting or not snapshot.knows("john")


class Slow:
    """A third party's source that answers once and then never again."""

    name = origin = "slow"
    poll_s = 0.1

    def __init__(self):
        self.polls = 0

    async def poll(self, _known):
        self.polls += 1
        if self.polls > 1:
            await asyncio.Event().wait()
        day = date(2026, 11, 20)
        return Batch(cost_days=(CostDay("slow", day, (Cost("slow", day, "all", Decimal(3)),)),))


async def test_p8_a_source_that_never_answers_is_shown_as_stale(tmp_path):
    """Whatever it waits for: its last value stands, with its age, and the page says so."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        engine.model.read_from([Slow()])
        engine.start()
        fresh = await next_snapshot(engine.model)
        stale = await next_snapshot(engine.model)

    assert (fresh.total_costs, fresh.complete) == (stale.total_costs, True) == (3, True)
    (reading,) = stale.sources
    assert reading.state is State.STALE
    assert reading.error == "slow: no answer for 1.2 s; still waiting for it"


async def test_p13_the_current_snapshot_is_cached_and_the_store_stands_behind_it(tmp_path):
    """Warmed by each commit, dropped by a fill or a cost, and the same whichever level answers."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        told = []
        engine.cache.subscribe(told.append)
        engine.start()
        shown = await next_snapshot(engine.model, is_wanted=lambda s: s.complete and s.is_recorded)
        warmed = await engine.current()
        engine.cache.drop(CURRENT)
        read = await engine.current()

    assert (warmed.level, read.level) == ("memory", "store")
    assert json.loads(warmed.value)["net_pnl"] == f"{shown.net_pnl:f}"
    assert json.loads(read.value).keys() == json.loads(warmed.value).keys()
    assert told


async def test_a_source_that_is_down_leaves_the_others_their_numbers(tmp_path):
    """Named, with what to do, and the total says partial."""
    async with simulated(tmp_path) as (simulator, settings):
        simulator.answers["/deals"] = lambda _request: web.Response(status=500, text="oops")
        async with Engine(settings) as engine:
            snapshot = await engine.sync()

    reading = {reading.source: reading for reading in snapshot.sources}["john"]
    assert snapshot.trade_count > 0
    assert not snapshot.complete
    assert reading.state is State.DOWN
    assert "HTTP 500" in reading.error


async def test_the_recorded_account_is_exact_and_the_second_sync_incremental(tmp_path, recorded_account):
    """A real account to the last digit; what was read before is not read again."""
    async with simulated(tmp_path, RecordedAccount(recorded_account)) as (simulator, settings):
        async with Engine(settings) as engine:
            first = await engine.sync()
        asked_at_first = simulator.requests.copy()
        async with Engine(settings) as engine:
            second = await engine.sync()
        asked_again = simulator.requests - asked_at_first

    for snapshot in (first, second):
        assert [reading.error for reading in snapshot.sources] == [None] * 3
        assert snapshot.kalshi_realized == Decimal("-2873.713070")
        assert snapshot.kalshi_fees == Decimal("6129.111630")
        assert snapshot.kalshi_pnl == Decimal("-9002.824700")
        assert (snapshot.trade_count, snapshot.settled_market_count, snapshot.complete) == (5329, 2938, True)
    assert asked_at_first.total() > 20
    del asked_again["GET /trade-api/v2/portfolio/balance"]  # which the venue puts off once a second
    assert set(asked_again.values()) == {1}


async def test_what_fires_is_told_once_and_not_again_after_a_restart(tmp_path):
    """Over the wire, and remembered beside the store for its owner alone."""
    async with listening() as (inbox, address), simulated(tmp_path) as (_simulator, settings):
        told_of = settings.model_copy(update={"cost_budget": Decimal("0.01"), "notify_urls": address})
        async with Engine(told_of) as engine:
            engine.start()
            await asyncio.wait_for(inbox.asked.wait(), 60)
            remembered = engine.store.path.with_name("alerts.json")
        async with Engine(told_of) as again:
            again.start()
            await next_snapshot(again.model, is_wanted=lambda snapshot: snapshot.complete)
            news = again.alerts.look(again.model, datetime.now(UTC))
            await again.upkeep.notifier.sent()

    assert news == ()
    assert inbox.titles == ["SIMULATED pnl alert: AI cost budget"]
    assert inbox.messages[0]["message"].startswith("AI cost ")
    assert again.alerts.current.get("cost_budget").state is AlertState.FIRING
    assert remembered.stat().st_mode & 0o777 == 0o600


async def test_the_demo_tells_nobody(tmp_path):
    """Its losses are made up."""
    demo = Demo(load_settings(data_dir=tmp_path, notify_urls="json://127.0.0.1:9"))

    assert demo.upkeep.notifier.targets == ()


async def test_a_source_that_is_down_is_told_of_and_one_that_answers_again_too(tmp_path):
    """The engine judges by itself, also when nothing new comes."""
    async with simulated(tmp_path) as (simulator, settings):
        simulator.answers["/deals"] = lambda _request: web.Response(status=500)
        eager = settings.model_copy(update={"alert_hold_s": 0, "john_poll_s": 0.2, "breaker_failures": 100})
        async with Engine(eager) as engine:
            engine.start()
            await next_alerts(engine.alerts, is_wanted=lambda alerts: "down.john" in names(alerts, "firing"))
            del simulator.answers["/deals"]
            alerts = await next_alerts(engine.alerts, is_wanted=lambda alerts: "down.john" in names(alerts, "ok"))

    assert alerts.get("down.john").text == "Deals: answering."


async def test_a_second_dashboard_on_the_same_folder_is_told_who_holds_it(tmp_path):
    """Two writers would tear the record."""
    async with simulated(tmp_path) as (_simulator, settings), Engine(settings):
        with pytest.raises(StoreHeld, match="in use by process"):
            async with Engine(settings):
                pass


async def test_the_demo_keeps_its_numbers_in_a_folder_of_its_own(tmp_path):
    """Made-up numbers never meet real ones."""
    engine = engine_for(load_settings(data_dir=tmp_path))

    async with engine:
        snapshot = await engine.sync()

    assert isinstance(engine, Demo)
    assert snapshot.complete
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert rows_of(tmp_path / "demo", "SELECT value FROM meta WHERE key = 'kind'") == [("simulated",)]


async def test_nothing_configured_is_an_error_that_tells_what_to_set(tmp_path):
    """Not a row of zeros."""
    with pytest.raises(ConfigError, match="PNL_KALSHI_KEY_ID"):
        async with Engine(load_settings(data_dir=tmp_path)):
            pass


PLUGIN = """
from decimal import Decimal
from datetime import UTC, date, datetime
from pnl.records import Batch, Cost, CostDay


class OpenAI:
    name = origin = "openai"
    poll_s = 60.0

    def __init__(self, usd):
        self.usd = usd

    @classmethod
    def from_settings(cls, settings, transport):
        usd = settings.plugin("openai").get("usd")
        return None if usd is None else cls(Decimal(usd.get_secret_value()))

    async def poll(self, known):
        day = date(2026, 11, 20)
        return Batch(cost_days=(CostDay("openai", day, (Cost("openai", day, "all", self.usd),)),))
"""


async def test_a_third_party_adds_a_source_with_one_class(tmp_path, monkeypatch):
    """Found by its entry point, configured by its own settings, counted like ours."""
    package = tmp_path / "site"
    (package / "pnl_openai-1.0.dist-info").mkdir(parents=True)
    (package / "pnl_openai-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pnl-openai\nVersion: 1.0\n"
    )
    (package / "pnl_openai-1.0.dist-info" / "entry_points.txt").write_text(
        "[pnl.sources]\nopenai = pnl_openai:OpenAI\n"
    )
    (package / "pnl_openai.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PNL_OPENAI_USD", "7.25")

    async with simulated(tmp_path / "data") as (_simulator, settings), Engine(settings) as engine:
        snapshot = await engine.sync()
        known = engine.model.cost_days["openai", datetime(2026, 11, 20, tzinfo=UTC).date()]

    sys.modules.pop("pnl_openai", None)
    assert list(source_classes()) == ["kalshi", "anthropic", "john", "openai"]
    assert known.total_usd == Decimal("7.25")
    assert snapshot.knows("openai")
    assert snapshot.complete


def test_our_own_sources_come_through_the_same_door():
    """In the order of the equation."""
    assert list(source_classes())[:3] == ["kalshi", "anthropic", "john"]


async def test_a_task_that_ends_by_a_failure_is_told_of_at_once(tmp_path, caplog):
    """And not when the engine is closed, weeks later."""

    async def fails():
        raise ZeroDivisionError

    async with simulated(tmp_path) as (_simulator, settings), Engine(settings) as engine:
        await asyncio.wait([engine._run("fragile", fails())])

        assert "fragile has ended" in caplog.text
        assert "ZeroDivisionError" in caplog.text
