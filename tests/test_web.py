"""The guarded server by itself: hosts, origins, headers, the login, and every route behind it."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import panel.io.server  # noqa: F401 - the routes are those that Panel puts in place of Bokeh's
import pytest
from aiohttp import ClientSession, CookieJar, FormData, WSCloseCode, WSMsgType, WSServerHandshakeError
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.util.token import generate_jwt_token, generate_session_id, get_token_payload
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from pnl.cli.share import share
from pnl.config import Role, load_settings
from pnl.errors import ConfigError, LinkRefused
from pnl.web.access import read_passwords, serving_advice
from pnl.web.gate import LONGEST_MESSAGE, MOST_WAITING, GuardedServer, require_guard
from pnl.web.login import ADDRESSES, COOKIE, Throttle, path_here
from pnl.web.ops import LIMITS
from pnl.web.share import FILE, SHARED, Shares

PASSWORD = "correct horse battery"
TOKEN = re.compile(r'"token":"([^"]+)"')


class Secret(RequestHandler):
    """A route that a plugin adds: nobody has told it that there is a login."""

    def get(self):
        self.set_header("Access-Control-Allow-Origin", "*")
        self.write("<script>1</script> <script src='x'></script>")

    def post(self):
        self.write("posted")


@asynccontextmanager
async def serving(address="127.0.0.1", *, prefix=None, **options):
    """A dashboard of one empty page behind a guarded server; yields its address and the application."""
    page = Application(FunctionHandler(lambda document: document.clear()))
    routes = [(r"/secret", Secret), (r"/files/(.*)", Secret)]
    app = BokehTornado({"/app": page}, prefix=prefix, extra_patterns=routes, **options)
    http = GuardedServer(app)
    sockets = bind_sockets(0, address)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), app, http)
    server.start()
    try:
        yield f"http://localhost:{sockets[0].getsockname()[1]}", app
    finally:
        await http.close_all_connections()
        await server.stop_async()


@pytest.fixture
async def address():
    async with serving() as (address, _app):
        yield address


@pytest.fixture
async def locked(monkeypatch):
    """The address of a dashboard that asks for a password."""
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    async with serving() as (address, _app):
        yield address


@pytest.fixture
async def client():
    """A browser without scripts: it keeps cookies, also those of an address without a name."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
        yield client


async def status(client, address, *, method="GET", **options):
    async with client.request(method, address, allow_redirects=False, **options) as answer:
        return answer.status


async def log_in(client, address, password=PASSWORD, **options):
    """Fill in the form as a browser does; returns the status and the headers of the answer."""
    async with client.get(f"{address}/login") as form:
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', await form.text())[1]
    body = FormData({"_xsrf": xsrf, "password": password})
    async with client.post(f"{address}/login", data=body, allow_redirects=False, **options) as answer:
        return answer.status, answer.headers


# --- hosts, origins, machines


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "LOCALHOST:80", "[::1]:5006"])
async def test_the_dashboard_goes_by_the_names_of_this_machine(client, address, host):
    """Whatever the port: a proxy or a tunnel may have another one."""
    assert await status(client, f"{address}/app", headers={"Host": host}) == 200


HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:5006",
    "evil.example:127.0.0.1",
    "localhost.",
    "127.0.0.2",
    "0.0.0.0",  # noqa: S104 - a name to refuse
    "::1",
    "",
    "localhost@evil.example",
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/app", "/healthz", "/static/js/bokeh.min.js", "/nothing"])
async def test_another_name_is_refused(client, address, host, path):
    """A page whose own name was turned to this machine reads nothing here."""
    answered = await status(client, f"{address}{path}", headers={"Host": host})

    assert answered in {HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.BAD_REQUEST}


async def test_more_names_can_be_allowed(client, monkeypatch):
    """Those, and no part of them."""
    monkeypatch.setenv("PNL_ALLOWED_HOSTS", "pnl.example.org, 192.168.1.20")

    async with serving() as (address, _app):
        for host, expected in (("PNL.example.org", 200), ("192.168.1.20:80", 200), ("example.org", 421)):
            assert await status(client, f"{address}/app", headers={"Host": host}) == expected


