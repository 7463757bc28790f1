"""The served dashboard under attack: hostile texts, forged requests, secrets that should stay where they are, abuse."""

import asyncio
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientError, ClientSession, WSMsgType, WSServerHandshakeError, web
from bokeh.util.token import generate_jwt_token, generate_session_id, get_token_payload
from browsing import ROOT, number_moves, opened, served, visit
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import expect

from pnl.bench.figures import rss_bytes
from pnl.simulator import LivingMarket, Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1 << 20
PANEL, PNL = ("panel", "serve", "app/", "--warm"), ("pnl.cli", "serve")
NUMBER = re.compile(r'data-text="net">-?\$')
TOKEN = re.compile(r'"token":"([^"]+)"')

HTML = (
    "<script>window.hurt=1</script>",
    "<img src=x onerror=window.hurt=1>",
    "<svg onload=window.hurt=1>",
    '"><img src=x onerror=window.hurt=1>',
    "'><svg/onload=window.hurt=1>",
    '<iframe srcdoc="<script>parent.hurt=1</script>">',
    "<details open ontoggle=window.hurt=1>",
    "<input autofocus onfocus=window.hurt=1>",
    '<a href="javascript:window.hurt=1">click</a>',
    "</script><script>window.hurt=1</script>",
    "</title></style></textarea><script>window.hurt=1</script>",
    '<math><mi xlink:href="javascript:window.hurt=1">x</mi></math>',
    "$$\\href{javascript:window.hurt=1}{x}$$",
    "<%= window.hurt=1 %>{{constructor.constructor('window.hurt=1')()}}",
    "<b onmouseover=window.hurt=1 onclick=window.hurt=1 style=position:fixed;inset:0>b</b>",
)
UNICODE = (
    "right \u202eto left\u202c",
    "isolated \u2067once\u2066twice",
    "zero\u200bwidth\u200c\u200d\ufeff",
    "Z\u0351\u036f\u0321a\u0334\u0348l\u0335\u0301g\u0337o\u0338" * 9,
    "a null \u0000 in it",
    "half a pair \ud800",
    "two\u2028lines\u2029more",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "K\u0430lshi in two alphabets",
    "\uff1cscript\uff1ewindow.hurt=1\uff1c/script\uff1e",  # becomes one where letters are normalised
    "\u0130stanbul \u1e9e \ufb01",
    "tags \U000e0041\U000e0042",
    "\ufdfd\u2e3b" * 9,
    "\u0e01\u0e49\u0e49\u0e49\u0e49\u0e49\u0e49\u0e49\u0e49",
    "tab\tand\r\nline",
    "\x1b[31mred\x1b[0m\x07",
    "not a letter \ufffe\uffff\U0010ffff",
    "long " * 2000,
)
PAYLOADS = HTML + UNICODE
MARKETS = '[data-slots="positions"] tr:not([hidden]) td:nth-child(1)'
LEDGER = "[data-ledger] tr:not(.space)"
PARTS = "[data-parts] tr"
IN_SHADOWS = """(selector) => {
    const found = [], look = (root) => {
        found.push(...root.querySelectorAll(selector));
        for (const element of root.querySelectorAll("*")) if (element.shadowRoot) look(element.shadowRoot);
    };
    look(document);
    return found.length;
}"""


def hostile_fills():
    """One of a market for each payload, the newest first."""
    for number in range(len(PAYLOADS)):
        yield {
            "fill_id": f"fill-{number}",
            "order_id": f"order-{number}",
            "ticker": f"KXHURT-{number}",
            "side": "yes",
            "action": "buy",
            "outcome_side": "yes",
            "book_side": "bid",
            "count_fp": "10.00",
            "yes_price_dollars": "0.4000",
            "no_price_dollars": "0.6000",
            "fee_cost": "0.010000",
            "is_taker": True,
            "created_time": f"{datetime.now(UTC) - timedelta(minutes=number):%Y-%m-%dT%H:%M:%SZ}",
        }


