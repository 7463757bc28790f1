"""The ledger's files by address: what an address may say, who gets one, and that nothing of it stays behind."""

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from aiohttp import ClientSession, CookieJar
from browsing import served
from recording import instant
from test_export import ZONE, read, until
from test_web import PASSWORD, log_in

from pnl.errors import HistoryError
from pnl.history.ledger_export import FORMS
from pnl.web.export import CONTENT_TYPES, wanted

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one dashboard for many files

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def asked_for(query):
    return wanted(query, zone=ZoneInfo(ZONE), now=NOW)


async def test_an_address_says_which_rows():
    """An empty value is the part without a name; what is not said is all."""
    asked = asked_for("format=xlsx&range=2026-07&series=KXBTCD&market=&term=fees&q=a%20%2Bb")

    assert (asked.form, asked.range.start) == ("xlsx", instant("2026-07-01"))
    assert asked.chosen == {"filters": [("series", "KXBTCD"), ("market", None)], "term": "fees", "search": "a +b"}
    assert asked.name(is_demo=False) == "pnl-ledger-2026-07.xlsx"
    assert asked_for("").name(is_demo=True) == "pnl-ledger-demo-all.csv"
    assert asked_for("range=2026-07-01..2026-07-04").name(is_demo=False) == "pnl-ledger-2026-07-01-2026-07-04.csv"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("luck=1", "nothing is called 'luck' here; choose from format, range, term, q, source, kind, market"),
        ("format=doc", "there is no format 'doc'; choose one of csv, json, xlsx, parquet"),
        ("term=luck", "there is no term 'luck'"),
        ("range=whenever", "'whenever' is no range of time"),
        ("range=2026-07&range=2026-08", "each name once"),
        ("q=%ff", "cannot be read"),
        ("&".join(f"a{n}=1" for n in range(100)), "cannot be read"),
    ],
)
async def test_an_address_that_means_nothing_is_told_what_would(query, said):
    """Before anything is asked of the history."""
    with pytest.raises(HistoryError, match=re.escape(said)):
        asked_for(query)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dashboard(tmp_path_factory):
    """A demo's address, behind a password, somebody who has logged in, and where it puts what it needs for a while."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    (folder / "tmp").mkdir()
    settings = {"PNL_PASSWORD_FILE": f"{folder / 'password'}", "TMPDIR": f"{folder / 'tmp'}"}
    async with (
        served(folder / "data", **settings) as (_process, page),
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as client,
    ):
        address = page.removesuffix("/app")
        assert (await log_in(client, address))[0] == 302
        await until_recorded(client, address)
        yield address, client, folder / "tmp"


async def until_recorded(client, address):
    """Wait until there is more than the names of the columns."""
    async with asyncio.timeout(120):
        while True:
            async with client.get(f"{address}/export?source=kalshi") as answer:
                if answer.status == 200 and len((await answer.text()).splitlines()) > 1:
                    return
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("form", FORMS)
async def test_the_dashboard_gives_all_rows_as_a_file(dashboard, tmp_path, form):
    """With a name, a kind and headers that keep a browser from guessing or storing."""
    address, client, folder = dashboard
    async with client.get(f"{address}/export?format={form}&range=all&source=kalshi") as answer:
        body = await answer.read()
        assert answer.status == 200, body
        assert answer.headers["Content-Type"] == CONTENT_TYPES[form]
        assert answer.headers["Content-Disposition"] == f'attachment; filename="pnl-ledger-demo-all.{form}"'
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    path = tmp_path / f"ledger.{form}"
    path.write_bytes(body)

    rows = read(path)

    assert Counter(row["source"] for row in rows) == {"kalshi": len(rows)}
    assert rows
    if form != "xlsx":
        assert sum(row["net_usd"] for row in rows) == rows[-1]["running_net_usd"]
    assert list(folder.glob("pnl-export-*")) == []


@pytest.mark.parametrize("query", ["luck=1", "range=whenever", "format=exe", "market=1&market=2"])
async def test_a_question_without_sense_is_answered_in_plain_words(dashboard, query):
    """400, as text, without a file."""
    address, client, _ = dashboard
    async with client.get(f"{address}/export?{query}") as answer:
        assert answer.status == 400
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "Content-Disposition" not in answer.headers
        assert await answer.text()


async def test_nobody_gets_a_file_without_the_password(dashboard):
    """Who has none is led to the login, and from there to the file; another site's page gets nothing."""
    address, client, _ = dashboard
    async with (
        ClientSession() as stranger,
        stranger.get(f"{address}/export?range=mtd", allow_redirects=False) as answer,
    ):
        assert answer.status == 302
        assert answer.headers["Location"] == "/login?next=%2Fexport%3Frange%3Dmtd"
    async with client.get(f"{address}/export", headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
    async with client.post(f"{address}/export") as answer:
        assert answer.status in {403, 405}


async def test_a_visitor_who_leaves_stops_the_work(dashboard):
    """Nothing of it stays behind, and the next one is served."""
    address, client, folder = dashboard
    for _ in range(3):
        leaving = asyncio.create_task(client.get(f"{address}/export?format=xlsx"))
        await until(lambda: list(folder.glob("pnl-export-*")))
        leaving.cancel()
    await until(lambda: not list(folder.glob("pnl-export-*")))

    async with client.get(f"{address}/export?source=john") as answer:
        assert answer.status == 200
