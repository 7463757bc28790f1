"""The files of Bokeh, Panel and its extensions, compressed once per process and kept by the browser for good."""

import asyncio
import gzip
import mimetypes
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from bokeh.server.views.static_handler import AsyncStaticFileHandler
from bokeh.settings import settings
from panel.io.server import ComponentResourceHandler
from tornado.routing import RuleRouter
from tornado.web import Application, GZipContentEncoding, HTTPError, StaticFileHandler

MOST_FILES = 64  # some 16 MB if they were the largest that Bokeh and Panel have; a page needs a dozen, 1 MB
LEVEL = 6  # 9 takes twice as long for 0.3 % less
FOR_GOOD = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
# Panel's folders for `static_dirs`, and a dashboard's own, have handlers that ask or check more than these.
COMPRESSED = (AsyncStaticFileHandler, ComponentResourceHandler)
HTML = "text/html"  # gets a nonce on its way out, so it leaves as it is
NEVER = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")


def compress_static(app: Application) -> None:
    """Have the static files of Bokeh, Panel and its extensions sent compressed; every other route stays as it is.

    The one that every page needs is compressed from now on beside everything else: no visitor waits for it.
    """
    _compress_routes(app.default_router)
    _compression(str(Path(settings.bokehjs_path(), "js", "bokeh.min.js")))


def _compress_routes(router: RuleRouter) -> None:
    for rule in router.rules:
        if isinstance(rule.target, RuleRouter):
            _compress_routes(rule.target)
        elif isinstance(rule.target, type) and issubclass(rule.target, COMPRESSED):
            rule.target = _compressing(rule.target)


def _compressing(handler: type) -> type:
    return type(f"Compressed{handler.__name__}", (CompressedFiles, handler), {})


@dataclass(frozen=True, slots=True)
class Compressed:
    """One file as it is sent to a browser that takes gzip.

    Attributes:
        body: Its compressed bytes.
        etag: Names these bytes and not those of the file, quotes included.
        modified: When the file was, UTC-aware, in whole seconds.
    """

    body: bytes
    etag: str
    modified: datetime


class CompressedFiles(StaticFileHandler):
    """Before the handler of some files: says how long each may be kept, and sends text compressed to whom it suits.

    A part of a file, and a file that is not there or is no text, is left to the handler: it finds and refuses.
    """

    _compressed: Compressed | None = None

    async def get(self, path: str, include_body: bool = True) -> None:  # noqa: FBT001, FBT002 - Tornado's signature
        """Send a file, or that the browser has it already; nothing is read or compressed on the event loop."""
        if "\0" in path:
            raise HTTPError(HTTPStatus.NOT_FOUND)  # no file has such a name, and asking for it is an error
        if "If-Range" in self.request.headers:  # has a part, perhaps of the other encoding: all of it is always right
            self.request.headers.pop("Range", None)
        if self._takes_gzip():
            self.path = self.parse_url_path(path)
            self.absolute_path = file = self.get_absolute_path(self.root, self.path)
            self._compressed = await asyncio.shield(asyncio.wrap_future(_compression(file)))
        if self._compressed is None:
            await super().get(path, include_body)
        else:
            self._send(self._compressed, include_body=include_body)

    def _takes_gzip(self) -> bool:
        headers = self.request.headers
        return "Range" not in headers and accepts_gzip(headers.get("Accept-Encoding", ""))

    def _send(self, file: Compressed, *, include_body: bool) -> None:
        self.modified = file.modified
        self.set_headers()
        self.set_header("Content-Encoding", "gzip")
        if self.should_return_304():
            self.set_status(304)
            return
        self.set_header("Content-Length", len(file.body))
        if include_body:
            self.write(file.body)

    def compute_etag(self) -> str | None:
        """Of the bytes that are sent, so that the encodings of one file are never taken for each other."""
        return super().compute_etag() if self._compressed is None else self._compressed.etag

    def set_extra_headers(self, path: str) -> None:
        """An address with a version stands for these bytes for ever; any other file is asked for again."""
        super().set_extra_headers(path)
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Cache-Control", FOR_GOOD if "v" in self.request.arguments else ASK_AGAIN)
        self.clear_header("Expires")


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` allows gzip, by name or by `*`; a weight of 0 forbids it."""
    weights: dict[str, str] = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight
    said = weights.get("gzip", weights.get("*"))
    return said is not None and NEVER.fullmatch(said) is None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="gzip")  # one: it takes no more than a core from the event loop


@lru_cache(maxsize=MOST_FILES)
def _compression(file: str) -> Future[Compressed | None]:
    """The same work for all who ask for a file while it is done, and what came of it for all who ask later."""
    return _threads().submit(_compress, Path(file))


def _compress(file: Path) -> Compressed | None:
    """None for what is no text, gains nothing, or cannot be read."""
    if not _is_text(file):
        return None
    try:
        content, modified_s = file.read_bytes(), int(file.stat().st_mtime)
    except OSError:
        return None
    body = gzip.compress(content, LEVEL, mtime=0)
    if len(body) >= len(content):
        return None
    return Compressed(body, f'"{sha256(body).hexdigest()}"', datetime.fromtimestamp(modified_s, UTC))


def _is_text(file: Path) -> bool:
    kind = mimetypes.guess_type(file.name)[0] or ""
    return kind != HTML and (kind.startswith("text/") or kind in GZipContentEncoding.CONTENT_TYPES)


def _begin_anew() -> None:
    """Threads stay behind when a process is forked, and with them whatever they were at."""
    _threads.cache_clear()
    _compression.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)
