"""The simulated APIs without request limits, and with prices that are others each time one asks."""

import asyncio
import signal
from collections import Counter
from datetime import datetime

from pnl.simulator import LivingMarket, Simulator
from pnl.simulator.nouns import DOLLAR_PRICE, Market, Quote

CENT = DOLLAR_PRICE // 100
STEPS = 5


class RestlessMarket(LivingMarket):
    """A living market whose prices climb a cent at each look, and fall back after a few."""

    def __init__(self) -> None:
        super().__init__()
        self._looks: Counter[str] = Counter()

    def quote(self, now: datetime, market: Market) -> Quote:
        """Bid, ask and last price; a book without quotes stays without."""
        quote = super().quote(now, market)
        if quote.bid == 0 or quote.ask == DOLLAR_PRICE:
            return quote
        self._looks[market.ticker] += 1
        step = self._looks[market.ticker] % STEPS * CENT
        step = step if quote.ask + STEPS * CENT < DOLLAR_PRICE else -step
        return Quote(quote.bid + step, quote.ask + step, quote.last)


async def _serve() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Simulator(RestlessMarket(), limited=False) as simulator:
        exports = (f"export {name}={value}" for name, value in simulator.settings.items())
        print("\n".join(exports), end="\n\n", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
