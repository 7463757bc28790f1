"""The ordinary way, to compare with: a Panel page that polls once a second and draws everything that is bound anew.

An app for `panel serve`, written as Panel's documentation shows it. It reads the same venue with this program's own
sources and reckons with its own model, and records nothing, so that only what comes after differs.
"""

from collections import deque
from datetime import UTC, datetime, timedelta

import holoviews as hv
import panel as pn

from pnl.config import load_settings
from pnl.model import PnLModel
from pnl.records import Snapshot
from pnl.sources import open_sources
from pnl.sources.transport import Transport

PERIOD_MS = 1000
POINTS = 1000
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
    began = datetime.now(UTC).replace(tzinfo=None)
    line = deque([(began + timedelta(seconds=second - POINTS), 0.0) for second in range(POINTS)], maxlen=POINTS)

    async def begin() -> None:
        await transport.__aenter__()
        await model.pull_all()
        pn.state.add_periodic_callback(update, period=PERIOD_MS)  # type: ignore[arg-type]  # a coroutine will do

    async def update() -> None:
        await model.pull("kalshi")
        snapshot = model.put_together()
        line.append((snapshot.taken_at.replace(tzinfo=None), float(snapshot.net_pnl)))
        model.show(snapshot)

    def plot(_: Snapshot | None) -> hv.Curve:
        return hv.Curve(list(line), "at", "net").opts(height=300, responsive=True)

    def number(name: str) -> pn.indicators.Number:
        value = pn.bind(lambda snapshot: snapshot and float(getattr(snapshot, name)), model.param.snapshot)
        return pn.indicators.Number(label=TITLES[name], value=value, format="${value:,.2f}", css_classes=[name])

    hv.extension("bokeh")
    pn.Column(pn.FlexBox(*map(number, TITLES)), pn.bind(plot, model.param.snapshot)).servable()
    pn.state.onload(begin)


if __name__.startswith("bokeh_app"):
    serve()
