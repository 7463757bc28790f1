"""What an operator's programs ask: does it live, can its numbers be relied on, and how does it do."""

import asyncio
import math
import sqlite3
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from aiohttp import ClientConnectorError, ClientSession, web
from browsing import free_port, served
from conftest import NOW
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from test_engine import next_snapshot, simulated

from pnl.cli.serving import _served_with
from pnl.config import load_settings
from pnl.engine import Engine
from pnl.records import Reading, State
from pnl.web.ops import port_of, serve_ops, unready

LATE_S = {"kalshi": 8.0, "john": 64.0}


@asynccontextmanager
async def asked(engine):
    """The three served for an engine, and a way to ask: path to status and text."""
    port = free_port()
    server = serve_ops(port, lambda: engine)
    async with ClientSession(f"http://127.0.0.1:{port}") as client:

        async def ask(path, **headers):
            async with client.get(path, headers=headers) as answer:
                return answer.status, await answer.text()

        try:
            yield ask
        finally:
            server.stop()
            await server.close_all_connections()


@asynccontextmanager
async def running(folder, **answers):
    """A simulator, the engine that reads it, not started yet, and a way to ask."""
    async with simulated(folder) as (simulator, settings):
        simulator.answers.update(answers)
        async with Engine(settings) as engine, asked(engine) as ask:
            yield simulator, engine, ask


def samples(text):
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


# --- ready or not


async def test_it_is_ready_once_every_source_has_answered(tmp_path):
    """Before that, 503 and the names of those that have not."""
    async with running(tmp_path) as (_simulator, engine, ask):
        before = await ask("/readyz")
        engine.start()
        await next_snapshot(engine.model, is_wanted=lambda s: s.complete and s.is_recorded)

        assert await ask("/readyz") == (200, "ready\n")
        assert await ask("/healthz") == (200, "ok")

    names = ("kalshi", "anthropic", "john")
    assert before == (503, "".join(f"{name}: no good answer yet\n" for name in names))


async def test_a_source_that_is_down_is_named_and_the_others_are_not(tmp_path):
    """The process lives all the same."""
    down = {"/deals": lambda _request: web.Response(status=400, text="sorry")}
    async with running(tmp_path, **down) as (_simulator, engine, ask):
        engine.start()
        await next_snapshot(engine.model, is_wanted=lambda s: s.knows("kalshi") and s.knows("anthropic"))

        status, text = await ask("/readyz")
        assert status == 503
        assert "john: no good answer yet" in text.splitlines()
        assert "anthropic" not in text
        assert await ask("/healthz") == (200, "ok")