def own_address():
    """An address of this machine that is not a loopback one; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return probe.getsockname()[0]


async def test_other_machines_are_refused_unless_somebody_asks_who_they_are(client, monkeypatch):
    """`panel serve` listens on every address; without a password that is no reason to answer."""
    ours = own_address()
    headers = {"Host": "localhost", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1"}
    async with serving(None) as (address, _app):
        assert await status(client, f"{address.replace('localhost', ours)}/app", headers=headers) == 403
    monkeypatch.setenv("PNL_BEHIND_PROXY", "true")

    async with serving(None) as (address, _app):
        assert await status(client, f"{address.replace('localhost', ours)}/app", headers=headers) == 200


def forged_origins(address):
    port = address.rpartition(":")[2]
    return [
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{port}.evil.example",
        f"http://localhost:{port}.evil.example",
        "http://localhost:1",
        f"http://localhost.evil.example:{port}",
        f"http://evil.example/localhost:{port}",
        "http://[",
    ]


@pytest.mark.parametrize("number", range(8))
async def test_a_page_of_another_origin_gets_neither_answers_nor_a_websocket(client, address, number):
    """The browser says which page asks."""
    headers = {"Origin": forged_origins(address)[number]}

    assert await status(client, f"{address}/app", headers=headers) == 403
    with pytest.raises(WSServerHandshakeError) as refused:
        await client.ws_connect(f"{address}/app/ws", protocols=("bokeh", "token"), headers=headers)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("site", "mode", "expected"),
    [
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
        ("cross-site", "navigate", 200),
    ],
)
async def test_a_page_of_another_site_may_link_but_not_fetch(client, address, site, mode, expected):
    """Neither as a picture nor as a script."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}

    assert await status(client, f"{address}/static/js/bokeh.min.js", headers=headers) == expected


@pytest.mark.parametrize("path", ["/components/this/a/__css__/x", "/components/%74his/a/b/c", "/app/autoload.js"])
async def test_what_the_page_does_not_need_is_not_there(client, address, path):
    """An address does not choose which module is imported, and no other page builds this one in."""
    assert await status(client, f"{address}{path}?bokeh-autoload-element=1") == 404


# --- what answers carry


PAGES = ["/app", "/", "/nothing", "/app/nothing", "/secret", "/app/static/nothing", "/static/../x", "/app/metadata"]
ANSWERS = [*PAGES, "/healthz", "/favicon.ico", "/static/js/bokeh.min.js", "/static/extensions/panel/panel.min.js"]


@pytest.mark.parametrize("path", ANSWERS)
async def test_every_answer_carries_the_headers(client, address, path):
    """Also errors and redirects."""
    async with client.get(f"{address}{path}", allow_redirects=False) as answer:
        is_html = answer.headers["Content-Type"].startswith("text/html")

        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        assert ("Content-Security-Policy" in answer.headers) == is_html
        assert not is_html or (answer.headers["Cache-Control"], answer.headers.get("Etag")) == ("no-store", None)


async def test_each_page_has_a_nonce_of_its_own_that_its_scripts_carry(client, address):
    """One that was seen before runs nothing, and the length says what was sent."""
    nonces = set()
    for _ in range(3):
        async with client.get(f"{address}/secret") as answer:
            html = await answer.text()
        nonce = re.search(r"'nonce-(\w{32})'", answer.headers["Content-Security-Policy"])[1]
        nonces.add(nonce)

        assert html == f"<script nonce={nonce}>1</script> <script nonce={nonce} src='x'></script>"
        assert int(answer.headers["Content-Length"]) == len(html)
    assert len(nonces) == 3


