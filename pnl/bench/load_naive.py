"""The ordinary way, to compare with: one callback for each session and update, which streams and patches its sources.

An app for `panel serve`, with the updates per second as its argument. Its page is smaller than the dashboard's, and its
ranges are not reported back by browsers, both of which spare it work.
"""

import asyncio
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import panel as pn
from bokeh.document import Document
from bokeh.io import curdoc
from bokeh.models import ColumnDataSource
from bokeh.models.widgets import DataTable, TableColumn
from bokeh.plotting import figure

TEXTS = 30
TEXTS_CHANGED = 6
LINE_POINTS = 2000


class Sources(NamedTuple):
    """What one session shows."""

    fields: ColumnDataSource
    line: ColumnDataSource


class NaiveHub:
    """Makes an update so many times a second, and hands it to each session's document by itself."""

    def __init__(self, rate: float) -> None:
        self.sessions: dict[Document, Sources] = {}
        self._count = 0
        self._publishing = asyncio.get_running_loop().create_task(self._publish(1 / rate))

    def leave(self, document: Document) -> None:
        """Forget a session."""
        self.sessions.pop(document, None)

    async def _publish(self, period_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._count += 1
            t0 = time.time() * 1000
            point: dict[str, Any] = {"t": [t0], "net": [7800 + self._count % 100 / 100], "t0": [t0]}
            texts = [(place, f"{t0:.0f} {self._count}") for place in range(TEXTS_CHANGED)]
            for document, sources in list(self.sessions.items()):
                document.add_next_tick_callback(partial(_push, sources, texts, point))
            due = max(due + period_s, loop.time())
            await asyncio.sleep(due - loop.time())


def _push(sources: Sources, texts: list[tuple[int, str]], point: dict[str, Any]) -> None:
    sources.fields.patch({"text": texts})
    sources.line.stream(point, rollover=LINE_POINTS)


def serve(rate: float) -> None:
    """Build one session's page and let it follow."""
    hub = pn.state.as_cached("hub", partial(NaiveHub, rate))
    document = curdoc()
    fields = ColumnDataSource({"name": [f"{n}" for n in range(TEXTS)], "text": ["—"] * TEXTS}, name="fields")
    line = ColumnDataSource({"t": [], "net": [], "t0": []}, name="line")
    plot = figure(height=300)
    plot.x_range.syncable = plot.y_range.syncable = False
    plot.line("t", "net", source=line)
    for root in (plot, DataTable(source=fields, columns=[TableColumn(field="text")])):
        document.add_root(root)
    document.on_session_destroyed(lambda _: hub.leave(document))
    pn.state.onload(lambda: hub.sessions.update({document: Sources(fields, line)}))


if __name__.startswith("bokeh_app"):
    serve(float(sys.argv[1]))
