"""A world in which nothing happens but what a test puts into it, served by the simulator to the real program."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

from pnl.simulator.book import settle
from pnl.simulator.nouns import DAY, DOLLAR_PRICE, HOUR, SECOND, Cutoff, Deal, Fill, Market, Quote, Tokens, micros
from pnl.simulator.world import World

FAR = 1 << 52  # microseconds: the year 2112


def instant(*, hours_ago=0.0):
    """So long before now, in microseconds since 1970."""
    return micros(datetime.now(UTC)) - int(hours_ago * HOUR)


class MadeUp(World):
    """A venue, a bill and a customer book that are empty at first. Prices are in cents, amounts in dollars."""

    def __init__(self):
        super().__init__()
        self._quotes = {}
        self._deals = {}
        self._tokens = defaultdict(list)
        self._count = 0

    def opens(self, ticker, *, title="A made-up market", event=None, hours_ago=24.0):
        """A market that nobody has traded yet; its event is the ticker without its last part, unless told."""
        at = instant(hours_ago=hours_ago)
        event = event or ticker.rpartition("-")[0]
        row = settle((), ticker=ticker, event=event, at=FAR, result="yes", value=100)
        self._quotes[ticker] = Quote(4900, 5100, 5000)
        self._bring(Market(ticker, event, title, at, FAR - SECOND, row))

    def trades(self, ticker, count, cents, *, is_yes=True, fee="0", hours_ago=0.0, name=None):
        """So many contracts of a side at the YES price; gives the id of the fill."""
        self._count += 1
        name = name or f"made-up-{self._count}"
        side = "yes" if is_yes else "no"
        fee_micros = round(float(fee) * 1_000_000)
        price = round(cents * 100)
        at = instant(hours_ago=hours_ago)
        fill = Fill(name, name, ticker, at, is_yes, round(count * 100), price, fee_micros, True, side, "buy")  # noqa: FBT003
        market = self._by_ticker[ticker]
        fills = tuple(sorted((*market.fills, fill), key=lambda each: each.key))
        open_at = min(market.open_at, fills[0].at)
        self._bring(replace(market, fills=fills, open_at=open_at, tick=100 if price % 100 == 0 else 10))
        return name

    def settles(self, ticker, *, value=100, hours_ago=0.0):
        """It is over: one YES pays so many cents. Said again with another value, it is a correction."""
        market = self._by_ticker[ticker]
        at, result = instant(hours_ago=hours_ago), {100: "yes", 0: "no"}.get(value, "scalar")
        row = settle(market.fills, ticker=ticker, event=market.event, at=at, result=result, value=value)
        self._settled = []
        self._bring(replace(market, settlement=row, close_at=at - SECOND))

    def quotes(self, ticker, bid, ask, last=None):
        """Another price; 0 and 100 is an empty book."""
        cents = (bid, ask, (bid + ask) / 2 if last is None else last)
        self._quotes[ticker] = Quote(*(round(each * 100) for each in cents))

    def sells(self, deal_id, usd, *, status="won", description="A made-up deal", hours_ago=0.0):
        """A deal, or what became of it."""
        before = self._deals.get(deal_id)
        now, closed_at = instant(), before.closed_at if before else instant(hours_ago=hours_ago)
        refunded_at = now if status == "refunded" else None
        cents = round(float(usd) * 100)
        self._deals[deal_id] = Deal(
            deal_id, cents, closed_at, status, now if before else closed_at, description, None, refunded_at
        )

    def spends(self, model, output_tokens, *, hours_ago=0.0):
        """Tokens that a model wrote."""
        self._tokens[model].append((instant(hours_ago=hours_ago), output_tokens))

    def quote(self, now, market):
        if market.is_settled(self.instant(now)):
            return Quote(0, DOLLAR_PRICE, (market.settlement.value_cents or 0) * 100)
        return self._quotes[market.ticker]

    def cutoff(self, now):
        at = micros(now) - 60 * DAY
        return Cutoff(at, at)

    def tokens(self, start, end, now):
        until = min(end, self.instant(now))
        sums = {model: sum(n for at, n in used if start <= at < until) for model, used in self._tokens.items()}
        return {model: Tokens(output=number) for model, number in sums.items() if number}

    def deals(self, now):
        del now
        return sorted(self._deals.values(), key=lambda deal: deal.key)

    def _bring(self, market):
        markets = [*(self._by_ticker | {market.ticker: market}).values()]
        for rows in (self._markets, self._fills, self._settlements, self._transfers, self._changes):
            rows.clear()
        self._admit(markets)
