"""The three APIs on loopback, written from their reference alone, so that a mistake in `pnl` is not made twice.

Nothing here imports the rooms that read the APIs: the simulator keeps its own nouns, its own arithmetic
(integers, where the ledger has Decimal) and its own idea of the wire.
"""

from pnl.simulator.living import LivingMarket
from pnl.simulator.recorded import RecordedAccount
from pnl.simulator.server import Simulator

__all__ = ["LivingMarket", "RecordedAccount", "Simulator"]
