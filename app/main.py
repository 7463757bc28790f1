"""One session's page, or what keeps it from being shown."""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import panel as pn
from bokeh.document import Document

from pnl.config import Role
from pnl.views.page import Dashboard, notice
from pnl.web.access import role_of_page


def serve(document: Document) -> None:
    """Hand the page to the session; a failure that nobody foresaw is shown with a reference into the log."""
    try:
        build(pn.state.cache, document, role_of_page(pn.state.headers))
    except Exception:
        reference = uuid4().hex[:8]
        logging.getLogger("pnl.app").exception("reference %s: the page could not be built", reference)
        text = f"Look for the reference {reference} in the log of the server, and load the page anew."
        notice(document, "This page could not be built", text)


def build(shared: Mapping[str, Any], document: Document, role: Role) -> None:
    """The page, or in plain words why there is none."""
    if "failure" in shared:
        why = shared["failure"] if role is Role.OWNER else "Whoever runs it can see why."
        notice(document, "pnl cannot start", why, again_s=5)
    elif not is_open(shared):  # the visit that warms the server up comes before anything is open
        notice(document, "Starting", "The numbers appear in a moment.", again_s=1)
    else:
        dashboard(shared).build(document, role)


def dashboard(shared: Mapping[str, Any]) -> Dashboard:
    """What all pages share, once the sources are known."""
    engine = shared["engine"]
    return Dashboard(
        shared["hub"],
        engine.history,
        shared["drawing"],
        zone=engine.settings.timezone,
        late_s=engine.late_s,
        polls={name: source.poll_s for name, source in engine.model.sources.items()},
        is_demo=engine.is_demo,
        is_simulated=engine.settings.is_simulated,
        checklist=engine.metrics.checklist,
        turns=shared["turns"],
        doers=shared["doers"],
        health=shared["health"],
        notes=engine.notes,
    )


def is_open(shared: Mapping[str, Any]) -> bool:
    """Whether the sources are known: how long a silence of theirs is normal stands in the page from the start."""
    return "opening" in shared and bool(shared["engine"].model.sources or shared["opening"].done())


serve(pn.state.curdoc)