async def test_the_health_of_the_process_is_a_word(client, address):
    """Cheap, never stored, and the same with the server's prefix."""
    for method in ("GET", "HEAD"):
        async with client.request(method, f"{address}/healthz") as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
            assert await answer.text() == ("ok" if method == "GET" else "")
    async with serving(prefix="/money") as (prefixed, _app), client.get(f"{prefixed}/money/healthz") as answer:
        assert await answer.text() == "ok"


async def test_nothing_secret_of_a_request_reaches_the_page_or_its_token(client, address):
    """Bokeh would put every header and cookie there."""
    secrets = (
        "Authorization",
        "X-Forwarded-User",
        "X-Amzn-Oidc-Data",
        "Proxy-Authorization",
        "Cf-Access-Jwt-Assertion",
    )
    headers = {name: f"canary-{name}" for name in secrets} | {"Cookie": "user=canary-user; id_token=canary-token"}
    async with client.get(f"{address}/app", headers=headers) as answer:
        html = await answer.text()

    payload = get_token_payload(TOKEN.search(html)[1])
    assert "canary" not in html + json.dumps(payload, default=str)
    assert payload["cookies"] == {}
    assert payload["headers"]["Host"] in address


# --- sessions


async def token_of(client, address):
    async with client.get(f"{address}/app") as answer:
        return TOKEN.search(await answer.text())[1]


async def first_word(client, address, token, **options):
    """What a websocket with this token hears first: an acknowledgement, or that it is closed."""
    async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token), **options) as websocket:
        heard = await websocket.receive(timeout=10)
        return json.loads(heard.data) if heard.type is WSMsgType.TEXT else heard.type


async def test_the_pages_own_token_opens_its_session(client, address):
    """Both names of this machine are the page's own origin."""
    for name in ("localhost", "127.0.0.1"):
        ours = address.replace("localhost", name)
        heard = await first_word(client, ours, await token_of(client, ours), headers={"Origin": ours})

        assert "msgid" in heard


def forged_tokens(token):
    unsigned = generate_session_id(signed=False)
    other = b"another key, as long as a good one is"
    signed = generate_session_id(secret_key=other, signed=True)
    return [
        generate_jwt_token(unsigned, signed=False, expiration=10**8),
        generate_jwt_token(signed, secret_key=other, signed=True, expiration=10**8),
        token.split(".")[0],
        token.split(".")[0] + "." + "A" * 43,
        "x" + token,
    ]


@pytest.mark.parametrize("number", range(5))
async def test_a_forged_token_opens_nothing(client, address, number):
    """A session's name is not for the visitor to choose."""
    forged = forged_tokens(await token_of(client, address))[number]

    assert await first_word(client, address, forged) in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}


async def test_the_key_of_whoever_serves_is_kept():
    """Several processes share it through the environment."""
    async with serving(secret_key=b"the key of all our processes, yes", sign_sessions=True) as (_address, app):
        assert app.secret_key == b"the key of all our processes, yes"


# --- sizes


async def test_requests_and_messages_are_bounded(client, address):
    """None of them is taken in whole before it is refused."""
    assert await status(client, f"{address}/secret", method="POST", data=b"x" * (LIMITS["max_body_size"] + 1)) == 400
    assert await status(client, f"{address}/secret", method="POST", data=b"x" * LIMITS["max_body_size"]) == 200
    token = await token_of(client, address)
    async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket:
        await websocket.send_bytes(b"x" * (LONGEST_MESSAGE + 1))
        async with asyncio.timeout(60):
            async for _acknowledgement in websocket:
                pass  # ends when the server closes

    assert websocket.close_code in {WSCloseCode.MESSAGE_TOO_BIG, WSCloseCode.ABNORMAL_CLOSURE}


async def test_no_more_pages_are_open_than_may_be(client, monkeypatch):
    """One more would make all of them slower; it says so, and comes back by itself."""
    monkeypatch.setenv("PNL_MAX_SESSIONS", "2")
    async with serving() as (address, _app):
        answered = [await status(client, f"{address}/app") for _ in range(3)]
        async with client.get(f"{address}/app") as answer:
            said = await answer.text()

    assert answered == [200, 200, 503]
    assert "As many pages as this dashboard may show are open." in said


