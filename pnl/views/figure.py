"""What the plots have in common: quiet axes, money on the y axis, and ranges that stay in the browser."""

from bokeh.models import NumeralTickFormatter
from bokeh.plotting import figure

GAIN, LOSS = "#2484c6", "#d9661a"  # after Okabe–Ito: told apart by colour-blind readers, seen on light and dark
GREY = "#808890"
HEIGHT_PX = 260


def money_figure(name: str, label: str) -> figure:
    """An empty time plot of US dollars.

    Args:
        name: Of the model, and the anchor of its panel.
        label: Read out by screen readers.
    """
    plot = figure(
        name=name,
        height=HEIGHT_PX,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        toolbar_location=None,
        tools="",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_left=8,
        html_attributes={"role": "img", "aria-label": label},
    )
    plot.yaxis.formatter = NumeralTickFormatter(format="$0,0.00")
    for axis in plot.axis:
        axis.update(
            axis_line_color=None,
            major_tick_line_color=None,
            minor_tick_line_color=None,
            major_label_text_color=GREY,
            axis_label_text_color=GREY,
            major_label_text_font_size="12px",
            axis_label_text_font_style="normal",
        )
    plot.xgrid.grid_line_color = None
    plot.ygrid.update(grid_line_color=GREY, grid_line_alpha=0.2)
    # A range that syncs makes every browser answer every point with a message of its own.
    plot.x_range.syncable = plot.y_range.syncable = False
    return plot
