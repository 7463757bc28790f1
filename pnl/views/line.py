"""Net P&L over the last snapshots, as a line that grows."""

import panel as pn
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.plotting import figure
from panel.viewable import Viewable, Viewer

from pnl.views.figure import GAIN, money_figure


class LineView(Viewer):
    """The live line; `source` has `t` (local ms since the epoch), `net` (US dollars) and `t0` (when published)."""

    def __init__(self, source: ColumnDataSource, zone_name: str) -> None:
        super().__init__()
        self.source = source
        self.figure = _figure(source, zone_name)

    def __panel__(self) -> Viewable:
        return pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")


def _figure(source: ColumnDataSource, zone_name: str) -> figure:
    plot = money_figure("line", "Net P&L over the last snapshots")
    plot.step(x="t", y="net", source=source, mode="after", line_width=2, line_color=GAIN)
    plot.xaxis.axis_label = zone_name
    hover = HoverTool(
        tooltips=[("net", "@net{$0,0.00}"), ("at", "@t{%F %T}")], formatters={"@t": "datetime"}, mode="vline"
    )
    plot.add_tools(hover)
    return plot
