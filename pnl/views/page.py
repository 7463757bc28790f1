"""One session's page: the verdict in the HTML itself, the plots and the table below it, all following the hub."""

import asyncio
from collections.abc import Mapping
from datetime import tzinfo
from zoneinfo import ZoneInfo

import pandas as pd
import panel as pn
from bokeh.models import CustomJS
from markupsafe import escape

from pnl.history.client import History
from pnl.model import PnLModel
from pnl.stream import Hub, Live
from pnl.views.days import DaysView
from pnl.views.fills import FillsView, fills_frame
from pnl.views.history import HistoryView, Wish, instant_html, period_html
from pnl.views.verdict import asset, verdict_html

PAINT = "window.pnl.paint(fields)"
CUT = "window.pnl.cut()"
SHOW = "window.pnl.past.show(texts)"
BEGIN = "window.pnl.past.begin(asked, texts, plot)"


class Frames:
    """The table of fills, made once for all sessions and anew when a fill or a title came."""

    def __init__(self, model: PnLModel, zone: tzinfo) -> None:
        self._model = model
        self._zone = zone
        self._made_for: tuple[int, int] | None = None
        self._frame = pd.DataFrame()

    def fills(self) -> pd.DataFrame:
        """The current table; the same object while nothing changed."""
        now = (self._model.ledger.fill_count, len(self._model.marks))
        if now != self._made_for:
            self._frame = fills_frame(self._model.ledger.fills(), self._model.marks, self._zone)
            self._made_for = now
        return self._frame


def page(
    hub: Hub,
    frames: Frames,
    history: History,
    *,
    zone: str,
    late_s: float,
    polls: Mapping[str, float],
    is_demo: bool,
    is_simulated: bool,
) -> pn.Template:
    """Build the page of the current session; it follows the hub from when it has loaded until it is closed.

    Args:
        hub: What to follow.
        frames: Tables that all sessions share.
        history: Asked once the page is there, never before.
        zone: The reporting time zone, by name.
        late_s: Seconds without numbers from the server after which the page says so.
        polls: Seconds between two polls, by source; one that is missing is never called late by the page itself.
        is_demo: Made-up numbers from the built-in simulator.
        is_simulated: Made-up numbers from a simulator elsewhere on this machine.
    """
    fills = FillsView(frames.fills())
    past: HistoryView

    def on_records() -> None:
        fills.replace_rows(frames.fills())
        past.refresh_soon()

    live = hub.live(on_records)
    past = HistoryView(history, live.line, zone=zone, sources=polls, wish=_wish())
    # The texts have no plot of their own: the line's figure carries them into the document.
    past.line.figure.tags = [live.fields, past.texts, past.asked]
    live.fields.js_on_change("patching", CustomJS(args={"fields": live.fields}, code=PAINT))
    past.texts.js_on_change("patching", CustomJS(args={"texts": past.texts}, code=SHOW))
    template = pn.Template(asset("page.html"))
    variables = {
        "css": asset("page.css"),
        "js": asset("page.js"),
        "history_js": asset("history.js"),
        "instant": instant_html(past.fields),
        "period": period_html(past.fields),
        "verdict": verdict_html(hub.fields, hub.sources, polls=polls, zone=ZoneInfo(zone)),
        "zone": escape(zone),
        "late_ms": int(late_s * 1000),
        "is_demo": is_demo,
        "is_simulated": is_simulated,
    }
    for name, value in variables.items():
        template.add_variable(name, value)
    for name, view in (("line", past), ("days", DaysView(live.days)), ("fills", fills)):
        template.add_panel(name, view)
    _follow(hub, live, past)
    return template


def _follow(hub: Hub, live: Live, past: HistoryView) -> None:
    document = pn.state.curdoc
    if document is None:  # built outside a server, for instance by a test of the template: nothing to follow with
        return
    document.js_on_event("document_ready", CustomJS(args={"fields": live.fields}, code=PAINT))
    begin = {"asked": past.asked, "texts": past.texts, "plot": past.line.figure}
    document.js_on_event("document_ready", CustomJS(args=begin, code=BEGIN))
    document.js_on_event("connection_lost", CustomJS(code=CUT))
    # Bokeh calls back in another thread, where a newer patch could overtake the one that sends what was missed.
    loop = asyncio.get_running_loop()
    past.follow(document, loop)

    def join() -> None:
        loop.call_soon_threadsafe(hub.join, document, live)
        past.refresh_soon()

    pn.state.onload(join)
    pn.state.on_session_destroyed(lambda _context: hub.leave(document))


def _wish() -> Wish:
    """What the page's address asks for; the browser keeps it there."""
    said = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items() if values}
    return Wish(range=said.get("range", Wish().range), at=said.get("at", ""))


def notice(title: str, text: str, *, again_s: int | None = None) -> pn.Template:
    """A page that says one thing, and nothing else; it loads itself anew every so many seconds if told to."""
    template = pn.Template(asset("notice.html"))
    variables = {
        "css": asset("page.css"),
        "js": asset("notice.js"),
        "heading": escape(title),
        "text": escape(text),
        "again_s": again_s,
    }
    for name, value in variables.items():
        template.add_variable(name, value)
    return template
