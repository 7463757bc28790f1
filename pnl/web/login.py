"""A password for each role: asked for once in a while, compared in constant time, tried a few times a minute."""

import hmac
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler, create_signed_value, decode_signed_value

from pnl.config import Role
from pnl.web.share import SHARED

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
    """Knows the passwords, and who has given which."""

    def __init__(self, passwords: Mapping[Role, str], *, cookie_secret: str | None = None) -> None:
        self._key = token_bytes(32)
        self._digests = {role: self._digest_of(password) for role, password in passwords.items()}
        # A password is part of what signs: changing it asks anew whoever gave it.
        secret = (cookie_secret or token_hex(32)).encode()
        self._secrets = {role: hmac.digest(secret, word.encode(), "sha256").hex() for role, word in passwords.items()}
        self.cookie_secret = hmac.digest(secret, b"forms", "sha256").hex()
        self.throttle = Throttle()

    def role_of(self, password: str) -> Role | None:
        """Whose password it is, compared in a time that does not depend on how much of it is right."""
        digest = self._digest_of(password)
        return next((role for role, known in self._digests.items() if hmac.compare_digest(digest, known)), None)

    def cookie(self, role: Role) -> bytes:
        """What a browser keeps that has given the password of a role."""
        return create_signed_value(self._secrets[role], COOKIE, role.value)

    def knows(self, request: HTTPServerRequest) -> Role | None:
        """Whose password this browser has given within `LOGIN_DAYS`; None: nobody's."""
        cookie = request.cookies.get(COOKIE)
        return (
            None if cookie is None else next((role for role in self._secrets if self._is_of(role, cookie.value)), None)
        )

    def _is_of(self, role: Role, cookie: str) -> bool:
        value = decode_signed_value(self._secrets[role], COOKIE, cookie, max_age_days=LOGIN_DAYS)
        return value == role.value.encode()

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
        elif (role := self._login.role_of(self.get_body_argument("password", "", strip=False))) is None:
            self._ask("That is not the password.", HTTPStatus.FORBIDDEN)
        else:
            is_https = self.request.protocol == "https"
            cookie = self._login.cookie(role)
            self.set_cookie(COOKIE, cookie, expires_days=LOGIN_DAYS, httponly=True, samesite="Lax", secure=is_https)
            self.clear_cookie(SHARED)
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
        self.clear_cookie(SHARED)
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
