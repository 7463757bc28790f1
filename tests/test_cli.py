"""The `pnl` command as a person runs it: what it prints, what it ends with, and one clear line for each mistake."""

import asyncio
import json
import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.simulator import LivingMarket, RecordedAccount, Simulator
from pnl.simulator.demo import demo_settings


async def run(*arguments, folder=None, **settings):
    """Run `pnl`; returns its exit code, what it printed, and what it said beside that."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PNL_")}
    extra = {"PNL_DATA_DIR": str(folder)} if folder is not None else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pnl.cli", *arguments, cwd=folder and folder.parent, env={**plain, **extra, **settings},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, said = await process.communicate()
    return process.returncode, printed.decode(), said.decode()


@pytest.fixture
async def simulator():
    async with Simulator(LivingMarket(days=2), limited=False) as simulator:
        yield simulator


async def test_snapshot_prints_the_recorded_account_exact_twice(tmp_path, recorded_account):
    """As JSON, complete, and the second time from what was recorded."""
    async with Simulator(RecordedAccount(recorded_account)) as simulator:
        first = await run("snapshot", "--json", folder=tmp_path / "data", **simulator.settings)
        asked = simulator.requests.total()
        second = await run("snapshot", "--json", folder=tmp_path / "data", **simulator.settings)
        asked_again = simulator.requests.total() - asked

    for code, printed, said in (first, second):
        taken = json.loads(printed)
        assert code == 0
        assert [line for line in said.splitlines() if "slow: " not in line] == []
        assert taken["kalshi_realized"] == "-2873.713070"
        assert taken["kalshi_fees"] == "6129.111630"
        assert taken["kalshi_pnl"] == taken["net_pnl"] == "-9002.824700"
        assert (taken["trade_count"], taken["settled_market_count"]) == (5329, 2938)
        assert taken["complete"] is True
    assert asked_again < asked / 2


async def test_sync_can_be_repeated_and_shows_a_table(tmp_path, simulator):
    """The same numbers, and nothing twice."""
    first = await run("sync", folder=tmp_path, **simulator.settings)
    second = await run("sync", folder=tmp_path, **simulator.settings)

    assert first[0] == second[0] == 0
    fills = [re.search(r"trading, realized\W+(\S+)", printed)[1] for _code, printed, _said in (first, second)]
    assert fills[0] == fills[1]


async def test_sync_prints_the_same_object_as_snapshot(tmp_path, simulator):
    """What a program reads is the object alone: bars and colours are for terminals."""
    code, printed, said = await run("sync", "--json", folder=tmp_path, **simulator.settings)
    _code, snapped, _said = await run("snapshot", "--json", folder=tmp_path, **simulator.settings)

    assert code == 0
    assert all(line.endswith("is valued at its last price") for line in said.splitlines())  # one market may be closing
    assert json.loads(printed).keys() == json.loads(snapped).keys()
    assert json.loads(printed)["trade_count"] > 0


async def test_the_doctor_ends_with_zero_when_all_is_well_and_with_one_when_not(tmp_path, simulator):
    """Tables for people, within 80 columns and without colours on a pipe."""
    (tmp_path / "data").mkdir(mode=0o700)
    good = await run("doctor", folder=tmp_path / "data", **simulator.settings)
    bad = await run("doctor", folder=tmp_path / "data", **simulator.settings | {"PNL_JOHN_TOKEN": "no"})

    assert (good[0], bad[0]) == (0, 1)
    assert "✓ nothing failed" in good[1]
    assert "✗ 1 of " in bad[1]
    for _code, printed, said in (good, bad):
        assert said == ""
        assert "\x1b" not in printed
        assert all(len(line) <= 80 for line in printed.splitlines())


async def test_the_doctor_tells_a_program_the_same(tmp_path, simulator):
    """One object with stable keys; no secret in it."""
    code, printed, _said = await run("doctor", "--json", folder=tmp_path, **simulator.settings)

    told = json.loads(printed)
    assert code == told["failed"] == 0
    assert list(told) == ["version", "ok", "warning", "failed", "skipped", "checks"]
    assert {tuple(check) for check in told["checks"]} == {
        ("group", "name", "said", "mark", "advice", "origin", "took_ms")
    }
    for secret in (simulator.admin_key, simulator.john_token):
        assert secret not in printed


async def test_beside_a_running_dashboard_the_numbers_are_the_same_and_nothing_is_recorded(tmp_path, simulator):
    """Whoever holds the folder records; the other one looks, and says so."""
    settings = demo_settings(load_settings(data_dir=tmp_path), simulator)
    async with Engine(settings) as engine:
        ours = await engine.sync()
        simulator.requests.clear()
        code, printed, said = await run("snapshot", "--json", folder=settings.data_dir, **simulator.settings)

    taken = json.loads(printed)
    assert code == 0
    assert "not recorded: the data folder" in said
    assert taken["recorded"] is False
    assert taken["kalshi_realized"] == f"{ours.kalshi_realized:f}"
    assert simulator.requests["GET /v1/organizations/cost_report"] <= 1


async def test_a_missing_part_ends_with_three_and_is_named(tmp_path, simulator):
    """The other numbers are there."""
    simulator.answers["/deals"] = lambda _request: web.Response(status=500)

    code, printed, said = await run("snapshot", "--json", folder=tmp_path, **simulator.settings)

    taken = json.loads(printed)
    assert code == 3
    assert taken["complete"] is False
    assert taken["sources"]["john"]["state"] == "down"
    assert taken["trade_count"] > 0
    assert [line for line in said.splitlines() if "john: /deals" in line and "HTTP 500" in line]
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [("snapshot", "--json"), ("sync",), ("history",)], ids=" ".join)
async def test_nothing_configured_is_three_lines_that_tell_what_to_set(tmp_path, command):
    """And that there is a demo: not a table of zeros, not a traceback."""
    code, printed, said = await run(*command, folder=tmp_path)

    assert (code, printed) == (1, "")
    assert said.startswith("pnl: no source is configured.")
    for told in ("PNL_KALSHI_KEY_ID", "PNL_KALSHI_PRIVATE_KEY_PATH", "PNL_ANTHROPIC_ADMIN_KEY", "PNL_JOHN_URL"):
        assert told in said
    assert "`panel serve app/` shows a demo" in said
    assert said.count("\n") == 3
    assert all(len(line) <= 80 for line in said.splitlines())


def openly(key, _simulator):
    key.chmod(0o644)
    return {}


def elsewhere(_key, _simulator):
    return {"PNL_KALSHI_PRIVATE_KEY_PATH": "/nowhere/kalshi.pem"}


def another_path(_key, simulator):
    return {"PNL_KALSHI_URL": simulator.anthropic_url}


def closed_port(_key, _simulator):
    return {"PNL_KALSHI_URL": "http://127.0.0.1:9/trade-api/v2"}


def unknown_key(_key, _simulator):
    return {"PNL_KALSHI_KEY_ID": "canary-of-a-key-id"}


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        (openly, "chmod 600"),
        (elsewhere, "cannot be read (No such file or directory)"),
        (another_path, "PNL_KALSHI_URL: should end with /trade-api/v2"),
        (closed_port, "cannot be reached"),
        (unknown_key, "check PNL_KALSHI_KEY_ID"),
    ],
)
async def test_each_mistake_is_one_line_that_says_what_to_do(tmp_path, simulator, mistake, advice):
    """No traceback, no key, and an exit code that tells a script."""
    only_kalshi = {name: value for name, value in simulator.settings.items() if "KALSHI" in name}
    settings = only_kalshi | mistake(simulator.private_key_path, simulator)

    code, _printed, said = await run("snapshot", "--json", folder=tmp_path, **settings)

    assert code == 1
    assert advice in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert "canary" not in said


async def test_a_clock_that_is_off_is_told_apart_from_a_wrong_key(tmp_path):
    """A minute is enough for the venue to refuse every signature."""
    async with Simulator(LivingMarket(days=2), now=lambda: datetime.now(UTC) + timedelta(seconds=60)) as late:
        only_kalshi = {name: value for name, value in late.settings.items() if "KALSHI" in name}
        code, _printed, said = await run("snapshot", "--json", folder=tmp_path, **only_kalshi)

    assert code == 1
    assert "clock of this machine is off" in said


async def test_a_failing_poll_loses_nothing_that_was_recorded(tmp_path, simulator):
    """Garbage, NaN and repeated cursors change no number that stands."""
    before = json.loads((await run("snapshot", "--json", folder=tmp_path, **simulator.settings))[1])
    for path in ("/trade-api/v2/portfolio/fills", "/trade-api/v2/portfolio/settlements", "/deals"):
        simulator.answers[path] = lambda _request: web.Response(text="<html>maintenance</html>")

    code, printed, said = await run("snapshot", "--json", folder=tmp_path, **simulator.settings)

    after = json.loads(printed)
    assert code == 3
    assert "not JSON" in said
    for name in ("kalshi_realized", "kalshi_fees", "total_revenue", "trade_count"):
        assert after[name] == before[name]
    assert after["sources"]["kalshi"]["state"] == "stale"


async def test_simulate_prints_settings_that_a_shell_can_read(tmp_path):
    """Addresses, keys, and a private key that nobody else can read; it ends when told to."""
    key = tmp_path / "key.pem"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pnl.cli", "simulate", "--key-out", str(key),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    lines = [(await process.stdout.readline()).decode().strip() for _ in range(7)]
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines)

    code, printed, _said = await run("snapshot", "--json", folder=tmp_path / "data", **settings)
    process.send_signal(signal.SIGTERM)

    assert settings["PNL_KALSHI_KEY_ID"] == "simulated"
    assert key.stat().st_mode & 0o777 == 0o600
    assert code == 0
    assert Decimal(json.loads(printed)["total_revenue"]) > 0
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_a_recording_that_is_not_there_is_one_line(tmp_path):
    """Says which folder and what it should hold."""
    code, _printed, said = await run("simulate", "--account", str(tmp_path / "nothing"))

    assert code == 1
    assert "fills.csv" in said
    assert said.count("\n") == 1


async def test_speed_without_a_recording_is_refused():
    """There is nothing to replay."""
    code, _printed, said = await run("simulate", "--speed", "60")

    assert code == 1
    assert "--account" in said


async def test_no_secret_is_printed_whatever_goes_wrong(tmp_path, simulator):
    """Refused keys and garbled answers alike."""
    settings = simulator.settings | {"PNL_ANTHROPIC_ADMIN_KEY": "sk-ant-canary", "PNL_JOHN_TOKEN": "token-canary"}
    simulator.answers["/trade-api/v2/portfolio/fills"] = lambda _request: web.Response(text="\x00")

    _code, printed, said = await run("snapshot", "--json", folder=tmp_path, PNL_LOG_LEVEL="DEBUG", **settings)

    assert "canary" not in printed + said
    assert "PRIVATE KEY" not in printed + said
