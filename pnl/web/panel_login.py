"""Panel's own logins, basic auth and OAuth: where `panel serve` was given one, and how it stands behind our gate."""

from http import HTTPStatus
from typing import Self

from bokeh.server.tornado import BokehTornado
from panel.config import config
from tornado.httputil import HTTPServerRequest
from tornado.web import decode_signed_value

from pnl.web.login import Throttle

USER = "user"


class PanelLogin:
    """Knows whom Panel has let in; every one of them is an owner.

    Panel itself guards the page alone. Whatever else is served, also by other packages, is for those that it knows.
    """

    def __init__(self, app: BokehTornado) -> None:
        provider = app.auth_provider
        self._secret = app.settings["cookie_secret"]
        self._doors = {provider.login_url or "/login", provider.logout_url or "/logout"}
        self._throttle = Throttle()
        # Cookies would stand in every page's token; nothing of ours reads them there.
        app._include_cookies, app._exclude_headers = [], ["Cookie"]  # noqa: SLF001 - as --exclude-cookies would

    @classmethod
    def of(cls, app: BokehTornado) -> Self | None:
        """None where Panel asks nobody."""
        return cls(app) if asks_by_itself(app) else None

    def knows(self, request: HTTPServerRequest) -> bool:
        """Whether Panel let this browser in, and not as a guest."""
        cookie = request.cookies.get(USER)
        days = config.oauth_expiry
        return (
            cookie is not None and decode_signed_value(self._secret, USER, cookie.value, max_age_days=days) is not None
        )

    def is_door(self, path: str) -> bool:
        """Whether Panel asks there who somebody is."""
        return path in self._doors

    def allows(self, request: HTTPServerRequest) -> bool:
        """Whether one more try is allowed, if it is one; Panel counts none."""
        return request.method != "POST" or self._throttle.allows(request.remote_ip or "")


def asks_by_itself(app: BokehTornado) -> bool:
    """Whether Panel was told to ask who visitors are."""
    provider = app.auth_provider
    return provider.get_user is not None or provider.get_user_async is not None


TOO_MANY = {"status": HTTPStatus.TOO_MANY_REQUESTS, "text": "Too many tries. Wait a minute.\n"}
