"""One password for the dashboard: asked for once in a while, compared in constant time, tried a few times a minute."""

import hmac
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler, decode_signed_value

COOKIE = "pnl_login"
LOGIN_DAYS = 7
TRIES, TRIES_WITHIN_S = 5, 60
ADDRESSES = 10_000
# One slash, then plain letters: a second slash, a backslash or a control character may lead to another host.
PATH_HERE = re.compile(r"/(?!/)[!-\[\]-~]*")


class Throttle:
    """Allows an address five tries a minute; remembers so many addresses and no more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: dict[str, list[float]] = {}  # the address that tried last stands last

    def allows(self, address: str) -> bool:
        """Whether one more try is allowed; counts it if so."""
        who, now = _neighbourhood(address), self._clock()
        recent = [tried for tried in self._tries.pop(who, ()) if now - tried < TRIES_WITHIN_S]
        is_allowed = len(recent) < TRIES
        self._tries[who] = [*recent, now] if is_allowed else recent
        if len(self._tries) > ADDRESSES:
            del self._tries[next(iter(self._tries))]
        return is_allowed


def _neighbourhood(address: str) -> str:
    """Who owns one IPv6 address owns the 2⁶⁴ beside it."""
    return str(ip_network((address.partition("%")[0], 64), strict=False)) if ":" in address else address


class Login:
    """Knows the password and who has given it."""

    def __init__(self, password: str, *, cookie_secret: str | None = None) -> None:
        self._key = token_bytes(32)
        self._digest = self._digest_of(password)
        # The password is part of what signs: changing it asks everybody anew.
        secret = cookie_secret or token_hex(32)
        self.cookie_secret = hmac.digest(secret.encode(), password.encode(), "sha256").hex()
        self.throttle = Throttle()

    def is_right(self, password: str) -> bool:
        """Compare in a time that does not depend on how much of it is right."""
        return hmac.compare_digest(self._digest_of(password), self._digest)

    def knows(self, request: HTTPServerRequest) -> bool:
        """Whether this browser has given the password within `LOGIN_DAYS`."""
        cookie = request.cookies.get(COOKIE)
        value = cookie.value if cookie is not None else None
        return decode_signed_value(self.cookie_secret, COOKIE, value, max_age_days=LOGIN_DAYS) is not None

    def _digest_of(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode(), "sha256")


class LoginHandler(RequestHandler):
    """Asks for the password and leads back to where the visitor wanted to go."""

    def initialize(self, login: Login, home: str) -> None:
        """Tornado's own way to hand things in."""
        self._login = login
        self._home = home

    def get(self) -> None:
        """The form."""
        self._ask()

    def post(self) -> None:
        """The try; Tornado has checked before that the form is ours."""
        if not self._login.throttle.allows(self.request.remote_ip or ""):
            self.set_header("Retry-After", str(TRIES_WITHIN_S))
            self._ask("Too many tries. Wait a minute.", HTTPStatus.TOO_MANY_REQUESTS)
        elif not self._login.is_right(self.get_body_argument("password", "", strip=False)):
            self._ask("That is not the password.", HTTPStatus.FORBIDDEN)
        else:
            is_https = self.request.protocol == "https"
            self.set_signed_cookie(
                COOKIE, "yes", expires_days=LOGIN_DAYS, httponly=True, samesite="Lax", secure=is_https
            )
            self.redirect(path_here(self.get_query_argument("next", ""), otherwise=self._home))

    def _ask(self, trouble: str = "", status: HTTPStatus = HTTPStatus.OK) -> None:
        self.set_status(status)
        self.render("login.html", trouble=trouble)

    def get_template_path(self) -> str:
        """Beside this file, whatever the application says."""
        return str(Path(__file__).parent)


class LogoutHandler(RequestHandler):
    """Forgets the visitor."""

    def initialize(self, home: str) -> None:
        """Tornado's own way to hand things in."""
        self._home = home

    def get(self) -> None:
        """Lead to the login again."""
        self.clear_cookie(COOKIE)
        self.redirect(self._home)


def path_here(wanted: str, *, otherwise: str) -> str:
    """The wanted path if it stays on this server, whatever a browser makes of it."""
    return wanted if PATH_HERE.fullmatch(wanted) else otherwise


def cookie_settings(login: Login) -> dict[str, Any]:
    """What Tornado needs to sign the login's cookie and to tell its form from a forged one."""
    return {
        "cookie_secret": login.cookie_secret,
        "xsrf_cookies": True,
        "xsrf_cookie_kwargs": {"httponly": True, "samesite": "Lax"},
    }
