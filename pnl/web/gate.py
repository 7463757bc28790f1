"""The door of the dashboard's server: one place that every request passes, before any route is looked at."""

import re
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from secrets import token_bytes
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from bokeh.server.tornado import BokehTornado
from bokeh.util.token import check_token_signature, get_session_id
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.web import RequestHandler

from pnl.config import Role, Settings, load_settings
from pnl.errors import ConfigError, LinkRefused
from pnl.views.verdict import notice_texts, rendered
from pnl.web.access import ROLE, Visitor, is_this_machine, read_passwords
from pnl.web.export import PATH, Export
from pnl.web.headers import ProtectiveHeaders
from pnl.web.login import Login, LoginHandler, LogoutHandler, cookie_settings
from pnl.web.opened import Opened
from pnl.web.ops import HERE, LIMITS, OPS, Health, Refusal, served_engine
from pnl.web.panel_login import TOO_MANY, PanelLogin, asks_by_itself
from pnl.web.report import ReportFile
from pnl.web.share import PATH as SHARE_PATH
from pnl.web.share import Ended, ShareHandler, Shares
from pnl.web.static import compress_static
from pnl.web.visitors import NO_TOKEN, Visitors, page_token, role_in

LONGEST_MESSAGE = 1 << 20
MOST_WAITING = 30
BURST_S = 2  # longer than it takes from the question until Bokeh counts the page
PATIENCE_S = 5
UNIX_SOCKET = "0.0.0.0"  # noqa: S104 - what Tornado calls the other end of one
# Bokeh copies every header and cookie into the page's token, so it is handed none but these. The HTTP connection
# itself reads the length of a body and the like from the request as it came.
HANDED_ON = re.compile("Accept.*|Connection|Content-Type|Host|If-.*|Origin|Range|Sec-.*|Upgrade|User-Agent")

OF_ENGINE: Mapping[str, type[RequestHandler]] = {**OPS, PATH: Export, "/report": ReportFile}

# Nobody embeds this dashboard, and a name of a module in an address would have Panel import that module.
UNUSED = re.compile(r"/components/(?!(?:panel|pnl)[./])|.*/autoload\.js$")


def guard() -> None:
    """Let every dashboard that this process serves from now on be behind a `GuardedServer`; safe to repeat."""
    HTTPServer.configure(GuardedServer)


def require_guard(settings: Settings) -> None:
    """Make sure that the guard stands, before there is anything to see.

    Raises:
        ConfigError: It does not, the password that it should ask for cannot be used, or Panel is told to ask too.
    """
    if not GuardedServer.is_serving:
        raise ConfigError(
            "this server cannot be guarded: who asks, from which page and under which name would not be checked. "
            "Start it with `pnl serve`, or `panel serve app/` without --server"
        )
    if read_passwords(settings) and GuardedServer.has_panel_login:
        raise ConfigError("PNL_PASSWORD: Panel's own login asks already who visitors are; set one of the two")


class GuardedServer(HTTPServer):
    """An HTTP server whose dashboard stands behind a `Gate`; Tornado makes one where an `HTTPServer` is asked for."""

    is_serving: ClassVar[bool] = False
    has_panel_login: ClassVar[bool] = False

    def initialize(self, request_callback: Any, **options: Any) -> None:  # type: ignore[override]
        """Put the gate before a Bokeh application; any other one is served as it is."""
        if isinstance(request_callback, BokehTornado):
            GuardedServer.is_serving = True
            GuardedServer.has_panel_login = asks_by_itself(request_callback)
            settings, login = _settings_and_login()
            request_callback = Gate(request_callback, settings, login)
            options |= {"xheaders": settings.behind_proxy, **LIMITS}
        super().initialize(request_callback, **options)


def _settings_and_login() -> tuple[Settings, Login | None]:
    """With settings that make no sense the gate is at its strictest, and the page says what is wrong with them."""
    try:
        settings = load_settings()
        passwords = read_passwords(settings)
    except ConfigError:
        return Settings.model_construct(), None
    if not passwords:
        return settings, None
    secret = settings.cookie_secret
    return settings, Login(passwords, cookie_secret=None if secret is None else secret.get_secret_value())


