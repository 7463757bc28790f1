"""Starts and stops the one engine of the process; every session shares it.

Bokeh runs this file twice, so nothing is started when it is imported; the guard has to stand before the server is made.
"""

import asyncio
import logging
from typing import Any

import panel as pn

from pnl.config import load_settings
from pnl.engine import Engine
from pnl.errors import PnlError
from pnl.simulator.demo import engine_for
from pnl.sources import source_classes
from pnl.stream import LINE_POINTS, Hub
from pnl.views.drawing import Drawing
from pnl.views.fills import FillPages
from pnl.web.gate import guard, require_guard
from pnl.web.ops import port_of, serve_ops, served_engine

TURNS = 4

log = logging.getLogger("pnl.app")
guard()


def on_server_loaded(context: Any) -> None:
    """Open everything beside the page that is served meanwhile; a failure is shown there and logged."""
    shared = pn.state.cache
    try:
        settings = load_settings()
        require_guard(settings)
        engine = engine_for(settings)
        shared["engine"] = engine
        shared["fills"] = fills = FillPages(engine.model, settings.zone)
        shared["hub"] = hub = Hub(
            engine.model,
            settings.zone,
            source_classes(),
            metrics=engine.metrics,
            tables=fills.newest,
            flush_ms=settings.flush_ms,
            flush_changes=settings.flush_changes,
        )
        shared["drawing"] = Drawing(settings.timezone)
        shared["turns"] = asyncio.Semaphore(TURNS)
        engine.metrics.watch("pnl_connected_clients", lambda: {(): hub.connected_count})
        engine.metrics.watch("pnl_sessions", lambda: {(): len(context.sessions)})
        shared["ops"] = serve_ops(port_of(settings), served_engine)
    except PnlError as error:
        _failed(error)
        return
    shared["opening"] = asyncio.get_running_loop().create_task(_open(engine, hub), name="engine-open")


async def _open(engine: Engine, hub: Hub) -> None:
    try:
        await engine.__aenter__()
        hub.recall(await engine.store.snapshots(limit=LINE_POINTS))
        engine.start()
        await engine.warm_history()
    except PnlError as error:
        _failed(error)
    except Exception:
        log.exception("the engine could not be opened")
        pn.state.cache["failure"] = "Something unforeseen went wrong; the log of the server has the details."


def _failed(error: PnlError) -> None:
    pn.state.cache["failure"] = str(error)
    log.error("%s", error)


def on_server_unloaded(_context: Any) -> None:
    """Write what waits. This runs inside the server's loop for the last time: nothing can be awaited any more."""
    if ops := pn.state.cache.get("ops"):
        ops.stop()
    if "engine" in pn.state.cache:
        pn.state.cache["engine"].close_store()
