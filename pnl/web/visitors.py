"""Who asks, by whichever way they came in: a password, a link, Panel's own login, or none where nobody is asked."""

from contextlib import suppress

from bokeh.util.token import get_token_payload
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from pnl.config import Role
from pnl.errors import LinkRefused
from pnl.web.access import ROLE, Visitor
from pnl.web.login import Login
from pnl.web.panel_login import PanelLogin
from pnl.web.share import Shares, token_in

LOOK_S = 1  # so long a page may stay open whose link has ended
NO_TOKEN = (ValueError, LookupError, TypeError, RecursionError)
"""What Bokeh raises for what is no token; who checks the signature refuses it."""


class Visitors:
    """Tells who asks.

    Args:
        login: Our own; None where no password is set.
        shares: The links; they let in where there is a login to go around.
        panel: Panel's login; None where it asks nobody.
    """

    def __init__(self, login: Login | None, shares: Shares, panel: PanelLogin | None) -> None:
        self._login = login
        self._shares = shares
        self._panel = panel

    @property
    def are_asked(self) -> bool:
        """Whether anybody is asked who they are."""
        return self._login is not None or self._panel is not None

    def of(self, request: HTTPServerRequest) -> Visitor | None:
        """Who asks; None: nobody knows.

        Raises:
            LinkRefused: A link let them in, and does not any more.
        """
        if self._login is None:
            return Visitor(Role.OWNER) if self._panel is None or self._panel.knows(request) else None
        if (role := self._login.knows(request)) is not None:
            return Visitor(role)
        token = token_in(request)
        return None if token is None else self._shares.visitor(token)

    def end_in_time(self, visitor: Visitor, request: HTTPServerRequest) -> None:
        """Close a websocket once the link ends by which somebody came, if by one."""
        if (token := visitor.token) is None:
            return
        stream: IOStream = request.connection.stream  # type: ignore[union-attr]  # the websocket takes it over

        def look() -> None:
            if stream.closed():
                return
            try:
                self._shares.visitor(token)
            except LinkRefused:
                stream.close()
                return
            IOLoop.current().call_later(LOOK_S, look)

        look()


def page_token(request: HTTPServerRequest) -> str:
    """The token of a page, as its websocket brings it; its signature is not checked yet."""
    return request.headers.get("Sec-WebSocket-Protocol", "").partition(",")[2].strip()


def role_in(token: str) -> str | None:
    """Whose page a token is of, as it says; None: it is no token."""
    with suppress(*NO_TOKEN, AttributeError):
        return str(get_token_payload(token)["headers"].get(ROLE))
    return None