async def token_if_let_in(client, address, answered):
    """The token of a new page, counted by its answer; None where there were too many in two seconds."""
    async with client.get(f"{address}/app") as answer:
        answered[answer.status] += 1
        return TOKEN.search(await answer.text())[1] if answer.status == 200 else None


async def test_pages_that_were_opened_and_closed_keep_nobody_out(client):
    """A room full of people who load the page anew is no attack."""
    async with serving() as (address, app):
        answered = Counter()
        while answered[200] <= MOST_WAITING:
            if (token := await token_if_let_in(client, address, answered)) is None:
                continue
            async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket:
                await websocket.receive()

        assert len(app.get_sessions("/app")) == MOST_WAITING + 1


async def test_pages_that_one_process_is_asked_for_and_another_opens_keep_nobody_out(client):
    """The system chooses who of several behind one address gets a request; neither takes such a page for unopened."""
    family = {"secret_key": b"the key of all our processes, yes", "sign_sessions": True}
    async with AsyncExitStack() as opened:
        asked, app = await opened.enter_async_context(serving(**family))
        other, _app = await opened.enter_async_context(serving(**family))
        answered = Counter()
        while answered[200] <= MOST_WAITING:
            if (token := await token_if_let_in(client, asked, answered)) is None:
                continue
            page = client.ws_connect(f"{other}/app/ws", protocols=("bokeh", token))
            await (await opened.enter_async_context(page)).receive()

        assert len(app.get_sessions("/app")) == MOST_WAITING + 1
        assert await status(client, f"{other}/app") == 200


