"""Net P&L by day and its running total, rebuilt from the records: what happened before the first snapshot shows too."""

from typing import Any

import panel as pn
from bokeh.models import BasicTicker, ColumnDataSource, CustomJSTransform, HoverTool
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from bokeh.transform import transform
from panel.viewable import Viewable, Viewer

from pnl.views.figure import GAIN, HEIGHT_PX, LOSS, money_figure

DAY_MS = 86_400_000
TONE = f"return xs.map(usd => usd < 0 ? '{LOSS}' : '{GAIN}')"


class DaysView(Viewer):
    """The running total above bars by day; `source` has `day` (ms, its start), `net` and `total` (US dollars)."""

    def __init__(self, source: ColumnDataSource) -> None:
        super().__init__()
        self.source = source
        self.total = _total(source)
        self.bars = _bars(source)

    def __panel__(self) -> Viewable:
        panes = [pn.pane.Bokeh(plot, sizing_mode="stretch_width") for plot in (self.total, self.bars)]
        return pn.Column(*panes, sizing_mode="stretch_width")


def _total(source: ColumnDataSource) -> figure:
    plot = money_figure("total", "Net P&L, running total by day")
    line = plot.line(x="day", y="total", source=source, line_width=2, line_color=GAIN)
    plot.add_tools(_hover(line, ("total", "@total{$0,0.00}")))
    return plot


def _bars(source: ColumnDataSource) -> figure:
    plot = money_figure("daily", "Net P&L by day")
    plot.height = HEIGHT_PX // 2
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    tone = transform("net", CustomJSTransform(v_func=TONE))
    bars = plot.vbar(x="day", top="net", width=DAY_MS * 0.8, source=source, fill_color=tone, line_color=None)
    plot.add_tools(_hover(bars, ("net", "@net{$0,0.00}")))
    return plot


def _hover(renderer: "GlyphRenderer[Any]", figure_shown: tuple[str, str]) -> HoverTool:
    tooltips = [("day", "@day{%F}"), figure_shown]
    return HoverTool(renderers=[renderer], tooltips=tooltips, formatters={"@day": "datetime"}, mode="vline")
