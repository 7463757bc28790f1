"""One session's page, or what keeps it from being shown."""

import logging
from uuid import uuid4

import panel as pn

from pnl.views.page import notice, page

pn.extension("tabulator")


def build() -> pn.Template:
    """The page; a failure is said in plain words, and one that nobody foresaw with a reference into the log."""
    shared = pn.state.cache
    if "failure" in shared:
        return notice("pnl cannot start", shared["failure"])
    if "hub" not in shared:  # the visit that warms the server up comes before anything is open
        return notice("Starting", "The numbers appear in a moment.", again_s=1)
    try:
        engine = shared["engine"]
        settings = engine.settings
        return page(
            shared["hub"],
            shared["frames"],
            zone=settings.timezone,
            late_s=engine.late_s,
            is_demo=engine.is_demo,
            is_simulated=settings.is_simulated,
        )
    except Exception:
        reference = uuid4().hex[:8]
        logging.getLogger("pnl.app").exception("reference %s: the page could not be built", reference)
        return notice("This page could not be built", f"Look for the reference {reference} in the log of the server.")


build().servable()