def test_a_process_knows_of_pages_that_another_one_opened():
    """What is noted in a process is known to the one that started it, and the other way round; nothing else is."""
    program = """
import os
from pnl.web.opened import Opened
opened = Opened()
opened.add("before")
child = os.fork()
if child == 0:
    opened.add("after")
    os._exit("before" not in opened)
print(os.waitpid(child, 0)[1], "after" in opened, "never" in opened)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["0", "True", "False"]


async def test_pages_that_nobody_opens_are_bounded(client, address):
    """Also when all of them are asked for at once; one that is opened makes room for another."""
    token = await token_of(client, address)
    answered = await asyncio.gather(*(status(client, f"{address}/app") for _ in range(3 * MOST_WAITING)))
    assert Counter(answered) == {200: MOST_WAITING - 1, 503: 2 * MOST_WAITING + 1}
    async with client.get(f"{address}/app/") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert 'data-again-ms="5000"' in await answer.text()
    assert await status(client, f"{address}/static/js/bokeh.min.js") == 200

    async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket:
        await websocket.receive(timeout=10)

        async with asyncio.timeout(60):
            while await status(client, f"{address}/app") == 503:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)
        assert await status(client, f"{address}/app") == 503


# --- the login


def paths_of(app):
    """Each route of the server, as an address that it matches."""
    patterns = [rule.matcher.regex.pattern for rule in app.wildcard_router.rules]
    return [re.sub(r"\(.*?\)\)?", "x", pattern.removesuffix("$").removesuffix("/?")) or "/" for pattern in patterns]


async def test_every_route_is_behind_the_login(client, monkeypatch):
    """Also those that other packages add, which know of none."""
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    async with serving() as (address, app):
        paths = paths_of(app)
        assert {"/app", "/app/ws", "/app/metadata", "/secret", "/static/x", "/", "/favicon.ico"} <= set(paths)

        for path in [*paths, "/nothing", "/rest/session_info", "/metrics"]:
            for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"):
                answered = await status(client, f"{address}{path}", method=method)
                assert answered in {302, 403, 404}, (method, path)
                assert answered != 404 or "autoload" in path or "components" in path
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect(f"{address}/app/ws", protocols=("bokeh", "token"))
        assert await status(client, f"{address}/healthz") == 200


async def test_the_password_lets_in_and_leads_back(client, locked):
    """With a cookie that scripts cannot read and other sites cannot send."""
    async with client.get(f"{locked}/secret?a=1&b=2", allow_redirects=False) as answer:
        asked = answer.headers["Location"]
    assert asked == "/login?next=%2Fsecret%3Fa%3D1%26b%3D2"

    code, headers = await log_in(client, locked, params={"next": "/secret?a=1&b=2"})

    cookie = headers["Set-Cookie"]
    assert (code, headers["Location"]) == (302, "/secret?a=1&b=2")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert PASSWORD not in cookie
    assert await status(client, f"{locked}/secret") == 200
    assert await first_word(client, locked, await token_of(client, locked))
    assert await status(client, f"{locked}/logout") == 302
    assert await status(client, f"{locked}/secret") == 302


async def test_behind_tls_the_cookie_travels_only_there(client, monkeypatch):
    """The proxy says so."""
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    monkeypatch.setenv("PNL_BEHIND_PROXY", "true")
    async with serving() as (address, _app):
        code, headers = await log_in(client, address, headers={"X-Forwarded-Proto": "https"})

    assert code == 302
    assert "; Secure" in headers["Set-Cookie"]


@pytest.mark.parametrize("cookie", ["yes", "2|1:0|10:1|9:pnl_login|4:eWVz|" + "0" * 64, ""])
async def test_a_forged_cookie_is_none(client, locked, cookie):
    """Whatever it says."""
    assert await status(client, f"{locked}/secret", headers={"Cookie": f"{COOKIE}={cookie}"}) == 302


@pytest.mark.parametrize("wrong", ["", "correct horse", PASSWORD + " ", PASSWORD.upper(), "ü" * 9])
async def test_a_wrong_password_is_refused(client, locked, wrong):
    """Also one that is nearly right."""
    code, headers = await log_in(client, locked, wrong)

    assert code == 403
    assert COOKIE not in headers.get("Set-Cookie", "")


async def test_a_form_of_another_site_is_refused(client, locked):
    """Also with the right password."""
    assert await status(client, f"{locked}/login", method="POST", data={"password": PASSWORD}) == 403
    assert await status(client, f"{locked}/secret") == 302


async def test_the_sixth_try_in_a_minute_is_one_too_many(client, locked):
    """Even if it is the right one."""
    codes = [(await log_in(client, locked, "wrong"))[0] for _ in range(5)]

    code, headers = await log_in(client, locked)

    assert codes == [403] * 5
    assert (code, headers["Retry-After"]) == (429, "60")
    assert await status(client, f"{locked}/secret") == 302


async def test_behind_a_proxy_each_visitor_has_tries_of_its_own(client, monkeypatch):
    """The address that the proxy adds counts, not those that a visitor made up before it."""
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    monkeypatch.setenv("PNL_BEHIND_PROXY", "true")
    async with serving() as (address, _app):
        for number in range(5):
            await log_in(client, address, "wrong", headers={"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.1"})
        same, _headers = await log_in(client, address, headers={"X-Forwarded-For": "198.51.100.9, 203.0.113.1"})
        other, _headers = await log_in(client, address, headers={"X-Forwarded-For": "203.0.113.2"})

    assert (same, other) == (429, 302)


def test_tries_are_forgotten_after_a_minute_and_addresses_are_bounded(clock):
    """A neighbour in the same IPv6 network is the same visitor."""
    throttle = Throttle(clock.timestamp)
    tries = [throttle.allows(f"2001:db8::{number}") for number in range(7)]
    clock.advance(seconds=61)

    assert tries == [True] * 5 + [False] * 2
    assert throttle.allows("2001:db8::1%eth0")
    assert throttle.allows("2001:db8:0:1::1")
    for number in range(ADDRESSES + 100):
        throttle.allows(f"198.51.{number // 256}.{number % 256}")
    assert len(throttle._tries) == ADDRESSES


LEADING_AWAY = [
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "http://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "HTTP://evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/\x00/evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    ".evil.example",
    "@evil.example",
    "",
    "/\u2028/evil.example",
    "/a\\..\\\\evil.example",
    "/a\r\nSet-Cookie: a=b",
]


@pytest.mark.parametrize("wanted", LEADING_AWAY)
async def test_the_login_leads_nowhere_else(client, locked, wanted):
    """Whatever browsers make of slashes, backslashes and control characters."""
    code, headers = await log_in(client, locked, params={"next": wanted})

    assert (code, headers["Location"]) == (302, "/")


@pytest.mark.parametrize("wanted", ["/", "/app", "/app?range=30d&x=//y#z", "/a:b@c", "/%2F/evil.example"])
def test_a_path_of_this_server_is_kept(wanted):
    """As it was wanted."""
    assert path_here(wanted, otherwise="/no") == wanted


async def test_another_password_asks_anew_whoever_gave_it(client, monkeypatch):
    """Also when the secret that signs cookies stays; the other role is not asked."""
    monkeypatch.setenv("PNL_COOKIE_SECRET", "s")
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    monkeypatch.setenv("PNL_VIEWER_PASSWORD", "only for looking")
    cookies = {}
    async with serving() as (address, _app):
        for password in (PASSWORD, "only for looking"):
            _code, headers = await log_in(client, address, password)
            cookies[password] = headers["Set-Cookie"].partition(";")[0]
    monkeypatch.setenv("PNL_VIEWER_PASSWORD", "another for looking")

    async with serving() as (address, _app), ClientSession() as stranger:
        for password, expected in ((PASSWORD, 200), ("only for looking", 302)):
            assert await status(stranger, f"{address}/app", headers={"Cookie": cookies[password]}) == expected


# --- viewers and links


VIEWER = "only for looking"
ENDED = "This link has ended"


@pytest.fixture
async def shared(monkeypatch, folder):
    """The address of a dashboard that asks for a password of each role, and the links of its folder."""
    monkeypatch.setenv("PNL_DATA_DIR", str(folder))
    monkeypatch.setenv("PNL_PASSWORD", PASSWORD)
    monkeypatch.setenv("PNL_VIEWER_PASSWORD", VIEWER)
    async with serving() as (address, _app):
        yield address, Shares(folder)


async def test_a_viewer_has_the_page_and_no_other_route(client, shared):
    """Also none that other packages add, which know of no roles."""
    address, _shares = shared
    assert (await log_in(client, address, VIEWER))[0] == 302

    asked = ("/app", "/app/", "/static/js/bokeh.min.js", "/secret", "/app/metadata", "/files/x", "/export", "/metrics")

    assert [await status(client, f"{address}{path}") for path in asked] == [200] * 3 + [403] * 5
    assert await status(client, f"{address}/secret", method="POST") == 403


async def test_a_page_goes_with_who_it_was_made_for(shared):
    """An owner's page is not opened by a viewer, nor by nobody, though its token is signed by the server."""
    address, _shares = shared
    async with ClientSession() as owner, ClientSession() as viewer, ClientSession() as nobody:
        await log_in(owner, address)
        await log_in(viewer, address, VIEWER)
        token = await token_of(owner, address)
        assert get_token_payload(token)["headers"]["Pnl-Role"] == "owner"
        assert "msgid" in await first_word(owner, address, token)

        for client in (viewer, nobody):
            with pytest.raises(WSServerHandshakeError) as refused:
                await first_word(client, address, token)
            assert refused.value.status == 403


