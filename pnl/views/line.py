"""Net P&L over time: what was recorded or rebuilt as steps, the last snapshots as a line that grows, its mark below."""

from collections.abc import Mapping
from typing import Any

import panel as pn
from bokeh.models import (
    BasicTicker,
    BoxZoomTool,
    ColumnDataSource,
    CustomJSTransform,
    DataRange1d,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure
from bokeh.transform import transform
from panel.viewable import Viewable, Viewer

from pnl.views.figure import GAIN, GREY, LOSS, PIN, USD, money_figure, money_hover, said

HEIGHT_PX, PHONE_PX = 340, 200
STRIP_PX, PHONE_STRIP_PX = 90, 84
PADDING = 0.02
GAP_PX = 10
EDGE = "edge"  # a y axis of its own, from the lower edge (0) to the upper one

# What is live goes on from the last mark that is known; a gap in it is one.
MARK = """const known = under.data.high;
let high = known.length ? known[known.length - 1] : -Infinity;
return Array.from(xs, (usd) => {
  if (!Number.isFinite(usd)) return NaN;
  high = Math.max(high, usd);
  return %s;
})"""
NEXT = "return Array.from(xs, (x, i) => (i + 1 < xs.length ? xs[i + 1] : x))"

type Renderers = list[GlyphRenderer[Any]]


class LineView(Viewer):
    """The equity plot and, below it, how far net P&L was below its high-water mark.

    Args:
        live: The live line: `t` (local ms since the epoch), `net` (US dollars) and `t0` (when published).
        sources: What was before it and what stands beside it, each by its name in `beside.COLUMNS`.
        zone_name: Of the reporting time zone.
    """

    def __init__(self, live: ColumnDataSource, sources: Mapping[str, ColumnDataSource], zone_name: str) -> None:
        super().__init__()
        self.source = live
        self.sources = sources
        self.figure = _figure()
        self.strip = _strip(self.figure)
        self._at = (f"at, {zone_name}", "t", "%F %T")
        beside, line = self._draw_beside(), self._draw_line()
        self.figure.x_range.update(renderers=line)  # nothing beside the line makes the plot longer
        self.figure.y_range.update(renderers=[*beside, *line])  # and no pin makes it higher
        self._draw_under()
        self._draw_pins()

    def _draw_beside(self) -> Renderers:
        plot, under = self.figure, self.sources["under"]
        mark: dict[str, Any] = {"mode": "after", "line_color": GREY, "line_alpha": 0.6, "line_width": 1}
        before = plot.step(x="t", y="high", source=under, **mark)
        self.mark = plot.step(x="t", y=self._of_live("high"), source=self.source, **mark)
        ghost = plot.step(
            x="t", y="net", source=self.sources["ghost"], mode="after", line_color=GREY, line_dash=[2, 4], name="ghost"
        )
        plot.add_tools(money_hover(ghost, self._at, ("the period before, moved here", f"@net{USD}")))
        return [before, self.mark, ghost]

    def _draw_line(self) -> Renderers:
        plot, steps = self.figure, self.sources["steps"]
        band = plot.quad(
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
        ends = ("from, to", f"@low{USD} … @high{USD}")
        plot.add_tools(money_hover(net, self._at, ("net", f"@net{USD}"), ends))
        plot.add_tools(money_hover(rebuilt, self._at, ("net, rebuilt", f"@rebuilt{USD}")))
        plot.add_tools(money_hover(self.live, self._at, ("net", f"@net{USD}")))
        return [band, rebuilt, net, self.live]

    def _draw_under(self) -> None:
        strip, under = self.strip, self.sources["under"]
        # An area of steps would hang the browser while it has no point.
        end = transform("t", CustomJSTransform(v_func=NEXT))
        water: dict[str, Any] = {"left": "t", "right": end, "top": 0, "fill_color": LOSS, "fill_alpha": 0.35}
        strip.quad(bottom="under", source=under, line_color=None, **water)
        depth = strip.step(x="t", y="under", source=under, mode="after", line_color=LOSS, line_width=1)
        live = strip.quad(bottom=self._of_live("usd - high"), source=self.source, line_color=None, **water)
        for beside in (self.mark, live):  # nothing of the live line is shown without it
            self.live.js_link("visible", beside, "visible")
        shown = [("below the high", f"@under{USD}"), ("high-water mark", f"@high{USD}")]
        strip.add_tools(money_hover(depth, self._at, *shown))

    def _of_live(self, value: str) -> Any:
        """The live line's own mark, or something made of it."""
        args = {"under": self.sources["under"]}
        return transform("net", CustomJSTransform(args=args, v_func=MARK % value))

    def _draw_pins(self) -> None:
        notes, instant = self.sources["notes"], self.sources["instant"]
        for plot in (self.figure, self.strip):
            plot.vspan(x="t", source=instant, line_color=GREY, line_width=1.5, line_dash=[6, 3])
        pin = self.figure.scatter(
            x="t", y=0.05, source=notes, marker="circle", size=18, y_range_name=EDGE,
            fill_color=PIN, line_color=None, name="notes",
        )  # fmt: skip
        self.figure.text(
            x="t", y=0.05, text="number", source=notes, y_range_name=EDGE,
            text_align="center", text_baseline="middle", text_color="#fff", text_font_size="11px",
        )  # fmt: skip
        hover = HoverTool(renderers=[pin], tooltips=said([("note", "@text"), ("at", "@t{%F %H:%M}")]), tags=["note"])
        hover.formatters = {"@t": "datetime"}
        self.figure.add_tools(hover)

    def __panel__(self) -> Viewable:
        panes = [pn.pane.Bokeh(plot, sizing_mode="stretch_width") for plot in (self.figure, self.strip)]
        return pn.Column(*panes, sizing_mode="stretch_width")


def _figure() -> figure:
    plot = money_figure("equity", "Net P&L over time", height=HEIGHT_PX, phone=PHONE_PX)
    plot.xaxis.visible = False  # it stands below the strip
    plot.x_range = DataRange1d(range_padding=PADDING, only_visible=True, syncable=False)
    plot.y_range = DataRange1d(only_visible=True, syncable=False)
    plot.extra_y_ranges = {EDGE: Range1d(start=0, end=1, syncable=False)}
    # Sideways only: up and down the plot follows by itself. The wheel scrolls the page.
    plot.add_tools(PanTool(dimensions="width"), BoxZoomTool(dimensions="width"), ResetTool())
    return plot


def _strip(above: figure) -> figure:
    plot = money_figure("under", "How far net P&L was below its high", height=STRIP_PX, phone=PHONE_STRIP_PX)
    plot.x_range = above.x_range
    plot.y_range = DataRange1d(end=0, only_visible=True, syncable=False)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=1)
    plot.min_border_top = GAP_PX  # or its zero stands on the lowest amount above
    return plot
