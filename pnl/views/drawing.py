"""The page's plots, built and serialized once for all sessions: for each on its own it would take half of its time."""

from typing import Any

from bokeh.core.serialization import ObjectRefRep, Serializer
from bokeh.document import Document
from bokeh.model import Model
from bokeh.models import ColumnDataSource
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from pnl.stream.present import day_columns
from pnl.stream.wire import DAYS, FIELDS, LINE, with_id
from pnl.views import beside
from pnl.views.days import DaysView
from pnl.views.line import LineView

COLUMNS = {
    FIELDS: ("name", "text"),
    LINE: ("t", "net", "t0"),
    DAYS: tuple(day_columns({})),
    **beside.COLUMNS,
}


class Drawn(Model):
    """Stands in a session's document for a plot that was serialized before."""

    _rep: ObjectRefRep

    def to_serializable(self, serializer: Serializer) -> ObjectRefRep:
        """The plot, which refers to its sources by their ids: they have to come first in the document."""
        serializer.add_ref(self, self.ref)
        return self._rep


class Drawing:
    """Every plot of the page, by name; what is drawn follows the sources of the session that it is given to."""

    def __init__(self, zone_name: str) -> None:
        document = Document()
        sources = {
            name: with_id(ColumnDataSource, name, data={c: [] for c in names}) for name, names in COLUMNS.items()
        }
        for model in (*sources.values(), *_plots(sources, zone_name)):
            document.add_root(model)
        for model in document.models:
            model.syncable = False  # what a browser does to a plot stays there
            if isinstance(model, GlyphRenderer):  # nothing is ever selected or muted
                model.update(nonselection_glyph=None, muted_glyph=None)
        roots: list[Any] = document.to_json(deferred=False)["roots"]
        self._plots = roots[len(sources) :]

    def roots(self) -> list[Drawn]:
        """The plots for one session's document."""
        return [self._drawn(plot) for plot in self._plots]

    def _drawn(self, plot: ObjectRefRep) -> Drawn:
        drawn = with_id(Drawn, plot["attributes"]["name"], id=plot["id"])
        drawn._rep = plot  # noqa: SLF001 - its own
        return drawn


def _plots(sources: dict[str, ColumnDataSource], zone_name: str) -> list[figure]:
    line = LineView(sources[LINE], sources, zone_name)
    days = DaysView(sources[DAYS])
    days.follow(line.figure.x_range)
    return [line.figure, line.strip, days.figure]
