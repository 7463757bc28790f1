"""What an operator's programs ask: does the process live, can its numbers be relied on, and how does it do.

`/healthz` says that the process lives, `/readyz` that sources are fresh and the store is written (else 503, and which
part is not), `/metrics` what Prometheus reads. They are on the dashboard's own port, behind the same gate; with a
password, all but `/healthz` ask for it. A scraper cannot log in, so the same three are on a port of their own
(`PNL_METRICS_PORT`) that only this machine reaches, unless `PNL_METRICS_ADDRESS` says otherwise, without a password:
anybody who reaches it may read there how old the sources are and how far the venue's figures are from ours, but no key,
title or total.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

import panel as pn
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from pnl.config import Settings
from pnl.engine import LATE_S, Engine
from pnl.records import Reading
from pnl.web.headers import ProtectiveHeaders

HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
LIMITS = {"max_body_size": 1 << 16, "idle_connection_timeout": 75.0}
LOOPBACK = "127.0.0.1"
PORT = 9464

type FindEngine = Callable[[], Engine | None]

log = logging.getLogger(__name__)


def served_engine() -> Engine | None:
    """The one engine of this process, None until there is one."""
    engine: Engine | None = pn.state.cache.get("engine")
    return engine


def port_of(settings: Settings) -> int:
    """The port beside the dashboard's own; 0: none."""
    if settings.metrics_port is not None:
        return settings.metrics_port
    asks_for_password = settings.password is not None or settings.password_file is not None
    return 0 if asks_for_password else PORT


def serve_ops(port: int, engine: FindEngine, address: str = LOOPBACK) -> HTTPServer | None:
    """Serve the three on a port of their own; None if it is 0, or cannot be had, which is logged and hurts nothing."""
    if port == 0:
        return None
    try:
        listener = listening(port, address)
    except OSError as error:
        log.warning(
            "/metrics is not served on %s:%s (%s); set PNL_METRICS_PORT to a free port, or to 0 for none",
            address,
            port,
            os.strerror(error.errno or 0),
        )
        return None
    server = HTTPServer(OpsGate(engine, is_local=ip_address(address).is_loopback), **LIMITS)
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    server.add_socket(listener)
    return server


def listening(port: int, address: str) -> socket.socket:
    """A socket that listens; Tornado's own way leaves one behind when it fails."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def unready(
    readings: Iterable[Reading[Any]], *, late_s: Mapping[str, float], unwritten_s: float, now: datetime
) -> Iterator[str]:
    """What keeps the numbers from being relied on, in plain words; nothing when they can be.

    Args:
        readings: How good each source's answer is.
        late_s: By source, from which age on its answer is too old.
        unwritten_s: For how long nothing could be recorded.
        now: Aware.
    """
    for reading in readings:
        if reading.source not in late_s:  # it is not asked from here
            continue
        age_s = reading.age_s(now)
        if age_s is None:
            yield f"{reading.source}: no good answer yet"
        elif age_s > late_s[reading.source]:
            yield f"{reading.source}: no good answer for {age_s:.0f} s"
    if unwritten_s > LATE_S:
        yield "store: nothing can be recorded; the log says why"


class Refusal(RequestHandler):
    """Says no, and why."""

    def initialize(self, status: HTTPStatus, text: str) -> None:
        """Tornado's own way to hand things in."""
        self._status = status
        self._text = text

    def prepare(self) -> None:
        """Answer before any method is looked at."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(self._text)

    def check_xsrf_cookie(self) -> None:
        """There is nothing to protect."""


class Health(RequestHandler):
    """The process lives; shows nothing else, so anybody who may ask at all may ask for it."""

    def get(self) -> None:
        """As cheap as an answer can be: pages ask every second."""
        self.set_header("Content-Type", "text/plain")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Now-Ms", f"{time.time() * 1000:.1f}")  # pages compare their clocks
        self.finish("ok")

    head = get


class _Ops(RequestHandler):
    """What programs ask of the engine."""

    def initialize(self, engine: FindEngine) -> None:
        """Tornado's own way to hand things in."""
        self._engine = engine

    def prepare(self) -> None:
        """Nothing of this is to be kept, and it is for programs to read."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")


class Ready(_Ops):
    """Whether the numbers can be relied on: sources fresh, store written."""

    def get(self) -> None:
        """200, or 503 and one line for each part that is not as it should be."""
        troubles = self._troubles()
        if troubles:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.finish("\n".join(troubles or ["ready"]) + "\n")

    head = get

    def _troubles(self) -> list[str]:
        engine = self._engine()
        if engine is None or not engine.readings:
            return ["the engine is not open; the page and the log say why, unless it is just starting"]
        late_s, unwritten_s = engine.late_sources_s, engine.unwritten_s
        return list(unready(engine.readings, late_s=late_s, unwritten_s=unwritten_s, now=datetime.now(UTC)))


class Scrape(_Ops):
    """The metrics, as Prometheus reads them."""

    def get(self) -> None:
        """In whichever of its formats it asks for."""
        engine = self._engine()
        if engine is None:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            self.finish("the engine is not open\n")
            return
        text, content_type = engine.metrics.scrape(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(text)

    head = get


OPS: Mapping[str, type[_Ops]] = {"/readyz": Ready, "/metrics": Scrape}
"""By path, what may not be asked by everybody who may ask for `/healthz`."""


class OpsGate(Router):
    """The three on a port of their own; on this machine's own address under its own names alone.

    Where other machines reach it there is no browser to protect, and a scraper calls it by many names.
    """

    def __init__(self, engine: FindEngine, *, is_local: bool = True) -> None:
        self._is_local = is_local
        ops = [(path, handler, {"engine": engine}) for path, handler in OPS.items()]
        self._app = Application(
            [("/healthz", Health), *ops],
            transforms=[ProtectiveHeaders],
            log_function=lambda _handler: None,  # not each scrape is worth a line
        )

    def find_handler(self, request: HTTPServerRequest, **given: Any) -> HTTPMessageDelegate | None:
        """A page that turned its own name to this machine gets nothing."""
        if not self._is_local or request.host_name in HERE:
            return self._app.find_handler(request, **given)
        told = {"status": HTTPStatus.MISDIRECTED_REQUEST, "text": "This port goes by localhost and 127.0.0.1 alone.\n"}
        return self._app.get_handler_delegate(request, Refusal, told)