async def test_who_one_is_is_not_for_ones_browser_to_say(client, shared):
    """The header that tells the page is the gate's own."""
    address, _shares = shared
    await log_in(client, address, VIEWER)
    async with client.get(f"{address}/app", headers={"Pnl-Role": "owner", "pnl-role": "owner"}) as answer:
        payload = get_token_payload(TOKEN.search(await answer.text())[1])

    assert payload["headers"]["Pnl-Role"] == "viewer"


async def test_a_link_lets_a_viewer_in_until_it_expires(client, shared):
    """The websocket that it opened is closed then, and whoever comes back is told why."""
    address, shares = shared
    link = shares.link(time.time() + 5)
    async with client.get(f"{address}{link}", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(answer.headers["Set-Cookie"].split("; "))
    assert await status(client, f"{address}/secret") == 403
    token = await token_of(client, address)
    async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket, asyncio.timeout(30):
        async for _acknowledgement in websocket:
            pass  # ends when the server closes

    assert time.time() >= int(link.split(".")[1])
    for asked in ("/app", link):
        async with client.get(f"{address}{asked}") as answer:
            html = await answer.text()
            assert (answer.status, ENDED in html, "has expired" in html) == (403, True, True)
    with pytest.raises(WSServerHandshakeError):
        await client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token))
    assert (await log_in(client, address))[0] == 302
    assert await status(client, f"{address}/secret") == 200