async def test_a_store_that_cannot_be_written_is_said_until_it_can(tmp_path):
    """A lock that is held for a moment is none."""
    async with running(tmp_path) as (_simulator, engine, ask):
        engine.start()
        await next_snapshot(engine.model, is_wanted=lambda s: s.complete and s.is_recorded)
        blocker = sqlite3.connect(engine.store.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await next_snapshot(engine.model, is_wanted=lambda s: not s.is_recorded)
        unwritten = await answered(ask, 503)
        waiting = samples((await ask("/metrics"))[1])
        blocker.execute("ROLLBACK")
        blocker.close()

        assert await answered(ask, 200) == "ready\n"

    assert "store: nothing can be recorded; the log says why" in unwritten.splitlines()
    assert waiting["pnl_queue_depth", ("queue", "store")] > 0


async def answered(ask, wanted):
    """What /readyz says once it answers with a status."""
    async with asyncio.timeout(60):
        while True:
            status, text = await ask("/readyz")
            if status == wanted:
                return text
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
async def test_without_an_engine_nothing_is_ready(path):
    """It is just starting, or could not; the process lives."""
    async with asked(None) as ask:
        status, text = await ask(path)

        assert status == 503
        assert "the engine is not open" in text
        assert await ask("/healthz") == (200, "ok")


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_a_source_is_fresh_enough_up_to_an_age_of_its_own(kalshi_s, john_s):
    """One that is asked every half minute may be older than one that is asked every second."""
    ages = {"kalshi": kalshi_s, "john": john_s}
    readings = [Reading(name, State.STALE, as_of=NOW - timedelta(seconds=age)) for name, age in ages.items()]
    readings.append(Reading("openai", State.NOT_CONFIGURED))

    lines = unready(readings, late_s=LATE_S, unwritten_s=0, now=NOW)
    named = [line.partition(":")[0] for line in lines]

    assert named == [r.source for r in readings[:2] if r.age_s(NOW) > LATE_S[r.source]]


@pytest.mark.parametrize(("unwritten_s", "lines"), [(0, 0), (3.9, 0), (4.1, 1), (math.inf, 1)])
def test_a_slow_commit_is_no_store_that_cannot_be_written(unwritten_s, lines):
    """On a busy disk it may take a second; a folder that is read-only is never written."""
    assert len(list(unready([], late_s={}, unwritten_s=unwritten_s, now=NOW))) == lines


# --- what Prometheus reads


async def test_a_real_scrape_has_every_figure(tmp_path):
    """Of an engine that polls, commits and answers questions about its history."""
    async with running(tmp_path) as (simulator, engine, ask):
        engine.start()
        await next_snapshot(engine.model, is_wanted=lambda s: s.complete and s.is_recorded and s.trace.cached)
        await engine.history.bars()
        await engine.current()
        status, text = await ask("/metrics")
        told = text + (await ask("/readyz"))[1]
        settings = engine.settings
        secrets = [simulator.key_id, simulator.admin_key, simulator.john_token, str(settings.kalshi_private_key_path)]
        titles = [mark.title for mark in engine.model.marks.values() if mark.title] + list(engine.model.marks)

    found = samples(text)
    assert status == 200
    for source in ("kalshi", "anthropic", "john"):
        assert 0 <= found["pnl_source_age_seconds", ("source", source)] < 60
        assert found["pnl_source_state", ("source", source), ("state", "fresh")] == 1
        assert found["pnl_breaker_state", ("source", source), ("state", "closed")] == 1
        assert found["pnl_breaker_state", ("source", source), ("state", "open")] == 0
        assert found["pnl_fetch_seconds_count", ("source", source)] >= 1
    assert found["pnl_aggregation_latency_seconds_count",] >= 3
    assert found["pnl_commit_latency_seconds_count",] >= 1
    assert found["pnl_history_query_seconds_count", ("kind", "bars")] == 1
    assert found["pnl_cache_hit_ratio", ("cache", "current"), ("level", "memory")] >= 0
    assert found["pnl_queue_depth", ("queue", "cache")] >= 0
    assert found["pnl_snapshot_recorded",] == 1
    assert sum(value for (name, *_), value in found.items() if name == "pnl_drift_state") == 1
    assert ("pnl_drift_usd",) in found
    assert found["process_resident_memory_bytes",] > 0
    assert len(titles) > 1
    assert [secret for secret in (*secrets, *titles) if secret in told] == []


# --- who may ask, and where


async def test_another_name_for_this_machine_gets_nothing(tmp_path):
    """A page of evil.example that turned its name to 127.0.0.1 reads along nowhere."""
    async with running(tmp_path) as (_simulator, _engine, ask):
        for path, status in {"/healthz": 200, "/readyz": 503, "/metrics": 200, "/nothing": 404}.items():
            assert (await ask(path, Host="evil.example"))[0] == 421
            assert (await ask(path, Host="localhost:1"))[0] == status


async def test_a_port_that_is_taken_is_said_and_hurts_nothing(caplog):
    """With what to set."""
    port = free_port()
    first = serve_ops(port, lambda: None)

    assert serve_ops(port, lambda: None) is None
    first.stop()

    assert len(caplog.messages) == 1
    assert f"127.0.0.1:{port} (Address already in use); set PNL_METRICS_PORT to a free port" in caplog.text


def test_the_port_is_open_by_itself_only_where_no_password_is_asked_for():
    """What stands behind a password is not beside it too, unless a person says so."""
    assert port_of(load_settings()) == 9464
    assert port_of(load_settings(password="eight letters")) == 0
    assert port_of(load_settings(password_file="/somewhere")) == 0
    assert port_of(load_settings(password="eight letters", metrics_port=9000)) == 9000
    assert port_of(load_settings(metrics_port=0)) == 0
    assert serve_ops(0, lambda: None) is None


def test_pnl_serve_has_them_on_the_dashboards_own_port_alone():
    """Unless a port is named."""
    assert _served_with(load_settings())["PNL_METRICS_PORT"] == "0"
    assert "PNL_METRICS_PORT" not in _served_with(load_settings(metrics_port=9000))


async def test_panel_serve_answers_on_both_ports_and_starts_where_one_is_taken(tmp_path):
    """Through the whole program."""
    port = free_port()
    setting = {"PNL_METRICS_PORT": str(port)}
    async with served(tmp_path / "a", **setting) as (_process, address), ClientSession() as client:
        for origin in (f"http://127.0.0.1:{port}", address.removesuffix("/app")):
            await until_ready(client, origin)
            async with client.get(f"{origin}/metrics") as answer:
                found = samples(await answer.text())
            assert found["pnl_connected_clients",] == 0
            assert found["pnl_sessions",] >= 0
            async with client.get(f"{origin}/metrics", headers={"Host": "evil.example"}) as answer:
                assert answer.status == 421
        async with served(tmp_path / "b", **setting) as (other, second):
            await until_ready(client, second.removesuffix("/app"))
            assert sum("PNL_METRICS_PORT" in line for line in other.said) == 1


async def until_ready(client, origin):
    async with asyncio.timeout(120):
        while True:
            with suppress(ClientConnectorError):  # the port beside opens once the server runs
                async with client.get(f"{origin}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


async def test_another_address_answers_a_scraper_by_any_name():
    """On this machine's own it goes by its own names alone: there are browsers."""
    for address, expected in (("0.0.0.0", 200), ("127.0.0.1", 421)):  # noqa: S104 - as containers listen
        port = free_port()
        server = serve_ops(port, lambda: None, address)
        try:
            async with ClientSession() as client:
                headers = {"Host": "viewer:9464"}
                async with client.get(f"http://127.0.0.1:{port}/healthz", headers=headers) as answer:
                    assert answer.status == expected
        finally:
            server.stop()
            await server.close_all_connections()
