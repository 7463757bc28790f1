"""Every fill, newest first, a page at a time: for a notebook cell."""

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING

import panel as pn
from panel.viewable import Viewable, Viewer

from pnl.records import Fill, Mark

if TYPE_CHECKING:
    import pandas as pd

PAGE_ROWS = 15
COLUMNS = ("Time", "Market", "Side", "Contracts", "Price", "Fee")
NUMBERS = ("Contracts", "Price", "Fee")

type Row = tuple[str, ...]
"""One cell for each of `COLUMNS`, for people to read."""

# The page's colours reach into the table as CSS variables, whatever the theme of the table itself says.
STYLESHEET = """
:host { font-size: 13px }
:host .tabulator, :host .tabulator * {
  background-color: transparent !important; border-color: var(--line, #8884) !important }
:host .tabulator, :host .tabulator-row, :host .tabulator-col, :host .tabulator-page {
  color: var(--text, inherit) !important }
:host .tabulator-row .tabulator-cell { border-right: none }
:host .tabulator-row:hover { background-color: var(--hover, #8882) !important }
:host .tabulator-page { min-width: 36px; min-height: 36px }
:host .tabulator-page.active { color: var(--gain, #0072B2) !important; font-weight: 700 }
"""


class FillsView(Viewer):
    """A paged table of fills; market titles come from outside and stand in cells, where they stay text."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        super().__init__()
        self._table = pn.widgets.Tabulator(
            frame,
            show_index=False,
            disabled=True,
            pagination="remote",
            page_size=PAGE_ROWS,
            layout="fit_data_fill",
            sizing_mode="stretch_width",
            theme="simple",
            text_align=dict.fromkeys(NUMBERS, "right"),
            header_align=dict.fromkeys(NUMBERS, "right"),
            stylesheets=[STYLESHEET],
            configuration={"columnDefaults": {"headerSort": False}},
        )

    def __panel__(self) -> Viewable:
        return self._table


def fill_rows(fills: Iterable[Fill], marks: Mapping[str, Mark], zone: tzinfo) -> list[Row]:
    """Fills as the rows of a table.

    Args:
        fills: In the order to be shown.
        marks: By ticker; a market's title is used where it is known.
        zone: For the times.

    Returns:
        Local time, title and ticker, side, and the exact figures.
    """
    return [
        (
            f"{fill.filled_at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            _market(fill.ticker, marks.get(fill.ticker)),
            fill.side.upper(),
            f"{fill.count:,.2f}",
            f"${fill.cost_usd / fill.count:.4f}",
            f"${fill.fee_usd:.4f}",
        )
        for fill in fills
    ]


def fills_frame(fills: Iterable[Fill], marks: Mapping[str, Mark], zone: tzinfo) -> "pd.DataFrame":
    """The same as a frame, see `fill_rows`."""
    import pandas as pd  # noqa: PLC0415 - a third of a second and 40 MB, which the dashboard does without

    return pd.DataFrame(fill_rows(fills, marks, zone), columns=list(COLUMNS))


def _market(ticker: str, mark: Mark | None) -> str:
    return ticker if mark is None or not mark.title else f"{mark.title} · {ticker}"