async def test_replacing_the_secret_ends_every_link_and_its_websocket(client, shared):
    """Each of them says so."""
    address, shares = shared
    links = [shares.link(time.time() + 600 + number) for number in range(2)]
    await status(client, f"{address}{links[0]}")
    token = await token_of(client, address)
    async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket, asyncio.timeout(30):
        await websocket.receive()

        shares.revoke()

        async for _message in websocket:
            pass  # ends when the server closes
    for asked in ("/app", *links):
        async with client.get(f"{address}{asked}") as answer:
            assert (answer.status, "revoked" in await answer.text()) == (403, True)


def tampered(link):
    """Longer, for another role, with another signature, with none, and no link at all."""
    head, role, until, signature = re.fullmatch(r"(/share/)(\w+)\.(\d+)\.(.+)", link).groups()
    return [
        f"{head}{role}.{int(until) + 1}.{signature}",
        f"{head}owner.{until}.{signature}",
        f"{head}{role}.{until}.{signature[:-1]}",
        f"{head}{role}.{until}.{'A' * len(signature)}",
        f"{head}{role}.{until}.",
        f"{head}{role}.{until}",
        f"{head}%00",
        f"{head}%C3%BC.%ED%A0%80.x",
        head,
    ]


async def test_a_link_that_was_changed_lets_nobody_in(client, shared):
    """As a path, and as the cookie that an honest one leaves."""
    address, shares = shared
    link = shares.link(time.time() + 600)
    for wrong in tampered(link):
        async with client.get(f"{address}{wrong}", allow_redirects=False) as answer:
            assert (answer.status, ENDED in await answer.text()) == (403, True), wrong
            assert "Set-Cookie" not in answer.headers
        cookie = f"{SHARED}={wrong.removeprefix('/share/') or 'x'}"
        assert await status(client, f"{address}/app", headers={"Cookie": cookie}) == 403, wrong

    assert await status(client, f"{address}{link}") == 302


async def test_without_a_password_there_is_no_link(client, address):
    """There is nothing to go around."""
    assert await status(client, f"{address}/share/viewer.1.x") == 404


@pytest.mark.parametrize(
    ("given", "settings", "advice"),
    [
        ({"expires": "soon"}, {}, "such as 30m, 12h, 7d or 4w"),
        ({"expires": "60w"}, {}, "at most a year"),
        ({"hides": True}, {}, "pnl report --hide-amounts"),
        ({}, {"PNL_PASSWORD": ""}, "PNL_PASSWORD_FILE"),
        ({}, {"PNL_VIEWER_PASSWORD": PASSWORD}, "one of their own"),
        ({}, {"PNL_PASSWORD": "", "PNL_VIEWER_PASSWORD": VIEWER}, "set both"),
    ],
)
def test_a_link_that_would_not_hold_is_not_made(monkeypatch, folder, given, settings, advice):
    """One line says what to do."""
    for name, value in {"PNL_DATA_DIR": str(folder), "PNL_PASSWORD": PASSWORD, **settings}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=re.escape(advice)):
        share(**{"expires": "7d", "hides": False, **given})
    assert not folder.exists()


