"""What the plots have in common: quiet axes, money on the y axis, and ranges that stay in the browser."""

from collections.abc import Iterable
from html import escape
from typing import Any

from bokeh.models import DatetimeTicker, HoverTool, NumeralTickFormatter
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

# After Okabe–Ito, told apart by colour-blind readers; each seen on a light page and on a dark one.
GAIN, LOSS = "#2484c6", "#d9661a"
TRADING, REVENUE = "#b0609a", "#12906a"
COSTS, FEES = "#6f7f9a", "#808890"
GREY = "#808890"
PIN = "#636c77"  # white is read on it
HEIGHT_PX = 260
LEFT_PX = 64  # so wide are the amounts of every plot: one below the other, their times stand in line
TICKS = 5  # so many labels fit side by side on a phone
MONEY = "money"  # the tag of what says amounts
USD = "{$0,0.00}"

# Text and grid take the colours of the page, or in a notebook, where there is none, one that is seen on most.
QUIET = "var(--quiet, #6b7480)"
PAGE = f":host {{ --bk-major-label-text-color: {QUIET}; --bk-axis-label-text-color: {QUIET} }}"


def money_figure(name: str, label: str, *, height: int = HEIGHT_PX, phone: int | None = None, **more: Any) -> figure:
    """An empty time plot of US dollars.

    Args:
        name: Of the model, and the anchor of its panel.
        label: Read out by screen readers.
        height: In pixels.
        phone: The height on a narrow screen; None: the same.
        **more: Of Bokeh's figure.
    """
    narrow = "" if phone is None else f"@media (max-width: 700px) {{ :host {{ height: {phone}px }} }}"
    plot = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        toolbar_location=None,
        tools="",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_left=LEFT_PX,
        html_attributes={"role": "img", "aria-label": label},
        stylesheets=[PAGE, narrow],
        **more,
    )
    plot.yaxis.update(formatter=NumeralTickFormatter(format="$0,0[.]00"), tags=[MONEY])
    plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=TICKS)
    for axis in plot.axis:
        axis.update(
            axis_line_color=None,
            major_tick_line_color=None,
            minor_tick_line_color=None,
            major_label_text_font_size="12px",
            axis_label_text_font_style="normal",
        )
    plot.xgrid.grid_line_color = None
    plot.ygrid.update(grid_line_color=GREY, grid_line_alpha=0.2)
    # A range that syncs makes every browser answer every point with a message of its own.
    plot.x_range.syncable = plot.y_range.syncable = False
    return plot


def money_hover(renderer: "GlyphRenderer[Any]", at: tuple[str, str, str], *shown: tuple[str, str]) -> HoverTool:
    """What is said of the point below or above the pointer.

    Args:
        renderer: Whose points.
        at: What to call their time, its column, and how to write it.
        *shown: What else is said, by name; `@column` is its value.
    """
    label, column, written = at
    return HoverTool(
        renderers=[renderer],
        tooltips=said([*shown, (label, f"@{column}{{{written}}}")]),
        formatters={f"@{column}": "datetime"},
        mode="vline",
        tags=[MONEY],
    )


def said(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values as a tooltip, in the colours that the page gives it; a column's value in it is only text."""
    cells = (
        f"<td>{escape(label)}</td><td style='text-align:right;padding-left:12px'>{value}</td>" for label, value in rows
    )
    return f"<table style='font-variant-numeric:tabular-nums'>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
