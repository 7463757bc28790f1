"""Links that let somebody look for a while without a password: signed, not kept, and revoked all at once.

A link holds who one is with it, until when, and a signature. The secret behind the signatures lies in the data folder,
so that the server and `pnl share` agree on it without talking; replacing it ends every link, open pages included.
"""

import hmac
import logging
import os
import re
import stat
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from secrets import token_bytes

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from pnl.config import Role, private_folder
from pnl.errors import ConfigError, LinkRefused
from pnl.views.verdict import notice_texts, rendered
from pnl.web.access import Visitor

FILE = "share.key"
SECRET_BYTES = 32
SHARED = "pnl_share"
PATH = re.compile(r"/share/([^/]*)")
TOLD_FOR_S = 30 * 86_400  # for so long a browser is told that its link has ended, instead of being asked who it is
PURPOSE = b"pnl: a link that lets somebody look, 1"
EXPIRED = "This link has expired."
UNKNOWN = "This link is not valid: it was revoked, or is not whole."

log = logging.getLogger(__name__)


class Shares:
    """The links of one data folder.

    Args:
        folder: Holds the secret; made when the first link is.
        now: The time of day, in seconds since the epoch.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE
        self._now = now

    def link(self, until: float) -> str:
        """The path of a new link.

        Args:
            until: When it ends, in seconds since the epoch; taken to the whole second.

        Raises:
            ConfigError: The secret cannot be read or written.
        """
        said = f"{Role.VIEWER.value}.{int(until)}"
        return f"/share/{said}.{_signature(self._secret() or self._renew(), said)}"

    def revoke(self) -> None:
        """End every link there is.

        Raises:
            ConfigError: The secret cannot be written.
        """
        self._renew()

    def visitor(self, token: str) -> Visitor:
        """Who one is with the last part of a link.

        Raises:
            LinkRefused: It has expired, was revoked, or is no link of ours; in words for whoever opened it.
        """
        said, _, signature = token.rpartition(".")
        if not self._is_ours(said, signature):
            raise LinkRefused(UNKNOWN)
        role, _, until = said.partition(".")  # ours, as the signature says
        if self._now() >= int(until):
            raise LinkRefused(EXPIRED)
        return Visitor(Role(role), until_s=int(until), token=token)

    def _is_ours(self, said: str, signature: str) -> bool:
        try:
            secret = self._secret()
        except ConfigError as error:
            log.warning("no link is taken: %s", error)
            return False
        ours = b"" if secret is None else _signature(secret, said).encode()
        return bool(ours) and hmac.compare_digest(ours, signature.encode(errors="replace"))

    def _secret(self) -> bytes | None:
        """None while there is none; one that others could have read or written signs nothing."""
        try:
            with self._path.open("rb") as file:
                mode, secret = stat.S_IMODE(os.fstat(file.fileno()).st_mode), file.read(SECRET_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be read ({error.strerror})") from None
        return secret if len(secret) == SECRET_BYTES and not mode & 0o077 else None

    def _renew(self) -> bytes:
        """A new secret, in the place of the old one at once."""
        private_folder(self._path.parent)
        new, secret = self._path.with_suffix(".new"), token_bytes(SECRET_BYTES)
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error.strerror})") from None
        return secret


def _signature(secret: bytes, said: str) -> str:
    key = hmac.digest(secret, PURPOSE, "sha256")
    return urlsafe_b64encode(hmac.digest(key, said.encode(errors="replace"), "sha256")).decode().rstrip("=")


class ShareHandler(RequestHandler):
    """Lets in whoever opens a link, and leads to the page."""

    def initialize(self, shares: Shares, token: str, home: str) -> None:
        """Tornado's own way to hand things in."""
        self._shares = shares
        self._token = token
        self._home = home

    def prepare(self) -> None:
        """Tornado writes addresses into the log; this one lets in whoever reads it."""
        self.request.uri = "/share/…"

    def get(self) -> None:
        """Have the browser keep what the link says."""
        try:
            until_s = self._shares.visitor(self._token).until_s or 0
        except LinkRefused as refused:
            self.set_status(HTTPStatus.FORBIDDEN)
            self.finish(_ended(refused))
            return
        ends = datetime.fromtimestamp(until_s + TOLD_FOR_S, UTC)
        is_https = self.request.protocol == "https"
        self.set_cookie(SHARED, self._token, expires=ends, httponly=True, samesite="Lax", secure=is_https)
        self.redirect(self._home)


class Ended(RequestHandler):
    """Says that the link does not hold any more by which somebody came."""

    def initialize(self, refused: LinkRefused) -> None:
        """Tornado's own way to hand things in."""
        self._refused = refused

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.set_status(HTTPStatus.FORBIDDEN)
        self.finish(_ended(self._refused))

    def check_xsrf_cookie(self) -> None:
        """There is nothing to protect."""


def token_in(request: HTTPServerRequest) -> str | None:
    """What a browser keeps of the link that was opened in it."""
    cookie = request.cookies.get(SHARED)
    return cookie.value if cookie is not None and cookie.value else None


def _ended(refused: LinkRefused) -> str:
    text = f"{refused} Ask whoever sent it for another one."
    return rendered("notice.html", **notice_texts("This link has ended", text))
