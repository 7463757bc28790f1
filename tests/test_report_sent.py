"""A report on its way to a person: from the command, from the dashboard's door, opened without a network, on paper."""

import asyncio
from http import HTTPStatus
from pathlib import Path

import panel as pn
import pytest
from aiohttp import ClientSession
from browsing import opened
from recording import recorded
from test_report import asked, begun
from test_web import PASSWORD, serving
from typer.testing import CliRunner

from pnl.cli import app
from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import HistoryError, ReportError
from pnl.history.client import History
from pnl.report import report_html
from pnl.simulator.demo import demo_settings

ARTEFACTS = Path(__file__).with_name("artefacts")
PERIOD = ("--from", "2026-11", "--to", "2026-11-20")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with the business, and nothing else in the settings."""
    asyncio.run(recorded(tmp_path / "data", *begun()))
    monkeypatch.setenv("PNL_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ("report", *arguments))


def test_the_command_writes_one_file_and_says_how_large_it_is(folder):
    """In the place of one that is there; `-` is the output."""
    out = folder / "november.html"
    out.write_text("old")
    done = run(*PERIOD, "--out", str(out), "--title", "For Ann & Bob <3", "--filter", "source=kalshi")
    printed = run(*PERIOD, "--out", "-", "--hide-amounts")

    assert done.exit_code == printed.exit_code == 0, done.output
    assert f"{out}: " in done.stderr.replace("\n", "")
    assert "For Ann &amp; Bob &lt;3" in out.read_text()
    assert "source = kalshi" in out.read_text()
    assert "SIMULATED" in out.read_text()
    assert printed.stdout.startswith("<!doctype html>")
    assert "$" not in printed.stdout
    assert str(folder) not in out.read_text() + printed.stdout


def test_without_a_name_the_file_is_called_by_its_period(folder):
    """In the folder that one is in."""
    done = run("--range", "2026-11")

    assert done.exit_code == 0, done.output
    [path] = folder.glob("*.html")
    assert path.name.startswith("pnl-report-2026-11-")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--range", "whenever"), HistoryError, "no range of time"),
        (("--filter", "KXA"), HistoryError, "series=KXBTCD"),
        (("--filter", "colour=red"), HistoryError, "no breakdown by 'colour'"),
        ((*PERIOD, "--out", "/nowhere/report.html"), ReportError, "cannot be written"),
    ],
)
def test_each_mistake_is_one_line(folder, arguments, error, says):
    """And nothing is written."""
    done = run(*arguments)

    assert isinstance(done.exception, error), done.output
    assert says in str(done.exception)
    assert not list(folder.glob("*.html"))


async def test_the_dashboard_hands_out_reports_as_files(tmp_path, simulator, monkeypatch):
    """Of its own engine, with what is asked for; what makes no sense is said in plain words."""
    settings = demo_settings(load_settings(data_dir=tmp_path), simulator)
    async with Engine(settings) as engine, serving() as (address, _app), ClientSession() as client:
        await engine.sync()
        await engine.warm_history()
        async with client.get(f"{address}/report") as early:
            assert early.status == HTTPStatus.SERVICE_UNAVAILABLE
        monkeypatch.setitem(pn.state.cache, "engine", engine)
        asked_for = {"range": "30d", "hide": "1", "title": "Ours", "source": "kalshi"}
        async with client.get(f"{address}/report", params=asked_for) as answer:
            html = await answer.text()
        async with client.get(f"{address}/report?range=whenever") as wrong:
            told = await wrong.text()
        foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        async with client.get(f"{address}/report", headers=foreign) as refused:
            assert refused.status == HTTPStatus.FORBIDDEN

    assert answer.status == HTTPStatus.OK
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="pnl-report-30d-')
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for said in ("Ours", "source = kalshi", "SIMULATED"):
        assert said in html
    assert "$" not in html
    assert wrong.status == HTTPStatus.BAD_REQUEST
    assert "no range of time" in told


async def test_a_report_asks_for_the_password_first(monkeypatch):
    """Like the page."""
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    async with (
        serving() as (address, _app),
        ClientSession() as client,
        client.get(f"{address}/report", allow_redirects=False) as answer,
    ):
        assert answer.status == HTTPStatus.FOUND
        assert "/login" in answer.headers["Location"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("hides", [False, True], ids=["plain", "hidden"])
async def test_the_file_opens_without_a_network_and_prints(tmp_path, browser, hides):
    """On a wide screen and a phone, by day and night: nothing is asked for, nothing runs, nothing is cut off."""
    path = await recorded(tmp_path / "data", *begun())
    async with History(path, kind=None, zone="America/New_York", deadline_s=120) as history:
        html = await report_html(history, asked("last 30d", hides=hides, title="November"))
    file = tmp_path / "report.html"
    file.write_text(html)
    ARTEFACTS.mkdir(exist_ok=True)
    grounds = set()
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            async with opened(browser, width=width, color_scheme=scheme, offline=True) as page:
                asked_for = []
                page.on("request", lambda request, seen=asked_for: seen.append(request.url))
                await page.goto(file.as_uri())
                grounds.add(await page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor"))
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.locator(".verdict .net").is_visible()
                assert await page.locator("svg.plot").count() == 3
                assert [url for url in asked_for if url != file.as_uri() and not url.startswith("data:")] == []
                assert [said for said in page.troubles if "file:" not in said] == []
                name = f"report-{'hidden' if hides else 'plain'}-{width}-{scheme}"
                await page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
                if (width, scheme) == (1280, "dark"):
                    await page.emulate_media(media="print")
                    paper = await page.evaluate("getComputedStyle(document.body).color")
                    assert paper == "rgb(20, 24, 29)"
                    await page.pdf(path=ARTEFACTS / f"{name}.pdf", prefer_css_page_size=True)

    assert len(grounds) == 2