def hostile_market(number, text):
    bid = f"0.4{datetime.now(UTC).microsecond % 1000:03}"  # so that every poll has news
    prices = {"yes_bid_dollars": bid, "yes_ask_dollars": "0.6000", "last_price_dollars": "0.5000"}
    titles = dict.fromkeys(("title", "yes_sub_title", "no_sub_title"), text)
    return {"ticker": f"KXHURT-{number}", "event_ticker": "KXHURT", "status": "active", **prices, **titles}


def hostile_deal(number, text):
    described = {"id": f"deal-{number}", "amount": "1.00", "currency": "USD", "status": "paid", "description": text}
    refused = {"id": text, "amount": text, "currency": text, "status": text}
    dates = {"closed_date": "2026-11-03", "updated_at": "2026-11-07T10:30:15Z"}
    return [described | dates, refused | dates]


def hostile_costs():
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    rows = [{"amount": "1.00", "currency": "USD", "description": text, "model": text} for text in PAYLOADS]
    bucket = {"starting_at": f"{day:%Y-%m-%dT%XZ}", "ending_at": f"{day + timedelta(days=1):%Y-%m-%dT%XZ}"}
    return {"data": [{**bucket, "results": rows}], "has_more": False, "next_page": None}


def answer_with_what_hurts(simulator):
    """Every text that the venue, the provider and the customers can write is a payload; one answer is an error."""
    venue, provider = "/trade-api/v2", "/v1/organizations"
    lists = {
        f"{venue}/portfolio/fills": {"fills": list(hostile_fills()), "cursor": ""},
        "/deals": {"data": [row for each in enumerate(PAYLOADS) for row in hostile_deal(*each)]},
        f"{provider}/cost_report": hostile_costs(),
    }
    for path, answer in lists.items():
        simulator.answers[path] = lambda _request, answer=answer: web.json_response(answer)
    simulator.answers[f"{venue}/markets"] = lambda _request: web.json_response(
        {"markets": [hostile_market(*each) for each in enumerate(PAYLOADS)], "cursor": ""}
    )
    error = {"type": "error", "error": {"type": HTML[1], "message": "".join(HTML)}}
    simulator.answers[f"{provider}/usage_report/messages"] = lambda _request: web.json_response(error, status=400)


