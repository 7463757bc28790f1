"""Who is only to look: by a password or a link, in a real browser and with forged messages, on the whole dashboard."""

import asyncio
import json
import re
import sys
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from aiohttp import ClientSession, CookieJar, FormData
from browsing import answered, environment, number_moves, opened, served, until
from playwright.async_api import expect

from pnl.notes import Notes
from pnl.web.share import FILE

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER, VIEWER = "the owner's password", "only for looking"
TOKEN = re.compile(r'"token":"([^"]+)"')
OWNERS_ALONE = "dialog.record, .health, .timings, [data-note], [data-acknowledge], a[data-file], button[data-record]"
PIN = json.dumps({"turn": 1, "name": "note", "to": "forged", "more": ""})
RECORD = json.dumps({"turn": 9, "record": ["fill", "any"], "health": True, "timings": True})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def dashboard(tmp_path_factory):
    """The demo with a password for each role; its data folder and the page's address."""
    folder = tmp_path_factory.mktemp("viewer")
    passwords = {"PNL_PASSWORD": OWNER, "PNL_VIEWER_PASSWORD": VIEWER, "PNL_COST_BUDGET": "1"}
    async with served(folder, **passwords) as (process, address):
        yield process, folder, address


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def clients(dashboard):
    """A browser without scripts for each password: more logins would be too many tries."""
    origin = dashboard[2].removesuffix("/app")
    async with AsyncExitStack() as stack:
        found = {}
        for password in (OWNER, VIEWER):
            client = ClientSession(cookie_jar=CookieJar(unsafe=True))
            found[password] = await stack.enter_async_context(client)
            await signed_in(client, origin, password)
        yield found


async def log_in(page, address, password):
    await page.goto(address)
    await page.locator("#password").fill(password)
    await page.get_by_role("button", name="Log in").click()


async def test_a_viewer_sees_the_numbers_and_nothing_that_is_the_owners(browser, dashboard):
    """Not hidden by the page: it is not there, and neither are the texts of it."""
    _process, _folder, address = dashboard
    seen = {}
    for password in (OWNER, VIEWER):
        async with opened(browser) as page:
            await log_in(page, address, password)
            await number_moves(page)
            await answered(page)
            await expect(page.locator(".alerts .alert").first).to_be_visible()
            for key in ("r", "e", "p", "p"):
                await page.keyboard.press(key)
            seen[password] = await page.locator(OWNERS_ALONE).count()
            texts = await page.evaluate("Bokeh.documents[0].get_model_by_id('pnl-past').data.name")
            assert ("record.rows" in texts, "health.kalshi.error" in texts, "past.slow" in texts) == (
                (True,) * 3 if password == OWNER else (False,) * 3
            )
            assert page.troubles == []

    assert seen[OWNER] > 10
    assert seen[VIEWER] == 0


async def signed_in(client, origin, password):
    async with client.get(f"{origin}/login") as form:
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', await form.text())[1]
    body = FormData({"_xsrf": xsrf, "password": password})
    async with client.post(f"{origin}/login", data=body, allow_redirects=False) as answer:
        assert answer.status == 302


ASKED = (
    "app",
    "export?format=csv",
    "report",
    "metrics",
    "readyz",
    "app/metadata",
    "components/panel.io/x/y/z",
    "nothing",
)


async def test_what_is_not_for_viewers_is_refused_by_the_server(dashboard, clients):
    """Whatever it is: also what other packages may add."""
    origin = dashboard[2].removesuffix("/app")
    answers = {}
    for password, client in clients.items():
        for path in ASKED:
            async with client.get(f"{origin}/{path}") as answer:
                answers[password, path] = answer.status

    assert [answers[VIEWER, path] for path in ASKED] == [200] + [403] * 7
    assert 403 not in [answers[OWNER, path] for path in ASKED]
    assert answers[OWNER, ASKED[1]] == 200


def changed(name, attr, new):
    return {"kind": "ModelChanged", "model": {"id": f"pnl-{name}"}, "attr": attr, "new": new}


DONE = {"type": "object", "name": "pnl.views.deeds.Done", "id": "pnl-done", "attributes": {"deed": ""}}
FORGED = (changed("asked", "wish", RECORD), changed("done", "deed", PIN))
BUILT_IN = ({"kind": "RootAdded", "model": DONE}, changed("done", "deed", PIN))  # a model that the page has not


async def forged(client, address, events):
    """Send a page's websocket what our page never would; what it answers, its whole document included."""
    token = await token_of(client, address)
    async with client.ws_connect(f"{address}/ws", protocols=("bokeh", token)) as websocket:
        assert '"ACK"' in (await websocket.receive(timeout=30)).data  # before that the server is not listening
        for content in ({"events": [event]} for event in events):
            await send(websocket, "PATCH-DOC", content)
        await send(websocket, "PULL-DOC-REQ", {})
        heard = ""
        async for message in websocket:
            heard += message.data
            if '"roots"' in message.data:
                break
    return heard


async def token_of(client, address):
    """The page's, once the numbers are there."""
    async with asyncio.timeout(60):
        while True:
            async with client.get(address) as answer:
                if found := TOKEN.search(await answer.text()):
                    return found[1]
            await asyncio.sleep(0.2)


async def send(websocket, kind, content):
    for part in ({"msgid": "1", "msgtype": kind}, {}, content):
        await websocket.send_str(json.dumps(part))


async def test_forged_messages_of_a_viewer_do_nothing(dashboard, clients):
    """The same ones of an owner do: so they are the ones that would."""
    _process, folder, address = dashboard
    notes = Notes(folder / "demo")
    viewers = [await forged(clients[VIEWER], address, events) for events in (FORGED, BUILT_IN)]
    assert notes.all() == ()

    owners = await forged(clients[OWNER], address, FORGED)

    await until(lambda: [note.text for note in Notes(folder / "demo").all()] == ["forged"])
    assert '"ERROR"' in viewers[0]
    assert "record.rows" in owners
    assert [text for text in viewers if '"roots"' not in text or "record.rows" in text] == []


# --- links


ENDED = "This link has ended"


async def run_share(folder, *arguments):
    """What `pnl share` prints and says beside it, and how it ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pnl.cli", "share", *arguments),
        cwd=folder,
        env=environment(folder, PNL_PASSWORD=OWNER),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode().strip(), err.decode()


async def test_a_link_shows_the_page_until_it_is_revoked(browser, dashboard):
    """Without a password; the page that is open is closed, and the browser is told why."""
    process, folder, address = dashboard
    origin = address.removesuffix("/app")
    code, link, said = await run_share(folder, "--expires", "2h")
    assert (code, (folder / FILE).stat().st_mode & 0o777) == (0, 0o600)
    assert "sees the numbers until" in said

    async with opened(browser) as page:
        await page.goto(f"{origin}{link}")
        await number_moves(page)
        assert page.url.startswith(address)
        assert await page.locator(OWNERS_ALONE).count() == 0
        [cookie] = await page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("pnl_share", True, "Lax")

        assert (await run_share(folder, "--revoke"))[:2] == (0, "no link is valid any more")

        await expect(page.get_by_role("heading", name=ENDED)).to_be_visible()
        assert (await page.reload()).status == 403
        await page.goto(f"{origin}{link}")
        await expect(page.get_by_role("heading", name=ENDED)).to_be_visible()
    assert "GET /share/…" in "".join(process.said)
    assert link.rpartition(".")[2] not in "".join(process.said)
