"""Net P&L over time: what was recorded or rebuilt as steps, and the last snapshots as a line that grows."""

from typing import Any

import panel as pn
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    DatetimeTicker,
    HoverTool,
    PanTool,
    ResetTool,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from panel.viewable import Viewable, Viewer

from pnl.views.figure import GAIN, GREY, money_figure

HEIGHT_PX = 340
PADDING = 0.02
TICKS = 5  # so many labels fit side by side on a phone


class LineView(Viewer):
    """The equity plot.

    `source` has the live line: `t` (local ms since the epoch), `net` (US dollars) and `t0` (when published).
    `steps` has what was before it, in the columns of `equity_columns`.
    """

    def __init__(self, source: ColumnDataSource, steps: ColumnDataSource, zone_name: str) -> None:
        super().__init__()
        self.source = source
        self.steps = steps
        self.figure = _figure(zone_name)
        self._draw()

    def _draw(self) -> None:
        plot, steps = self.figure, self.steps
        plot.quad(
            left="t",
            right="right",
            bottom="low",
            top="high",
            source=steps,
            fill_color=GAIN,
            fill_alpha=0.22,
            line_color=None,
        )
        rebuilt = plot.step(
            x="t", y="rebuilt", source=steps, mode="after", line_width=1.5, line_color=GREY, line_dash=[5, 3]
        )
        net = plot.step(x="t", y="net", source=steps, mode="after", line_width=2, line_color=GAIN)
        self.live = plot.step(x="t", y="net", source=self.source, mode="after", line_width=2, line_color=GAIN)
        self.live.name = "live"
        band = ("from, to", "@low{$0,0.00} … @high{$0,0.00}")
        plot.add_tools(_hover(net, ("net", "@net{$0,0.00}"), band))
        plot.add_tools(_hover(rebuilt, ("net, rebuilt", "@rebuilt{$0,0.00}")))
        plot.add_tools(_hover(self.live, ("net", "@net{$0,0.00}")))

    def __panel__(self) -> Viewable:
        return pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")


def _figure(zone_name: str) -> figure:
    plot = money_figure("equity", "Net P&L over time")
    plot.height = HEIGHT_PX
    plot.xaxis.axis_label = zone_name
    plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=TICKS)
    plot.x_range = DataRange1d(range_padding=PADDING, only_visible=True, syncable=False)
    plot.y_range = DataRange1d(only_visible=True, syncable=False)
    # Sideways only: up and down the plot follows by itself. The wheel scrolls the page.
    plot.add_tools(PanTool(dimensions="width"), BoxZoomTool(dimensions="width"), ResetTool())
    return plot


def _hover(renderer: "GlyphRenderer[Any]", *shown: tuple[str, str]) -> HoverTool:
    tooltips = [*shown, ("at", "@t{%F %T}")]
    return HoverTool(renderers=[renderer], tooltips=tooltips, formatters={"@t": "datetime"}, mode="vline")