def all_settings_of(simulator):
    return simulator.settings | {"PNL_POLL_S": "0.5"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hostile(tmp_path_factory):
    """A dashboard whose sources are hostile, and its address."""
    async with Simulator(LivingMarket(days=2), limited=False) as simulator:
        answer_with_what_hurts(simulator)
        settings = all_settings_of(simulator)
        async with served(tmp_path_factory.mktemp("hostile"), command=PNL, **settings) as (process, address):
            yield process, address


async def touch_what_shows_text(page):
    """Move the mouse over what may show text from outside; a click would leave for somewhere else."""
    for selector in (MARKETS, LEDGER, PARTS, ".warning", ".notes", ".chip", "canvas"):
        for element in (await page.locator(selector).all())[:6]:
            with suppress(PlaywrightError):  # it is gone, or under another: then nobody else can touch it either
                await element.hover(timeout=300, force=True)


async def tab_of(page, tab):
    """The breakdown of a tab, as text."""
    await page.get_by_role("tab", name=tab, exact=True).click()
    await page.wait_for_function("window.pnl.text('parts.by') === window.pnl.wish.wanted.by")
    return await page.locator("[data-parts]").inner_text()


@pytest.mark.parametrize("bypass_csp", [True, False], ids=["escaping_alone", "with_the_policy"])
async def test_text_from_outside_is_read_and_never_run(browser, hostile, bypass_csp):
    """Titles, descriptions, cost items, errors and refused rows: on load, under the mouse, when clicked."""
    async with visit(browser, hostile[1], bypass_csp=bypass_csp) as page:
        await expect(page.locator(MARKETS, has_text=HTML[0]).first).to_be_visible(timeout=60_000)
        await expect(page.locator(LEDGER, has_text=HTML[0]).first).to_be_visible(timeout=60_000)
        await expect(page.locator("canvas").first).to_be_visible()
        seen = "\n".join(await page.locator(MARKETS).all_inner_texts())
        parts = {tab: await tab_of(page, tab) for tab in ("Market", "Model", "Deals")}
        await touch_what_shows_text(page)
        await page.locator(LEDGER, has_text=HTML[1]).first.get_by_role("button").click()
        await expect(page.locator("dialog.record")).to_contain_text("KXHURT")
        await page.keyboard.press("Escape")
        await page.locator(".chip").last.click()
        await expect(page.locator("#health-john")).to_contain_text("set aside")

        assert await page.evaluate(IN_SHADOWS, 'a[href^="javascript:" i], iframe, img[src="x"]') == 0
        assert await page.evaluate("window.hurt") is None
        assert await page.evaluate("document.documentElement.scrollWidth") == 1280
        assert page.troubles == []
    assert [text for text in HTML if text not in seen] == []
    assert [tab for tab in ("Model", "Deals") if HTML[1] not in parts[tab]] == []


@pytest.mark.parametrize("bypass_csp", [True, False], ids=["without_the_policy", "with_the_policy"])
async def test_what_is_not_escaped_is_stopped_by_the_policy(browser, hostile, bypass_csp):
    """The second lock holds by itself, and the test above does look behind it."""
    async with visit(browser, hostile[1], bypass_csp=bypass_csp) as page:
        await page.evaluate("addEventListener('securitypolicyviolation', () => window.stopped = (window.stopped||0)+1)")
        await page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hurt=1>')")
        await page.wait_for_function("window.hurt || window.stopped")
        await page.evaluate("location.href = 'javascript:window.hurt=2'")
        await page.wait_for_function("window.hurt === 2 || window.stopped === 2")

        assert await page.evaluate("window.hurt") == (2 if bypass_csp else None)


# --- both ways of starting it


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[PANEL, PNL], ids=["panel_serve", "pnl_serve"])
async def started(request, tmp_path_factory):
    """The address of the demo, as a person starts it."""
    async with served(tmp_path_factory.mktemp("started"), command=request.param) as (process, address):
        yield process, address


