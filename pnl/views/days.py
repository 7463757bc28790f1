"""What each day made, by component, rebuilt from the records: what happened before the first snapshot shows too."""

from typing import Any

import panel as pn
from bokeh.models import (
    BasicTicker,
    CDSView,
    ColumnDataSource,
    CustomJS,
    CustomJSExpr,
    CustomJSFilter,
    CustomJSTransform,
    DataRange1d,
    Range,
)
from bokeh.models.annotations import Legend, LegendItem
from bokeh.plotting import figure
from bokeh.transform import dodge, transform
from panel.viewable import Viewable, Viewer

from pnl.stream.wire import with_id
from pnl.views.figure import COSTS, FEES, GAIN, LOSS, REVENUE, TRADING, USD, money_figure, money_hover

DAY_MS = 86_400_000
PHONE_PX = 220
TONE = f"return xs.map(usd => usd < 0 ? '{LOSS}' : '{GAIN}')"
# A part begins where those of its sign before it end, above zero or below.
STACK = """const side = (usd, part) => (part < 0) === (usd < 0) ? part : 0;
const {data} = this;
return Array.from(data[own], (usd, i) => before.reduce((sum, name) => sum + side(usd, data[name][i]), %s))"""
KEYS = """.bk-item .bk-label { color: var(--quiet, #6b7480) !important; margin-right: 10px }
@media (max-width: 700px) { .bk-grid { grid-template-columns: repeat(3, max-content) !important } }"""
# Days that are not seen do not make the plot higher.
SEEN = "return Array.from(source.data.day, (at) => at + length > range.start && at < range.end)"
FOLLOW = """const edge = (shown.end - shown.start) * 0.02; // a plot is somewhat longer than what it shows
const start = Math.floor((shown.start + edge) / length) * length;
const end = Math.ceil((shown.end - edge) / length) * length;
if (!Number.isFinite(start + end) || (start === range.start && end === range.end)) return;
range.setv({start, end});
seen.change.emit()"""
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "trading": ("trading", {"fill_color": TRADING}),
    "revenue": ("deals", {"fill_color": REVENUE, "hatch_pattern": "cross"}),
    "fees": ("fees", {"fill_color": FEES, "hatch_pattern": "dot"}),
    "billed": ("AI, billed", {"fill_color": COSTS}),
    "estimated": (
        "AI, estimate",
        {"fill_color": COSTS, "fill_alpha": 0.2, "hatch_pattern": "/", "hatch_color": COSTS, "hatch_alpha": 1},
    ),
}
"""The parts of a day from the zero line outwards: what they are called, and how they look."""


class DaysView(Viewer):
    """A bar for each day, gains above zero and what is lost or spent below, and its net as a mark.

    `source` has the columns of `day_columns`. The plot shows all days, or those that it was told to `follow`.
    """

    def __init__(self, source: ColumnDataSource) -> None:
        super().__init__()
        self.source = source
        self.view = CDSView()
        self.range = with_id(DataRange1d, "daily-range", range_padding=0.02, syncable=False)
        self.figure = self._figure()

    def _figure(self) -> figure:
        plot = money_figure("daily", "What each day made, by component", phone=PHONE_PX)
        plot.x_range = self.range
        plot.y_range = DataRange1d(only_visible=True, syncable=False)
        plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
        day = dodge("day", DAY_MS / 2)
        bars = [
            LegendItem(label=label, renderers=[self._bar(plot, name, day, look)])
            for name, (label, look) in LOOKS.items()
        ]
        tone = transform("net", CustomJSTransform(v_func=TONE))
        night = dodge("day", DAY_MS)
        net: Any = plot.segment(
            x0="day", x1=night, y0="net", y1="net", source=self.source, view=self.view, line_color=tone, line_width=3
        )
        plot.add_layout(_legend([*bars, LegendItem(label="net", renderers=[net])]), "above")
        whole = plot.vbar(
            x=day, top="net", width=DAY_MS, source=self.source, view=self.view, fill_alpha=0, line_color=None
        )
        parts = [(label, f"@{name}{USD}") for name, (label, _) in LOOKS.items()]
        plot.add_tools(money_hover(whole, ("day", "day", "%F"), ("net", f"@net{USD}"), *parts))
        return plot

    def _bar(self, plot: figure, name: str, day: Any, look: dict[str, Any]) -> Any:
        hatch: dict[str, Any] = {"hatch_color": "#fff", "hatch_alpha": 0.7, "hatch_scale": 6}
        return plot.vbar(
            x=day,
            bottom=_edge(name, "0"),
            top=_edge(name, "usd"),
            width=DAY_MS * 0.8,
            source=self.source,
            view=self.view,
            line_color=None,
            **hatch | look,
        )

    def follow(self, shown: Range) -> None:
        """Show the days of which another plot shows a part, wherever it is moved to; in the browser alone."""
        self.view.filter = CustomJSFilter(args={"range": self.range, "length": DAY_MS}, code=SEEN)
        args = {"shown": shown, "range": self.range, "seen": self.view.filter, "length": DAY_MS}
        for end in ("start", "end"):
            shown.js_on_change(end, CustomJS(args=args, code=FOLLOW))

    def __panel__(self) -> Viewable:
        return pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")


def _edge(name: str, first: str) -> Any:
    parts = list(LOOKS)
    return CustomJSExpr(args={"own": name, "before": parts[: parts.index(name)]}, code=STACK % first)


def _legend(items: list[LegendItem]) -> Legend:
    legend = Legend(orientation="horizontal", ncols=len(items), location="top_left", stylesheets=[KEYS])
    legend.update(items=items, background_fill_alpha=0, border_line_color=None, margin=0, spacing=4)
    legend.update(label_text_font_size="12px", glyph_width=16, glyph_height=16)
    return legend