class Gate(Router):
    """Decides for each request: refused, answered here, or handed on to the dashboard without what is secret in it."""

    _opened_anywhere: ClassVar[Opened] = Opened()  # this is imported before several processes come to be

    def __init__(self, app: BokehTornado, settings: Settings, login: Login | None) -> None:
        self._app = app
        self._login = login
        self._shares = Shares(settings.data_dir)
        self._asked_at: deque[float] = deque(maxlen=MOST_WAITING)
        self._opened: set[str] = set()
        self._hosts = HERE | settings.hosts
        self._most_sessions = settings.max_sessions
        self._panel = None if login is not None else PanelLogin.of(app)
        self._visitors = Visitors(login, self._shares, self._panel)
        self._is_for_all_machines = settings.behind_proxy or self._visitors.are_asked
        app.add_transform(ProtectiveHeaders)
        compress_static(app)
        app.settings["websocket_max_message_size"] = LONGEST_MESSAGE
        if login is not None:
            app.settings.update(cookie_settings(login))
        _sign_sessions(app)

    def find_handler(self, request: HTTPServerRequest, **_kwargs: Any) -> HTTPMessageDelegate:
        """The refusal that applies first, else an answer of the gate's own, else the dashboard's."""
        self._note_opening(request)
        return (
            self._refused(request)
            or self._answered_here(request)
            or self._panels_door(request)
            or self._sent_away(request)
            or self._let_in(request)
        )

    def _let_in(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        """What the visitor may see of what was asked for."""
        try:
            visitor = self._visitors.of(request)
        except LinkRefused as refused:
            return self._handled(request, Ended, refused=refused)
        if visitor is None:
            return self._panels_page(request) or self._asked_to_log_in(request)
        if not self._may_ask(visitor, request):
            text = (
                "This is not for viewers, or is of another visitor's page. Load the page anew, or log in as an owner.\n"
            )
            return self._handled(request, Refusal, status=HTTPStatus.FORBIDDEN, text=text)
        if self._is_websocket(request):
            self._visitors.end_in_time(visitor, request)
        return (
            self._asked_of_engine(request)
            or self._put_off(request)
            or self._app.find_handler(self._without_secrets(request, visitor.role))
        )

    def _panels_door(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        """Where Panel asks who somebody is; its form comes from no page that a browser names."""
        if self._panel is None or not self._panel.is_door(self._path(request)):
            return None
        if not self._panel.allows(request):
            return self._handled(request, Refusal, **TOO_MANY)
        return self._app.find_handler(self._without_secrets(request, Role.VIEWER))

    def _panels_page(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        """The page leads whom Panel does not know to its login."""
        if self._panel is None or self._path(request).rstrip("/") not in {"", *self._app.app_paths}:
            return None
        return self._app.find_handler(self._without_secrets(request, Role.VIEWER))

    def _may_ask(self, visitor: Visitor, request: HTTPServerRequest) -> bool:
        """A viewer has the page alone, also of what other packages add; and nobody has a page of another role."""
        path = self._path(request)
        if self._is_websocket(request) and role_in(page_token(request)) not in (None, visitor.role):
            return False
        is_page = path.rstrip("/").removesuffix("/ws") in {"", *self._app.app_paths}
        return visitor.role is Role.OWNER or is_page or path.startswith("/static/")

    def _refused(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        asks = request.remote_ip or ""
        if not (self._is_for_all_machines or asks == UNIX_SOCKET or is_this_machine(asks)):
            text = (
                "This dashboard answers its own machine alone. To show it to others, set PNL_PASSWORD_FILE, "
                "or PNL_BEHIND_PROXY if a proxy in front of it asks who they are.\n"
            )
            return self._handled(request, Refusal, status=HTTPStatus.FORBIDDEN, text=text)
        if request.host_name not in self._hosts:
            text = "This dashboard does not go by that name. If it should, put the name into PNL_ALLOWED_HOSTS.\n"
            return self._handled(request, Refusal, status=HTTPStatus.MISDIRECTED_REQUEST, text=text)
        return None

    def _answered_here(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        home = self._app.prefix
        path = self._path(request)
        if path == "/healthz":
            return self._handled(request, Health)
        if self._login is not None and path == "/login":
            return self._handled(request, LoginHandler, login=self._login, home=f"{home}/")
        if self._login is not None and path == "/logout":
            return self._handled(request, LogoutHandler, home=f"{home}/")
        if self._login is not None and (link := SHARE_PATH.fullmatch(path)):
            return self._handled(request, ShareHandler, shares=self._shares, token=link[1], home=f"{home}/")
        if UNUSED.match(path):
            return self._handled(request, Refusal, status=HTTPStatus.NOT_FOUND, text="Nothing is here.\n")
        return None

    def _sent_away(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        if not _is_foreign(request):
            return None
        text = "Another site's page asked for this; only the dashboard's own may.\n"
        return self._handled(request, Refusal, status=HTTPStatus.FORBIDDEN, text=text)

    def _asked_to_log_in(self, request: HTTPServerRequest) -> HTTPMessageDelegate:
        if self._path(request) in OPS:  # a program asks, which reads no form
            text = "Log in first. A program asks without a password on PNL_METRICS_PORT of the dashboard's machine.\n"
            return self._handled(request, Refusal, status=HTTPStatus.FORBIDDEN, text=text)
        is_link = request.method in {"GET", "HEAD"} and "Upgrade" not in request.headers
        if self._login is not None and is_link:
            return self._handled(request, AskToLogIn, at=f"{self._app.prefix}/login")
        return self._handled(request, Refusal, status=HTTPStatus.FORBIDDEN, text="Log in first.\n")

    def _asked_of_engine(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        handler = OF_ENGINE.get(self._path(request))
        return None if handler is None else self._handled(request, handler, engine=served_engine)

    def _is_websocket(self, request: HTTPServerRequest) -> bool:
        return self._path(request).endswith("/ws")

    def _path(self, request: HTTPServerRequest) -> str:
        return request.path.removeprefix(self._app.prefix)

    def _put_off(self, request: HTTPServerRequest) -> HTTPMessageDelegate | None:
        """Each page costs memory, also one that was never opened until it is forgotten: so many may be, and no more."""
        path = self._path(request).rstrip("/")
        if path not in self._app.app_paths:
            return None
        now = time.monotonic()
        sessions = self._app.get_sessions(path)
        if len(sessions) >= self._most_sessions:
            return self._handled(request, Later, text="As many pages as this dashboard may show are open.")
        is_burst = len(self._asked_at) == MOST_WAITING and now - self._asked_at[0] < BURST_S
        self._opened = {session.id for session in sessions if self._was_opened(session.id)}
        if is_burst or len(sessions) - len(self._opened) >= MOST_WAITING:
            return self._handled(request, Later, text="Many pages were asked for and not opened yet.")
        self._asked_at.append(now)
        return None

    def _note_opening(self, request: HTTPServerRequest) -> None:
        """Take note of a page whose websocket is asked for: one that is closed later was no page that nobody opens."""
        path = self._path(request)
        if not path.endswith("/ws") or (path := path.removesuffix("/ws")) not in self._app.app_paths:
            return
        with suppress(*NO_TOKEN):  # who checks tokens refuses what is none
            token = page_token(request)
            asked = get_session_id(token)
            self._opened |= {asked} & {session.id for session in self._app.get_sessions(path)}
            if check_token_signature(token, self._app.secret_key, signed=True):
                Gate._opened_anywhere.add(asked)

    def _was_opened(self, page: str) -> bool:
        """Also by another process than the one that was asked for it; Bokeh builds such a page in both."""
        return page in self._opened or page in Gate._opened_anywhere

    def _without_secrets(self, request: HTTPServerRequest, role: Role) -> HTTPServerRequest:
        kept = {name: text for name, text in request.headers.items() if HANDED_ON.fullmatch(name)}
        if self._panel is not None and "Cookie" in request.headers:
            kept["Cookie"] = request.headers["Cookie"]  # its login reads them; no page's token holds them
        request.headers = HTTPHeaders({**kept, ROLE: role.value})
        return request

    def _handled(self, request: HTTPServerRequest, handler: type[RequestHandler], **given: Any) -> HTTPMessageDelegate:
        return self._app.get_handler_delegate(request, handler, given)


def _is_foreign(request: HTTPServerRequest) -> bool:
    """Whether a page of another origin asks; following a link to the dashboard is not asking."""
    if (origin := request.headers.get("Origin")) is not None:
        return _host_of(origin) != request.host.lower()
    is_link = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    return not is_link and request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _sign_sessions(app: BokehTornado) -> None:
    """Have the page's token signed. Bokeh reads its settings for this before any code of ours runs.

    Raises:
        RuntimeError: Bokeh keeps them elsewhere now.
    """
    if app.sign_sessions:
        return
    app._sign_sessions, app._secret_key = True, token_bytes(32)  # noqa: SLF001 - no public way once it is started
    if not app.sign_sessions or app.secret_key is None:
        raise RuntimeError("this version of Bokeh cannot be made to sign its sessions")


class Later(RequestHandler):
    """Asks for patience, and says why; the page comes back by itself."""

    def initialize(self, text: str) -> None:
        """Tornado's own way to hand things in."""
        self._text = text

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.set_header("Retry-After", str(PATIENCE_S))
        self.finish(rendered("notice.html", **notice_texts("Too many at once", self._text, again_s=PATIENCE_S)))

    def check_xsrf_cookie(self) -> None:
        """There is nothing to protect."""


class AskToLogIn(RequestHandler):
    """Leads to the login, and from there back to where one wanted to go."""

    def initialize(self, at: str) -> None:
        """Tornado's own way to hand things in."""
        self._at = at

    def get(self) -> None:
        """Remember the way."""
        self.redirect(f"{self._at}?next={quote(self.request.uri or '/', safe='')}")

    head = get
