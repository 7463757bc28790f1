"""The ordinary way, to compare with: a Panel page that polls once a second and draws everything that is bound anew.

An app for `panel serve`, written as Panel's documentation shows it. It reads the same venue with this program's own
sources and reckons with its own model, and records nothing, so that only what comes after differs.
"""

from collections import deque

import panel as pn
from bokeh.plotting import figure

from pnl.config import load_settings
from pnl.model import PnLModel
from pnl.records import Snapshot
from pnl.sources import open_sources
from pnl.sources.transport import Transport
from pnl.stream import LINE_POINTS

PERIOD_MS = 1000
TITLES = {
    "net_pnl": "Net P&L",
    "kalshi_realized": "Realized",
    "kalshi_unrealized": "Unrealized",
    "kalshi_fees": "Fees",
    "billed_costs": "AI",
    "total_revenue": "Revenue",
}


def serve() -> None:
    """Build one session's page, which asks and draws by itself from then on."""
    transport = Transport()
    model = PnLModel().read_from(*open_sources(load_settings(), transport))
    line: deque[Snapshot] = deque(maxlen=LINE_POINTS)

    async def begin() -> None:
        await transport.__aenter__()
        await model.pull_all()
        pn.state.add_periodic_callback(update, period=PERIOD_MS)  # type: ignore[arg-type]  # a coroutine will do

    async def update() -> None:
        await model.pull("kalshi")
        snapshot = model.put_together()
        line.append(snapshot)
        model.show(snapshot)

    def plot(_: Snapshot | None) -> figure:
        equity = figure(height=300, sizing_mode="stretch_width", x_axis_type="datetime")
        equity.line([one.taken_at for one in line], [float(one.net_pnl or 0) for one in line])
        return equity

    def number(name: str) -> pn.indicators.Number:
        value = pn.bind(lambda snapshot: snapshot and float(getattr(snapshot, name)), model.param.snapshot)
        return pn.indicators.Number(label=TITLES[name], value=value, format="${value:,.2f}", css_classes=[name])

    pn.Column(pn.FlexBox(*map(number, TITLES)), pn.bind(plot, model.param.snapshot)).servable()
    pn.state.onload(begin)


if __name__.startswith("bokeh_app"):
    serve()
