"""Starts and stops the one engine of the process; every session shares it.

Bokeh runs this file twice, so nothing is started when it is imported; the guard has to stand before the server is made.
"""

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Any

import panel as pn
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed
from tornado.process import task_id
from tornado.websocket import WebSocketClosedError

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import PnlError, StoreError
from pnl.simulator.demo import engine_for
from pnl.sources import source_classes
from pnl.stream import LINE_POINTS, Hub
from pnl.views.alerts import AlertTexts
from pnl.views.deeds import Doers, in_thread
from pnl.views.drawing import Drawing
from pnl.views.health import Health
from pnl.views.notes import NoteTexts
from pnl.views.period import parse_instant
from pnl.views.positions import Positions, position_slots
from pnl.web.family import end_with_parent
from pnl.web.gate import guard, require_guard
from pnl.web.ops import port_of, serve_ops, served_engine

TURNS = 4
AGAIN_S = 1.0

log = logging.getLogger("pnl.app")
guard()


def on_server_loaded(context: Any) -> None:
    """Open everything beside the page that is served meanwhile; a failure is shown there and logged."""
    if task_id() is not None:  # one of several processes
        end_with_parent()
    shared = pn.state.cache
    try:
        settings = load_settings()
        require_guard(settings)
        engine = engine_for(settings)
        shared["engine"] = engine
        alerts, held, notes = AlertTexts(engine.alerts), Positions(engine.model), NoteTexts(engine.notes, settings.zone)
        shared["hub"] = hub = Hub(
            engine.model,
            settings.zone,
            source_classes(),
            metrics=engine.metrics,
            tables=lambda: alerts.newest() | position_slots(held.texts()) | notes.texts(),
            flush_ms=settings.flush_ms,
            flush_changes=settings.flush_changes,
        )
        shared["health"] = Health(engine.model, settings.zone, source_classes(), paces=lambda: engine.paces)
        shared["doers"] = doers_of(engine)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_unheard)
        engine.alerts.param.watch(lambda _event: hub.publish_tables(), "current")
        for publish in (hub.publish_tables, hub.publish_records):  # of notes: listed, and pinned anew
            engine.notes.watch(partial(loop.call_soon_threadsafe, publish))
        shared["drawing"] = Drawing(settings.timezone)
        shared["turns"] = asyncio.Semaphore(TURNS)
        engine.metrics.watch("pnl_connected_clients", lambda: {(): hub.connected_count})
        engine.metrics.watch("pnl_sessions", lambda: {(): len(context.sessions)})
        shared["ops"] = serve_ops(port_of(settings), served_engine, f"{settings.metrics_address}")
    except PnlError as error:
        _failed(error)
        return
    shared["opening"] = asyncio.get_running_loop().create_task(_open(engine, hub), name="engine-open")


async def _open(engine: Engine, hub: Hub) -> None:
    """Open the engine; a store that cannot be had now, as its server is away or its disk full, is tried again."""
    try:
        opening = AsyncRetrying(
            retry=retry_if_exception_type(StoreError), wait=wait_fixed(AGAIN_S), before_sleep=_again
        )
        await opening(engine.__aenter__)
        pn.state.cache.pop("failure", None)
        await _recall(engine, hub)
        engine.start()
        await engine.warm_history()
    except PnlError as error:
        _failed(error)
    except Exception:
        log.exception("the engine could not be opened")
        pn.state.cache["failure"] = "Something unforeseen went wrong; the log of the server has the details."


def _again(tried: RetryCallState) -> None:
    if tried.outcome is not None and isinstance(error := tried.outcome.exception(), PnlError):
        _failed(error)


async def _recall(engine: Engine, hub: Hub) -> None:
    try:
        hub.recall(await engine.store.snapshots(limit=LINE_POINTS))
    except StoreError as error:
        log.warning("the line begins with the next number: %s", error)


def _unheard(loop: asyncio.AbstractEventLoop, failed: dict[str, Any]) -> None:
    """A page that is closed while Panel writes to it is no trouble; anything else is logged as ever."""
    if not isinstance(failed.get("exception"), WebSocketClosedError):
        loop.default_exception_handler(failed)


def doers_of(engine: Engine) -> Doers:
    """Who does what somebody can do on a page."""

    def sync(name: str, _more: str) -> None:
        for source in (name,) if name else tuple(engine.model.sources):
            engine.poll_now(source)

    def note(text: str, at: str) -> None:
        zone = engine.settings.zone
        engine.notes.add(text, parse_instant(at, zone=zone, now=datetime.now(UTC)))

    return {
        "acknowledge": lambda name, _more: engine.alerts.acknowledge(name),
        "sync": sync,
        "note": in_thread(note),  # it waits for the disk
        "forget": in_thread(lambda number, _more: engine.notes.remove(int(number))),
    }


def _failed(error: PnlError) -> None:
    if pn.state.cache.get("failure") != str(error):  # once, however often it is tried
        log.error("%s", error)
    pn.state.cache["failure"] = str(error)


def on_server_unloaded(_context: Any) -> None:
    """Write what waits. This runs inside the server's loop for the last time: nothing can be awaited any more."""
    if ops := pn.state.cache.get("ops"):
        ops.stop()
    if "engine" in pn.state.cache:
        pn.state.cache["engine"].close_store()
