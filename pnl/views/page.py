"""One session's page: the verdict in the HTML itself, the plots and the table below it, all following the hub.

A session's document holds its sources and no more; the plots that refer to them were serialized once, see `Drawing`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import panel as pn
from bokeh.document import Document
from bokeh.models import CustomJS
from bokeh.server.views.static_handler import StaticHandler

from pnl.history.client import History
from pnl.metrics import Checklist
from pnl.stream import Hub, Live
from pnl.stream.delivery import Seen, every_s
from pnl.stream.wire import with_id
from pnl.views.drawing import Drawing
from pnl.views.fills import PAGE_ROWS, FillPages
from pnl.views.history import instant_html, period_html
from pnl.views.past import Past, Wish
from pnl.views.timings import checklist_fields, timing_fields
from pnl.views.verdict import asset, notice_texts, templates, verdict_html

BEGIN = "window.pnl.begin()"
CUT = "window.pnl.cut()"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of all sessions have in common.

    Attributes:
        hub: What to follow.
        fills: The table of fills.
        history: Asked once a page is there, never before.
        drawing: The plots.
        zone: The reporting time zone, by name.
        late_s: Seconds without numbers from the server after which a page says so.
        polls: Seconds between two polls, by source; one that is missing is never called late by the page itself.
        is_demo: Made-up numbers from the built-in simulator.
        is_simulated: Made-up numbers from a simulator elsewhere on this machine.
        checklist: How long each step from an answer to a pixel takes.
        turns: For pages that ask the history, see `Past`.
    """

    hub: Hub
    fills: FillPages
    history: History
    drawing: Drawing
    zone: str
    late_s: float
    polls: Mapping[str, float]
    is_demo: bool
    is_simulated: bool
    checklist: Checklist
    turns: asyncio.Semaphore

    def build(self, document: Document) -> None:
        """Make a session's document its page, which follows from when it is there until it is closed."""
        live = self.hub.live()
        past = Past(
            self.history,
            lambda: self.hub.present.line.columns,
            zone=self.zone,
            sources=self.polls,
            fills=self.fills.page,
            timings=self._timings,
            turns=self.turns,
            wish=_wish(),
        )
        seen = with_id(Seen, "seen")
        sources = (*live.sources, *past.models, seen)
        with document.models.freeze():  # or each root has all of them counted anew
            for root in (*sources, *self.drawing.roots()):
                document.add_root(root)
        document.template = templates.get_template("page.html")
        document.template_variables.update(self._texts(past), sources=[source.id for source in sources])
        self._follow(document, live, past)
        self._hear(seen)

    def _texts(self, past: Past) -> dict[str, Any]:
        fields = self.hub.fields
        return {
            "css": asset("page.css"),
            "js": asset("page.js"),
            "history_js": asset("history.js"),
            "scripts": [static("js/bokeh.min.js")],
            "instant": instant_html(past.fields),
            "period": period_html(past.fields),
            "verdict": verdict_html(fields, self.hub.sources, polls=self.polls, zone=ZoneInfo(self.zone)),
            "fills": [line.split("\t") for line in fields.get("fills", "").splitlines()],
            "page_rows": PAGE_ROWS,
            "zone": self.zone,
            "late_ms": int(self.late_s * 1000),
            "report_ms": int(every_s(self.hub.session_count) * 1000),
            "is_demo": self.is_demo,
            "is_simulated": self.is_simulated,
        }

    def _timings(self) -> Mapping[str, str]:
        zone = ZoneInfo(self.zone)
        return timing_fields(self.history.queries, zone) | checklist_fields(self.checklist)

    def _hear(self, seen: Seen) -> None:
        loop = asyncio.get_running_loop()

        def heard(_name: str, _old: str, said: str) -> None:
            loop.call_soon_threadsafe(self.hub.deliveries.hear, said)

        seen.on_change("report", heard)

    def _follow(self, document: Document, live: Live, past: Past) -> None:
        document.js_on_event("document_ready", CustomJS(code=BEGIN))
        document.js_on_event("connection_lost", CustomJS(code=CUT))
        # Bokeh calls back in another thread; what belongs to the loop is done there.
        past.follow(document, asyncio.get_running_loop())
        document.on_event("document_ready", lambda _event: past.refresh_soon())

        def leave(_context: object) -> None:
            past.leave()
            self.hub.leave(document)

        document.on_session_destroyed(leave)
        self.hub.join(document, live, past.refresh_soon)


def static(name: str) -> str:
    """The address of one of Bokeh's files, as the page has to ask for it."""
    home = f"{pn.state.rel_path}/" if pn.state.rel_path else ""
    return f"{home}static/{StaticHandler.append_version(name)}"


def _wish() -> Wish:
    """What the page's address asks for; the browser keeps it there."""
    said = {name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items() if values}
    return Wish(range=said.get("range", Wish().range), at=said.get("at", ""))


def notice(document: Document, title: str, text: str, *, again_s: int | None = None) -> None:
    """Make a document a page that says one thing; it loads itself anew every so many seconds if told to."""
    document.clear()  # of a half that may be there already
    document.template = templates.get_template("notice.html")
    document.template_variables.clear()
    document.template_variables.update(notice_texts(title, text, again_s=again_s))
