"""Every open market: what is held, what it is worth at its mark, and what is lost if it settles against it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import panel as pn
import param
from markupsafe import Markup
from panel.viewable import Viewable, Viewer

from pnl.ledger import Open, positions
from pnl.model import VENUE, PnLModel
from pnl.records import ZERO, Snapshot, State, money
from pnl.views.lines import as_cells, as_lines, in_slots
from pnl.views.verdict import asset, rendered

COLUMNS = (
    *("Market", "Ticker", "Side", "Contracts", "Average price", "Cost = max loss"),
    *("Mark", "Value", "Open P&L", "Settles in"),
)
MOST_ROWS = 100
UNKNOWN = "—"
LONG_MINUTES, LONG_HOURS = timedelta(minutes=100), timedelta(hours=48)  # from then on in the next larger unit


class Positions:
    """The texts about open positions, made anew only for a new snapshot or another minute.

    Args:
        model: Whose positions.
        now: The time of day, aware.
    """

    def __init__(self, model: PnLModel, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._model = model
        self._now = now
        self._made_for: tuple[Snapshot | None, datetime] | None = None
        self._texts: dict[str, str] = {}

    def texts(self) -> dict[str, str]:
        """Every text by name, always the same names."""
        made_for = self._model.snapshot, self._now().replace(second=0, microsecond=0)
        if made_for != self._made_for:
            self._texts, self._made_for = self._make(*made_for), made_for
        return self._texts

    def _make(self, snapshot: Snapshot | None, now: datetime) -> dict[str, str]:
        if snapshot is None or not snapshot.knows(VENUE):
            return position_fields(None, now=now) | {"positions.note": _why_unknown(snapshot)}
        held = positions(self._model.ledger, self._model.marks, rule=self._model.mark)
        return position_fields(held, now=now, unquoted=self._model.unquoted)


def _why_unknown(snapshot: Snapshot | None) -> str:
    readings = () if snapshot is None else snapshot.sources
    states = {reading.source: reading.state for reading in readings}
    return (
        "Kalshi is not set up." if states.get(VENUE) is State.NOT_CONFIGURED else "Waiting for Kalshi's first answer."
    )


def position_fields(held: Sequence[Open] | None, *, now: datetime, unquoted: Collection[str] = ()) -> dict[str, str]:
    """The texts about open positions by name.

    Args:
        held: In the order to be shown, see `ledger.positions`; 100 of them become rows, all of them are in the sums.
            None: not known.
        now: For how long it is until they settle.
        unquoted: The tickers whose mark is the last good one.
    """
    known = held or ()
    rest = len(known) - MOST_ROWS
    cost_usd = None if held is None else sum((each.max_loss_usd for each in known), ZERO)
    return {
        "positions": as_lines(_row(each, now, is_last_good=each.ticker in unquoted) for each in known[:MOST_ROWS]),
        "positions.count": UNKNOWN if held is None else f"{len(known):,}",
        "positions.more": f"and {rest:,} more" if rest > 0 else "",
        "positions.cost": money(cost_usd),
        "positions.value": money(_sum(held, lambda each: each.value_usd)),
        "positions.open": money(_sum(held, lambda each: each.unrealized_usd), signed=True),
        "positions.lost": money(None if cost_usd is None else -cost_usd),
        "positions.note": _note(known),
    }


def _sum(held: Sequence[Open] | None, figure: Callable[[Open], Decimal | None]) -> Decimal | None:
    """The sum over those that have a mark; unknown where something is held and nothing has one."""
    priced = [usd for each in held or () if (usd := figure(each)) is not None]
    return None if held is None or (held and not priced) else sum(priced, ZERO)


def _note(held: Sequence[Open]) -> str:
    if not held:
        return "No position is open."
    count = sum(each.mark is None for each in held)
    return f"{count:,} without a price: not in the value and the open P&L." if count else ""


def _row(each: Open, now: datetime, *, is_last_good: bool) -> tuple[str, ...]:
    title = "" if each.mark is None else each.mark.title
    return (
        title or each.ticker,
        each.ticker,
        each.side.upper(),
        f"{each.count:,.2f}",
        f"${each.average_price_usd:.4f}",
        money(each.max_loss_usd),
        _price(each.price_usd, is_last_good=is_last_good),
        money(each.value_usd),
        money(each.unrealized_usd, signed=True),
        settles_in(None if each.mark is None else each.mark.closes_at, now),
    )


def _price(usd: Decimal | None, *, is_last_good: bool) -> str:
    return UNKNOWN if usd is None else f"${usd:.4f}" + (" last good" if is_last_good else "")


def settles_in(closes_at: datetime | None, now: datetime) -> str:
    """How long it is until a market is expected to end, in minutes, hours or days; a dash where it does not say."""
    if closes_at is None:
        return UNKNOWN
    left = closes_at - now
    if left <= timedelta():
        return "due"
    if left < LONG_MINUTES:
        return f"{math.ceil(left / timedelta(minutes=1))} m"
    return f"{left // timedelta(hours=1)} h" if left < LONG_HOURS else f"{left // timedelta(days=1)} d"


def position_slots(fields: Mapping[str, str]) -> dict[str, str]:
    """The same texts with a text for each row, see `in_slots`."""
    return in_slots(fields, "positions", MOST_ROWS)


def positions_html(fields: Mapping[str, str]) -> Markup:
    """The panel with these texts, as `position_fields` or `position_slots` gives them, all of them escaped."""
    rows = fields["positions"] if "positions" in fields else "\n".join(_slots(fields))
    return rendered("positions.html", f=fields, columns=COLUMNS, rows=as_cells(rows))


def _slots(fields: Mapping[str, str]) -> list[str]:
    return [line for n in range(MOST_ROWS) if (line := fields[f"positions.{n}"])]


class PositionsView(Viewer):
    """Open positions in a notebook cell or an app of one's own; follows the model by itself."""

    model = param.ClassSelector(class_=PnLModel, doc="Whose positions are shown.")

    def __init__(self, model: PnLModel, **params: Any) -> None:
        super().__init__(model=model, **params)
        self._positions = Positions(model)
        self._pane = pn.pane.HTML(pn.bind(self._html, model.param.snapshot), sizing_mode="stretch_width")

    def _html(self, _snapshot: Snapshot | None) -> str:
        styles = f"<style>{asset('page.css')}{asset('positions.css')}</style>"
        return f"{styles}<div class='pnl'>{positions_html(self._positions.texts())}</div>"

    def __panel__(self) -> Viewable:
        return self._pane
