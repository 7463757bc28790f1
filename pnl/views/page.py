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
from markupsafe import Markup

from pnl.config import Role
from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.history.dimensions import DIMENSIONS
from pnl.metrics import Checklist
from pnl.notes import Notes
from pnl.stream import Hub, Live
from pnl.stream.delivery import Seen, every_s
from pnl.stream.wire import with_id
from pnl.views.alerts import alerts_html
from pnl.views.breakdown import COLUMNS as PARTS
from pnl.views.breakdown import BreakdownPanel
from pnl.views.deeds import Doers, Done, follow
from pnl.views.drawing import Drawing
from pnl.views.health import Health, HealthPanel, health_html
from pnl.views.history import PRESETS, instant_html, period_html
from pnl.views.ledger import COLUMNS as ROWS
from pnl.views.ledger import LedgerPanel, RecordPanel
from pnl.views.notes import note_columns, notes_html
from pnl.views.panel import Panel
from pnl.views.past import Past
from pnl.views.period import InstantPanel, PeriodPanel
from pnl.views.positions import positions_html
from pnl.views.timings import TimingsPanel
from pnl.views.verdict import asset, notice_texts, templates, verdict_html
from pnl.views.wish import wish_of

SCRIPTS = ("page", "wish", "plot", "parts", "ledger", "alerts", "health", "notes", "keys")
STYLES = ("page", "alerts", "health", "period", "positions", "parts", "ledger", "notes")
TABS = {
    "source": "Source",
    "series": "Series",
    "event": "Event",
    "market": "Market",
    "side": "Side",
    "item": "Model",
    "deal": "Deals",
    "calendar": "Calendar",
    "weekday": "Weekday",
    "hour": "Hour",
}
BEGIN = "window.pnl.begin()"
CUT = "window.pnl.cut()"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What the pages of all sessions have in common.

    Attributes:
        hub: What to follow.
        history: Asked once a page is there, never before.
        drawing: The plots.
        zone: The reporting time zone, by name.
        late_s: Seconds without numbers from the server after which a page says so.
        polls: Seconds between two polls, by source; one that is missing is never called late by the page itself.
        is_demo: Made-up numbers from the built-in simulator.
        is_simulated: Made-up numbers from a simulator elsewhere on this machine.
        checklist: How long each step from an answer to a pixel takes.
        turns: For pages that ask the history, see `Past`.
        doers: Who does what somebody can do on a page, by the name of the deed.
        health: What is known of each source.
        notes: What is pinned to the equity plot.
    """

    hub: Hub
    history: History
    drawing: Drawing
    zone: str
    late_s: float
    polls: Mapping[str, float]
    is_demo: bool
    is_simulated: bool
    checklist: Checklist
    turns: asyncio.Semaphore
    doers: Doers
    health: Health
    notes: Notes

    def build(self, document: Document, role: Role = Role.OWNER) -> None:
        """Make a session's document its page, which follows from when it is there until it is closed.

        What a role may not see or do has neither a text in the document nor anybody who hears of it.
        """
        live = self.hub.live(role)
        past = Past(
            self.history,
            lambda: self.hub.present.line.columns,
            zone=self.zone,
            sources=self.polls,
            panels=self._panels(role),
            notes=lambda: note_columns(self.notes.all(), ZoneInfo(self.zone)),
            turns=self.turns,
            wish=wish_of(pn.state.session_args),
            explain=str if role is Role.OWNER else unexplained,
        )
        heard = (with_id(Seen, "seen"), with_id(Done, "done")) if role is Role.OWNER else ()
        sources = (*live.sources, *past.models, *heard)
        with document.models.freeze():  # or each root has all of them counted anew
            for root in (*sources, *self.drawing.roots()):
                document.add_root(root)
        document.template = templates.get_template("page.html")
        document.template_variables.update(self._texts(past, role), sources=[source.id for source in sources])
        self._follow(document, live, past, role)
        if heard:
            self._hear(*heard)

    def _texts(self, past: Past, role: Role) -> dict[str, Any]:
        fields, zone, is_owner = self.hub.fields(role), ZoneInfo(self.zone), role is Role.OWNER
        return {
            **same_on_every_page(),
            "role": role.value,
            "is_owner": is_owner,
            "scripts": [static("js/bokeh.min.js")],
            "alerts": alerts_html(fields, zone, is_owner=is_owner),
            "health": health_html(fields | past.fields, self.hub.sources if is_owner else ()),
            "positions": positions_html(fields),
            "notes": notes_html(fields, can_write=is_owner),
            "instant": instant_html(past.fields),
            "period": period_html(past.fields, fields),
            "verdict": verdict_html(fields, self.hub.sources, polls=self.polls, zone=zone),
            "live": fields,
            "f": past.fields,
            "zone": self.zone,
            "late_ms": int(self.late_s * 1000),
            "report_ms": int(every_s(self.hub.session_count) * 1000),
            "is_demo": self.is_demo,
            "is_simulated": self.is_simulated,
        }

    def _panels(self, role: Role) -> list[Panel]:
        everybodys: list[Panel] = [PeriodPanel(), BreakdownPanel(), LedgerPanel(), InstantPanel()]
        if role is not Role.OWNER:
            return everybodys
        performance = TimingsPanel(self.history.queries, self.checklist)
        return [*everybodys, RecordPanel(), HealthPanel(self.health), performance]

    def _hear(self, seen: Seen, done: Done) -> None:
        loop = asyncio.get_running_loop()
        follow(done, self.doers, loop)

        def heard(_name: str, _old: str, said: str) -> None:
            loop.call_soon_threadsafe(self.hub.deliveries.hear, said)

        seen.on_change("report", heard)

    def _follow(self, document: Document, live: Live, past: Past, role: Role) -> None:
        document.js_on_event("document_ready", CustomJS(code=BEGIN))
        document.js_on_event("connection_lost", CustomJS(code=CUT))
        # Bokeh calls back in another thread; what belongs to the loop is done there.
        past.follow(document, asyncio.get_running_loop())

        def leave(_context: object) -> None:
            past.leave()
            self.hub.leave(document)

        document.on_session_destroyed(leave)
        self.hub.join(document, live, past.refresh_soon, role=role)


def unexplained(_error: HistoryError) -> str:
    """What viewers are told when the history has no answer."""
    return "The past cannot be read now."


def same_on_every_page() -> dict[str, Any]:
    """What the page's template says whatever the numbers are."""
    return {
        "css": styles(),
        "scripts_here": [asset(f"{name}.js") for name in SCRIPTS],
        "dimensions": DIMENSIONS,
        "presets": PRESETS,
        "tabs": TABS,
        "parts": PARTS,
        "rows": ROWS,
    }


def static(name: str) -> str:
    """The address of one of Bokeh's files, as the page has to ask for it."""
    home = f"{pn.state.rel_path}/" if pn.state.rel_path else ""
    return f"{home}static/{StaticHandler.append_version(name)}"


def styles() -> Markup:
    """The style sheets of the page, as one."""
    return Markup("\n").join(asset(f"{name}.css") for name in STYLES)


def notice(document: Document, title: str, text: str, *, again_s: int | None = None) -> None:
    """Make a document a page that says one thing; it loads itself anew every so many seconds if told to."""
    document.clear()  # of a half that may be there already
    document.template = templates.get_template("notice.html")
    document.template_variables.clear()
    document.template_variables.update(notice_texts(title, text, again_s=again_s))