async def test_however_it_is_started_the_gate_stands_before_it(started):
    """Hosts, origins, headers, tokens, health: each once, through the whole program."""
    _process, address = started
    origin = address.removesuffix("/app")
    async with ClientSession() as client:
        await until(lambda: page_with(client, address, NUMBER))
        async with client.get(address, headers={"Cookie": "id_token=canary", "Authorization": "canary"}) as answer:
            html = await answer.text()
            nonce = re.search(r"'nonce-(\w+)'", answer.headers["Content-Security-Policy"])[1]
        async with client.get(address, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        async with client.get(f"{origin}/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        async with client.get(f"{origin}/metrics") as answer:
            assert answer.status == 200
        async with client.get(f"{origin}/metrics", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect(f"{address}/ws", protocols=("bokeh", "x"), headers={"Origin": f"{origin}.evil"})
        unsigned = generate_jwt_token(generate_session_id(signed=False), signed=False)
        for token, expected in ((TOKEN.search(html)[1], WSMsgType.TEXT), (unsigned, WSMsgType.CLOSE)):
            async with client.ws_connect(f"{address}/ws", protocols=("bokeh", token)) as websocket:
                assert (await websocket.receive(timeout=20)).type is expected

    assert html.count("<script") == html.count(f"<script nonce={nonce}") > 4
    assert "canary" not in html + str(get_token_payload(TOKEN.search(html)[1]))


async def test_normal_use_breaks_no_rule_of_the_policy(browser, started):
    """Neither in the console nor in what a browser reports."""
    _process, address = started
    async with opened(browser) as page:
        await page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
        )
        await page.goto(address)
        await number_moves(page)
        await page.locator(".theme").click()
        await page.locator(LEDGER).first.get_by_role("button").click()
        await expect(page.locator("dialog.record")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.locator(".chip").first.click()
        await page.keyboard.press("Escape")
        await tab_of(page, "Calendar")
        await page.locator("canvas").first.hover(force=True)
        await number_moves(page)

        assert page.troubles == []


# --- secrets


ECHO = "x-api-key", "Authorization", "KALSHI-ACCESS-KEY", "KALSHI-ACCESS-SIGNATURE"
SECRETS = {
    "key_id": "canary-of-the-key-id",
    "admin_key": "sk-ant-admin-canary-of-the-admin-key",
    "john_token": "canary-of-the-token",
    "password": "canary-of-the-password",
    "cookie_secret": "canary-of-the-cookie-secret",
    "bokeh_key": "canary-of-the-key-that-signs-sessions",
}


def echo(request):
    """An error whose text is what the client sent: the worst that a source can answer."""
    said = " ".join(request.headers.get(name, "") for name in ECHO)
    return web.json_response({"error": {"code": "bad", "type": "bad", "message": said}, "message": said}, status=400)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def told_secrets(tmp_path_factory):
    """A dashboard that knows secrets which its sources send back in errors; its process, address, folder, secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    simulator = Simulator(LivingMarket(days=2), limited=False, key_out=folder / "kalshi.pem")
    simulator.key_id, simulator.admin_key = SECRETS["key_id"], SECRETS["admin_key"]
    simulator.john_token = SECRETS["john_token"]
    for path in ("/trade-api/v2/portfolio/fills", "/v1/organizations/cost_report", "/deals"):
        simulator.answers[path] = echo
    async with simulator:
        settings = all_settings_of(simulator) | {
            "PNL_PASSWORD": SECRETS["password"],
            "PNL_COOKIE_SECRET": SECRETS["cookie_secret"],
            "PNL_LOG_LEVEL": "DEBUG",
            "BOKEH_SECRET_KEY": SECRETS["bokeh_key"],
            "BOKEH_PY_LOG_LEVEL": "debug",
        }
        pem = (folder / "kalshi.pem").read_text(encoding="ascii")
        secrets = [*SECRETS.values(), *pem.splitlines()[1:3]]
        async with served(folder / "data", command=PNL, **settings) as (process, address):
            yield process, address, folder / "data", secrets


async def test_no_secret_is_told(browser, told_secrets):
    """Not in the log, the list of processes, the page, its websocket or what is recorded, whatever a source answers."""
    process, address, folder, secrets = told_secrets
    told = {"websocket": "", "page": "", "processes": ""}

    def hear(websocket):
        for event in ("framereceived", "framesent"):
            websocket.on(event, lambda frame: told.update(websocket=told["websocket"] + str(frame)))

    async with opened(browser) as page:
        page.on("websocket", hear)
        await page.goto(address)
        await page.locator("#password").fill(SECRETS["password"])
        told["processes"] = processes()
        await page.get_by_role("button", name="Log in").click()
        await expect(page.locator('.chip[data-is="down"]')).to_have_count(3, timeout=60_000)
        await expect(page.locator("canvas").first).to_be_visible()
        told["page"] = await page.content()
        await page.reload()
        told["page"] += await page.content()
        cookies = await page.context.cookies()
        origin = address.removesuffix("/app")
        for path in ("metrics", "readyz"):
            told[path] = await (await page.context.request.get(f"{origin}/{path}")).text()
            async with ClientSession() as stranger, stranger.get(f"{origin}/{path}") as answer:
                assert answer.status == 403

    assert "pnl_breaker_state" in told["metrics"]
    assert "john: no good answer" in told["readyz"]
    told["log"] = "".join(process.said)
    told["folder"] = "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())
    assert [cookie["name"] for cookie in cookies if not cookie["httpOnly"]] == []
    assert "patch" in told["websocket"].lower() or len(told["websocket"]) > 1000
    assert len(told["log"]) > 1000
    assert len(told["folder"]) > 1000
    assert [(place, secret) for place, text in told.items() for secret in secrets if secret in text] == []
    assert "***" in told["page"]  # what the sources sent back did come that far


def processes():
    """Every command line of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().decode("latin-1"))
    assert any("panel" in line and "serve" in line for line in lines)
    return "\n".join(lines)


# --- starting it


async def run_serve(*arguments, **settings):
    """What `pnl serve` says when it does not start, and its exit code."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PNL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pnl.cli", "serve", *arguments, cwd=ROOT, env={**plain, **settings},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("arguments", "settings", "advice"),
    [
        (("--address", "::"), {}, "Set PNL_PASSWORD_FILE"),
        (("--address", "192.0.2.1"), {"PNL_PASSWORD": "canary-long-enough"}, "set PNL_ALLOWED_HOSTS"),
        (("--address", "::", "--behind-proxy"), {}, "set PNL_ALLOWED_HOSTS"),
        ((), {"PNL_PASSWORD": "canary"}, "at least 8 letters"),
        ((), {"PNL_PASSWORD_FILE": "/nowhere/canary.txt"}, "cannot be read"),
    ],
)
async def test_what_would_be_open_to_others_does_not_start(arguments, settings, advice):
    """One line that says what to set."""
    code, said = await run_serve(*arguments, **settings)

    assert code == 1
    assert advice in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert "canary-long" not in said


async def test_everything_recorded_is_for_its_owner_alone(tmp_path):
    """Also when the person's umask would let everybody read it."""
    before = os.umask(0)
    try:
        async with served(tmp_path / "data", command=PNL) as (_process, address), ClientSession() as client:
            await until(lambda: page_with(client, address, NUMBER))
            modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "data").rglob("*")}
    finally:
        os.umask(before)

    assert {"pnl.db", "pnl.db-wal", "pnl.db-shm"} <= {path.name for path in modes}
    assert {
        str(path): oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if path.suffix == "" and path.is_dir() else 0o600)
    } == {}