def test_a_secret_that_others_could_read_signs_nothing(folder):
    """The next link makes another one."""
    shares = Shares(folder)
    token = shares.link(time.time() + 60).removeprefix("/share/")
    assert shares.visitor(token).role is Role.VIEWER
    (folder / FILE).chmod(0o644)

    with pytest.raises(LinkRefused):
        shares.visitor(token)
    assert shares.visitor(shares.link(time.time() + 60).removeprefix("/share/")).role is Role.VIEWER
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600


# --- settings


def settings_with(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return load_settings()


def test_the_password_comes_from_a_file_of_ones_own(monkeypatch, tmp_path):
    """Without the line end that editors add."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)

    assert read_passwords(settings_with(monkeypatch, PNL_PASSWORD_FILE=path)) == {Role.OWNER: PASSWORD}


@pytest.mark.parametrize(
    ("content", "mode", "advice"),
    [
        (PASSWORD.encode(), 0o644, "chmod 600"),
        (PASSWORD.encode(), 0o640, "chmod 600"),
        (b"short\n", 0o600, "at least 8 letters"),
        (b"\xff\xfe canary", 0o600, "no text file"),
        (None, None, "cannot be read (No such file"),
    ],
)
def test_a_password_file_that_cannot_be_used_is_named(monkeypatch, tmp_path, content, mode, advice):
    """The setting, the path and what to do, and nothing of what is in it."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)

    with pytest.raises(ConfigError, match=r"PNL_PASSWORD_FILE") as error:
        read_passwords(settings_with(monkeypatch, PNL_PASSWORD_FILE=path))

    assert advice in str(error.value)
    assert "canary" not in str(error.value)


async def test_with_a_setting_that_makes_no_sense_the_gate_is_at_its_strictest(client, monkeypatch):
    """The page says what is wrong with it; nobody else is let in meanwhile."""
    monkeypatch.setenv("PNL_PASSWORD", "short")
    monkeypatch.setenv("PNL_ALLOWED_HOSTS", "pnl.example.org")
    monkeypatch.setenv("PNL_BEHIND_PROXY", "true")

    async with serving() as (address, _app):
        assert await status(client, f"{address}/app", headers={"Host": "pnl.example.org"}) == 421
    with pytest.raises(ConfigError, match="PNL_PASSWORD"):
        require_guard(load_settings())


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_may_be_served_without_a_password(address):
    """It is the default."""
    assert serving_advice(load_settings(), address) == []


@pytest.mark.parametrize("address", ["::", "192.168.1.20", "", "pnl.example.org"])
def test_other_machines_need_a_password_and_a_name(monkeypatch, address):
    """Each step is said; the last one is about TLS, and only a warning."""
    with pytest.raises(ConfigError, match="PNL_PASSWORD_FILE"):
        serving_advice(load_settings(), address)
    with pytest.raises(ConfigError, match="PNL_ALLOWED_HOSTS"):
        serving_advice(settings_with(monkeypatch, PNL_PASSWORD=PASSWORD), address)

    advice = serving_advice(settings_with(monkeypatch, PNL_ALLOWED_HOSTS="pnl.example.org"), address)

    assert "TLS" in advice[0]
    assert serving_advice(settings_with(monkeypatch, PNL_BEHIND_PROXY="true"), address) == []


def test_what_cannot_be_guarded_is_not_shown(monkeypatch):
    """Another kind of server would answer past the gate."""
    monkeypatch.setattr(GuardedServer, "is_serving", False)

    with pytest.raises(ConfigError, match="cannot be guarded"):
        require_guard(load_settings())


def test_another_server_of_the_same_process_is_left_alone():
    """Only a dashboard is guarded."""
    answer = object.__new__(Secret)

    assert GuardedServer(answer.get).request_callback == answer.get
    assert isinstance(GuardedServer(answer.get), HTTPServer)
