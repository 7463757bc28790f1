"""The equity plot of a range in a notebook cell, and the page's own markup of a period and of an instant."""

from collections.abc import Collection, Mapping

from bokeh.models import ColumnDataSource
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.views.beside import COLUMNS, empty
from pnl.views.line import LineView
from pnl.views.past import Past
from pnl.views.verdict import rendered
from pnl.views.wish import Wish

PRESETS = {"today": "Today", "7d": "7d", "30d": "30d", "mtd": "MTD", "ytd": "YTD", "all": "All"}
FIGURES = {
    "net": "Net, booked",
    "trading": "Trading",
    "fees": "Fees",
    "costs": "AI",
    "revenue": "Deals",
}


class HistoryView(Viewer):
    """The equity plot of a range: `view = HistoryView(history, zone="UTC"); await view.load(); view`.

    Args:
        history: Whom to ask.
        zone: The reporting time zone, by name.
        sources: The sources that are configured; what only others could know is unknown.
        range_: As somebody would type it, see `parse_range`.
    """

    def __init__(self, history: History, *, zone: str, sources: Collection[str] = (), range_: str = "all") -> None:
        super().__init__()
        live = ColumnDataSource({"t": [], "net": [], "t0": []})
        drawn = {name: ColumnDataSource(empty(name), name=name) for name in COLUMNS}
        self.past = Past(history, lambda: live.data, zone=zone, sources=sources, wish=Wish(range=range_), drawn=drawn)
        self.line = LineView(live, drawn, zone)

    async def load(self) -> None:
        """Read what is to be shown.

        Raises:
            HistoryError: There is no answer, or no such range.
        """
        await self.past.load()
        trouble = self.past.fields["past.range.error"] or self.past.fields["past.error"]
        if trouble:
            raise HistoryError(trouble)

    def __panel__(self) -> Viewable:
        return self.line.__panel__()


def period_html(fields: Mapping[str, str], live: Mapping[str, str] | None = None) -> Markup:
    """The figures of the period with these texts, all of them escaped.

    Args:
        fields: The texts about the past, by name.
        live: Those that follow the numbers; the month's budget is one of them.
    """
    return rendered("period.html", f=fields, live=live or {}, presets=PRESETS, figures=FIGURES)


def instant_html(fields: Mapping[str, str]) -> Markup:
    """The strip about an instant of the past, empty while none is chosen."""
    return rendered("instant.html", f=fields)