async def page_with(client, address, pattern):
    async with client.get(address) as answer:
        return pattern.search(await answer.text())


async def until(holds, timeout_s=120):
    async with asyncio.timeout(timeout_s):
        while not (found := await holds()):  # noqa: ASYNC110 - what is waited for is outside, and tells nobody
            await asyncio.sleep(0.5)
    return found


# --- abuse


async def test_it_goes_on_under_abuse(browser, hostile):
    """A page that is open stays live, and the memory comes back."""
    process, address = hostile
    async with visit(browser, address) as page, ClientSession() as client:
        await number_moves(page)
        before = rss_bytes(process.pid)
        answered = await asyncio.gather(*(ask(client, address) for _ in range(200)))
        assert set(answered) == {200, 503}
        await send_too_much(client, address)

        await number_moves(page)
        assert page.troubles == []
        await until(lambda: asyncio.sleep(0, rss_bytes(process.pid) < before + 100 * MB))


async def ask(client, address):
    async with client.get(address) as answer:
        await answer.read()
        return answer.status


async def send_too_much(client, address):
    """A line of a megabyte, a million arguments, and a message of twenty megabytes."""
    for query in ("x" * MB, "x=1&" * (MB // 4)):
        with suppress(ClientError, OSError):  # it hangs up
            async with client.get(f"{address}?{query}") as answer:
                assert answer.status >= 400
    page = await until(lambda: page_with(client, address, TOKEN))  # as soon as there is room again
    async with client.ws_connect(f"{address}/ws", protocols=("bokeh", page[1])) as websocket:
        with suppress(ClientError, OSError):
            await websocket.send_bytes(b"x" * (20 * MB))
        async for _message in websocket:
            pass  # until it hangs up
