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


def settings_of(simulator: Simulator) -> dict[str, str]:
    """The settings that point a dashboard at it."""
    return {
        "PNL_KALSHI_URL": simulator.kalshi_url,
        "PNL_KALSHI_KEY_ID": simulator.key_id,
        "PNL_KALSHI_PRIVATE_KEY_PATH": str(simulator.private_key_path),
        "PNL_ANTHROPIC_URL": simulator.anthropic_url,
        "PNL_ANTHROPIC_ADMIN_KEY": simulator.admin_key,
        "PNL_JOHN_URL": simulator.john_url,
        "PNL_JOHN_TOKEN": simulator.john_token,
    }


async def _serve() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Simulator(RestlessMarket(), limited=False) as simulator:
        settings = settings_of(simulator)
        print("\n".join(f"export {name}={value}" for name, value in settings.items()), end="\n\n", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
