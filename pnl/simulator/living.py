"""A small business that goes on for ever: the same seed and the same instant always give the same world."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from math import pi, sin
from random import Random
from zlib import crc32

from pnl.simulator.book import settle
from pnl.simulator.dice import dice
from pnl.simulator.nouns import (
    DAY,
    DOLLAR_PRICE,
    HOUR,
    SECOND,
    Cutoff,
    Deal,
    Fill,
    Market,
    Quote,
    Result,
    Tokens,
    Transfer,
    micros,
    moment,
)
from pnl.simulator.selling import deals_entered
from pnl.simulator.spending import tokens_until, tokens_used
from pnl.simulator.world import World

ARCHIVED_AFTER = 60 * DAY
_BLOCK = 30 * DAY  # the world's first day moves in such steps, so that a restart seldom loses a day
_FILLS_PER_MARKET = 3
_OPEN_AT_ONCE = 20
_SKILL = 0.56  # how often the trader picks the side that wins

_SERIES = (
    ("KXBTCD", "Bitcoin above ${:,} at 5pm EST?", 91_000, 250),
    ("KXETHD", "Ethereum above ${:,} at 5pm EST?", 3_100, 20),
    ("KXHIGHNY", "Highest temperature in New York above {}°?", 41, 1),
    ("KXINXD", "S&P 500 above {:,} at close?", 6_700, 25),
    ("KXRAINSEA", "More than {} hundredths of an inch of rain in Seattle?", 5, 3),
    ("KXEURUSD", "EUR/USD above 1.{} at noon?", 1_510, 5),
    ("KXGASW", "US gas price above $3.{} this week?", 10, 2),
    ("KXFEDTALK", "Will the Chair say “balance” {} times or more?", 4, 1),
)

# The waves of a price: size as a part of a dollar, and radians a microsecond for periods of 7 s up to 4 h.
_WAVES = tuple(
    (size, 2 * pi / (period_s * SECOND)) for size, period_s in ((0.008, 7), (0.015, 53), (0.035, 613), (0.07, 14_400))
)

# Text from outside is never trusted: a page, a report or a spreadsheet must show these as plain letters.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '=HYPERLINK("http://evil")',
    "\u202eright to left\u202c, Z\u0351\u036f\u0321a\u0334\u0348l\u0335\u0301g\u0337o\u0338, مرحبا",
    "A title that goes on and on " * 10 + "for 300 letters, no less",
)


@dataclass(frozen=True, slots=True)
class _Path:
    """The chance of YES over a market's life: pulled to its end, with waves of seconds, minutes and hours."""

    name: str
    salt: int
    open_at: int
    close_at: int
    first: float
    last: float
    phases: tuple[float, ...]
    tick: int

    def chance(self, at: int) -> float:
        lived = min((at - self.open_at) / (self.close_at - self.open_at), 1.0)
        trend = self.first + (self.last - self.first) * lived**3
        swing = 0.0
        for (size, pace), phase in zip(_WAVES, self.phases, strict=True):
            swing += size * sin(pace * at + phase)
        return trend + swing * 4 * trend * (1 - trend)

    def quote(self, at: int) -> Quote:
        middle = self.chance(min(at, self.close_at)) * DOLLAR_PRICE
        spread = 100 * (1 + _mixed(self.salt, at // (60 * SECOND)) % 3)
        bid = round((middle - spread / 2) / self.tick) * self.tick
        bid = max(100, min(DOLLAR_PRICE - 100 - spread, bid))
        last = bid + spread * (at // (2 * SECOND) % 2)
        if _mixed(self.salt, -(at // (600 * SECOND))) % 40 == 0:
            return Quote(0, DOLLAR_PRICE, last)
        return Quote(bid, bid + spread, last)


class LivingMarket(World):
    """Trading, API use and deals, made from `seed` and the absolute time alone.

    Args:
        seed: Another seed is another business.
        days: At least so many days of history; up to 30 more, since the first day moves in steps of 30 days.
        fills_per_day: On average; about 20 markets are open at once whatever it is.

    Restarted later, the world goes on where it was: the same fills under the same ids.
    """

    def __init__(self, seed: int = 1, days: int = 90, *, fills_per_day: int = 36) -> None:
        """Remember the three numbers; the world is built when it is first asked."""
        super().__init__()
        self._seed = seed
        self._days = days
        markets_per_day = max(1, fills_per_day // _FILLS_PER_MARKET)
        self._slot = DAY // markets_per_day
        self._life = self._slot * _OPEN_AT_ONCE
        self._paths: dict[str, _Path] = {}
        self._began_at: int | None = None
        self._grown_to = 0

    def quote(self, now: datetime, market: Market) -> Quote:
        """Bid, ask and last price; an empty book once the market has closed for good."""
        at = self.instant(now)
        if market.is_settled(at):
            return Quote(0, DOLLAR_PRICE, (market.settlement.value_cents or 0) * 100)
        return self._paths[market.ticker].quote(at)

    def cutoff(self, now: datetime) -> Cutoff:
        """The UTC midnight 60 days ago, for fills and for settlements."""
        at = (micros(now) - ARCHIVED_AFTER) // DAY * DAY
        return Cutoff(at, at)

    def tokens(self, start: int, end: int, now: datetime) -> Mapping[str, Tokens]:
        """Tokens grow evenly within their hour, so that any bucket width adds up to the same."""
        at = self.instant(now)
        start = max(start, self._beginning(at))
        if end <= at:
            return tokens_used(self._seed, start, end)
        return tokens_until(self._seed, start, at)

    def deals(self, now: datetime) -> Sequence[Deal]:
        """A deal every three to five days, each as it stands now."""
        at = self.instant(now)
        return deals_entered(self._seed, self._beginning(at), at, HOSTILE)

    # Fixed by the first question, so that nothing that was once shown goes away while the process lives.
    def _beginning(self, at: int) -> int:
        if self._began_at is None:
            self._began_at = (at - self._days * DAY) // _BLOCK * _BLOCK
            self._grown_to = self._began_at
            self._admit((), [Transfer(_uuid(f"{self._seed} first"), True, self._began_at, self._began_at, 500_000)])  # noqa: FBT003
        return self._began_at

    def _grow(self, at: int) -> None:
        self._beginning(at)
        if at < self._grown_to:
            return
        until = at // HOUR * HOUR + HOUR
        slots = range(-(-self._grown_to // self._slot), -(-until // self._slot))
        blocks = range(-(-self._grown_to // _BLOCK) + (self._grown_to == self._began_at), -(-until // _BLOCK))
        self._admit(map(self._make_market, slots), (t for block in blocks for t in self._make_transfers(block)))
        self._grown_to = until

    def _make_transfers(self, block: int) -> Iterator[Transfer]:
        at = block * _BLOCK
        yield Transfer(_uuid(f"{self._seed} in {block}"), True, at, at + DAY, 40_000)  # noqa: FBT003
        yield Transfer(_uuid(f"{self._seed} out {block}"), False, at + 9 * DAY, at + 11 * DAY, 25_000, 200)  # noqa: FBT003

    def _make_market(self, slot: int) -> Market:
        random = dice(self._seed, "market", slot)
        series, title, level, step = _SERIES[slot % len(_SERIES)]
        open_at = slot * self._slot + int(random.random() * self._slot)
        close_at = open_at + int(self._life * (0.15 + 2.55 * random.random() ** 2))
        event = f"{series}-{moment(open_at):%y%b%d}".upper()
        ticker = f"{event}-T{slot}"
        path, result, value = self._make_path(random, ticker, open_at, close_at)
        settled_at = close_at + int(random.uniform(60, 600) * SECOND) + random.randrange(SECOND)
        fills = tuple(_trade(random, path, wins_yes=value > 50, whole=result == "scalar"))  # noqa: PLR2004
        row = settle(fills, ticker=ticker, event=event, at=settled_at, result=result, value=value)
        name = HOSTILE[slot // 9 % len(HOSTILE)] if slot % 9 == 0 else title.format(level + step * random.randrange(20))
        return Market(ticker, event, name, open_at, close_at, row, fills, path.tick)

    def _make_path(self, random: Random, ticker: str, open_at: int, close_at: int) -> tuple[_Path, Result, int]:
        first = random.uniform(0.15, 0.85)
        result: Result = "yes" if random.random() < first else "no"
        value = 100 if result == "yes" else 0
        if random.random() < 1 / 25:
            result, value = "scalar", random.randrange(5, 96)
        phases = tuple(random.uniform(0, 2 * pi) for _ in range(4))
        tick = 10 if random.random() < 1 / 6 else 100  # some markets are quoted in tenths of a cent
        path = _Path(ticker, crc32(ticker.encode()), open_at, close_at, first, value / 100, phases, tick)
        self._paths[ticker] = path
        return path, result, value


# The fills of one market: opened with a little skill, then added to, reduced, or turned round.
def _trade(random: Random, path: _Path, *, wins_yes: bool, whole: bool) -> Iterator[Fill]:
    life = path.close_at - path.open_at
    at = path.open_at + int(life * random.uniform(0.02, 0.6))
    favours_yes = wins_yes == (random.random() < _SKILL)
    held, order_id = 0, ""
    for number in range(random.choices((1, 2, 3, 4, 5, 7), (3, 5, 5, 4, 3, 2))[0]):
        again = number > 0 and random.random() < 0.3  # noqa: PLR2004
        is_yes, size = _intent(random, held, favours_yes=favours_yes, whole=whole)
        signed = size if is_yes else -size
        if not again or held * signed <= 0:
            order_id = _uuid(f"{path.name} order {number}")
        side, action = "yes" if is_yes else "no", "sell" if held * signed < 0 else "buy"
        price, is_taker = _price(random, path.quote(at), is_yes=is_yes)
        fee = _fee_micros(size, price, is_yes=is_yes, is_taker=is_taker)
        name = _uuid(f"{path.name} fill {number}")
        yield Fill(name, order_id, path.name, at, is_yes, size, price, fee, is_taker, side, action)
        held += signed
        at = _later(random, at, path.open_at + life * 95 // 100)


def _later(random: Random, at: int, end: int) -> int:
    wait = random.uniform(1, 30) * SECOND if random.random() < 0.3 else (end - at) * random.uniform(0.05, 0.6)  # noqa: PLR2004
    return min(at + int(wait), max(end, at)) + 1 + random.randrange(1000)


def _intent(random: Random, held: int, *, favours_yes: bool, whole: bool) -> tuple[bool, int]:
    size = random.randrange(5, 45) * 100
    if not whole and random.random() < 1 / 6:
        size += random.randrange(1, 100)
    choice = random.random()
    if held == 0 or choice < 0.55:  # noqa: PLR2004
        return favours_yes, size
    if choice < 0.88:  # noqa: PLR2004
        return held < 0, min(size, abs(held))
    return held < 0, abs(held) + size


def _price(random: Random, quote: Quote, *, is_yes: bool) -> tuple[int, bool]:
    is_taker = random.random() < 0.8  # noqa: PLR2004
    if quote.bid == 0:
        return quote.last, False
    return (quote.ask if is_yes == is_taker else quote.bid), is_taker


# The taker's 0.07 x C x P x (1-P), rounded up to a micro-dollar; then so that cash moves by whole 1e-4 dollars.
def _fee_micros(size: int, price: int, *, is_yes: bool, is_taker: bool) -> int:
    trade_fee = -(-7 * size * price * (DOLLAR_PRICE - price) // 1_000_000) if is_taker else 0
    cost = size * (price if is_yes else DOLLAR_PRICE - price)
    return -(-(cost + trade_fee) // 100) * 100 - cost


def _mixed(salt: int, number: int) -> int:
    return ((salt ^ number) * 0x9E3779B97F4A7C15 >> 24) & 0xFFFF


def _uuid(name: str) -> str:
    word = blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{word[:8]}-{word[8:12]}-4{word[13:16]}-a{word[17:20]}-{word[20:]}"
