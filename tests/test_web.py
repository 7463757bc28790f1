"""The guarded server by itself: hosts, origins, headers, the login, and every route behind it."""

import asyncio
import json
import re
import socket
from collections import Counter
from contextlib import asynccontextmanager
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

from pnl.config import load_settings
from pnl.errors import ConfigError
from pnl.web.access import read_password, serving_advice
from pnl.web.gate import LONGEST_MESSAGE, MOST_WAITING, GuardedServer, require_guard
from pnl.web.login import ADDRESSES, COOKIE, Login, Throttle, path_here
from pnl.web.ops import LIMITS

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
        async with asyncio.timeout(10):
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


async def test_pages_that_were_opened_and_closed_keep_nobody_out(client):
    """A room full of people who load the page anew is no attack."""
    async with serving() as (address, app):
        answered = Counter()
        while answered[200] <= MOST_WAITING:
            async with client.get(f"{address}/app") as answer:
                answered[answer.status] += 1
                if answer.status != 200:  # too many in two seconds
                    continue
                token = TOKEN.search(await answer.text())[1]
            async with client.ws_connect(f"{address}/app/ws", protocols=("bokeh", token)) as websocket:
                await websocket.receive()

        assert len(app.get_sessions("/app")) == MOST_WAITING + 1


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

        async with asyncio.timeout(20):
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


def test_another_password_asks_everybody_anew():
    """Also when the secret that signs cookies stays; and without one it is new at each start."""
    secrets = [
        Login("old password", cookie_secret="s").cookie_secret,
        Login("new password", cookie_secret="s").cookie_secret,
        Login("new password").cookie_secret,
        Login("new password").cookie_secret,
    ]

    assert len(set(secrets)) == 4
    assert Login("old password", cookie_secret="s").cookie_secret == secrets[0]


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

    assert read_password(settings_with(monkeypatch, PNL_PASSWORD_FILE=path)) == PASSWORD


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
        read_password(settings_with(monkeypatch, PNL_PASSWORD_FILE=path))

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
