"""The first thing read: net P&L, the equation behind it, and how far each source can be believed."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from functools import cache
from importlib.resources import files
from typing import Any

import panel as pn
import param
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.model import PnLModel
from pnl.records import Snapshot
from pnl.sources import TITLES
from pnl.stream import fields_of

templates = Environment(
    loader=PackageLoader("pnl.views", "templates"),
    autoescape=select_autoescape(default=True),  # every text may come from outside
    trim_blocks=True,
    lstrip_blocks=True,
)


@cache
def asset(name: str) -> Markup:
    """A style sheet or script of the page, to stand in it as it is."""
    return Markup(files("pnl.views").joinpath("templates", name).read_text("utf-8"))  # noqa: S704 - our own file


def rendered(name: str, **known: Any) -> Markup:
    """A template with these texts, all of them escaped."""
    return Markup(templates.get_template(name).render(known))  # noqa: S704 - as escaped as it gets


def notice_texts(heading: str, text: str, *, again_s: int | None = None) -> dict[str, Any]:
    """What `notice.html` takes: a page that says one thing, and loads itself anew every so many seconds if told to."""
    return {"css": asset("page.css"), "js": asset("notice.js"), "heading": heading, "text": text, "again_s": again_s}


def verdict_html(
    fields: Mapping[str, str],
    sources: Sequence[str],
    *,
    polls: Mapping[str, float] | None = None,
    zone: tzinfo | None = None,
) -> Markup:
    """The verdict and the source chips with these texts, all of them escaped.

    Args:
        fields: The texts by name, as `fields_of` gives them.
        sources: The names to show a chip for.
        polls: Seconds between two polls, by source: the page calls one late by itself when its polls fail to come.
        zone: For the time that the numbers hold for; None: this machine's.
    """
    known = {"f": fields, "sources": sources, "titles": TITLES, "polls": polls or {}}
    return rendered("verdict.html", **known, as_of=_clock(fields["as_of"], zone))


def _clock(iso: str, zone: tzinfo | None) -> str:
    return f"{datetime.fromisoformat(iso).astimezone(zone):%H:%M:%S}" if iso else "—"


class VerdictView(Viewer):
    """The verdict in a notebook cell or an app of one's own; follows the model by itself."""

    model = param.ClassSelector(class_=PnLModel, doc="Whose snapshot is shown.")

    def __init__(self, model: PnLModel, **params: Any) -> None:
        super().__init__(model=model, **params)
        self._pane = pn.pane.HTML(pn.bind(_html, model.param.snapshot), sizing_mode="stretch_width")

    def __panel__(self) -> Viewable:
        return self._pane


def _html(snapshot: Snapshot | None) -> str:
    names = [] if snapshot is None else [reading.source for reading in snapshot.sources]
    return f"<style>{asset('page.css')}</style>{verdict_html(fields_of(snapshot, names), names)}"
