"""What the business uses of three models, hour by hour, and what that costs at list prices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from operator import add

from pnl.simulator.dice import dice
from pnl.simulator.nouns import DAY, HOUR, Tokens

# Tokens of an average hour by price class, and web searches.
_AVERAGE_HOUR = {
    "claude-opus-5-5": (6_000, 4_000, 500, 60_000, 1_700, 1.2),
    "claude-sonnet-5-5": (10_000, 5_000, 0, 100_000, 4_000, 0.4),
    "claude-haiku-4-5": (15_000, 2_500, 0, 50_000, 3_000, 0.0),
}
# US cents per million tokens, in the order of the fields of `Tokens`; a search is a cent.
_CENTS_PER_MILLION = {
    "claude-opus-5-5": (400, 500, 800, 20, 2_000),
    "claude-sonnet-5-5": (200, 250, 400, 10, 1_000),
    "claude-haiku-4-5": (100, 125, 200, 10, 500),
}
_NAMES = {
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5-5": "Claude Sonnet 5.5",
    "claude-haiku-4-5": "Claude Haiku 4.5",
}
_TOKEN_TYPES = (
    ("uncached_input_tokens", "Input Tokens"),
    ("cache_creation.ephemeral_5m_input_tokens", "Input Tokens, Cache Write 5m"),
    ("cache_creation.ephemeral_1h_input_tokens", "Input Tokens, Cache Write 1h"),
    ("cache_read_input_tokens", "Input Tokens, Cache Hit"),
    ("output_tokens", "Output Tokens"),
)
_SONNET_READ_CHANGED = 20_734 * DAY  # 2026-10-08: cached reads of Sonnet 5.5 cost half from then on


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of a day's bill, in US cents."""

    cents: Decimal
    model: str
    token_type: str | None  # None: web searches
    description: str


@lru_cache(maxsize=4_096)
def tokens_used(seed: int, start: int, end: int) -> Mapping[str, Tokens]:
    """Each model's use in [start, end), instants in microseconds; shared, so never to be changed."""
    return tokens_until(seed, start, end)


def tokens_until(seed: int, start: int, end: int) -> dict[str, Tokens]:
    """The same up to an instant that nobody asks for again: kept, every poll's would stay, up to 8 MB of them."""
    used: dict[str, tuple[int, ...]] = {}
    for hour in range(start // HOUR, -(-end // HOUR)):
        begin, stop = max(start - hour * HOUR, 0), min(end - hour * HOUR, HOUR)
        for model, tokens in _hour(seed, hour).items():
            part = (whole * stop // HOUR - whole * begin // HOUR for whole in tokens.counts())
            used[model] = tuple(map(add, used.get(model, (0,) * 6), part))
    return {model: Tokens(*counts) for model, counts in used.items() if any(counts)}


@lru_cache(maxsize=8_192)
def _hour(seed: int, hour: int) -> dict[str, Tokens]:
    busy = _day_factor(seed, hour // 24) * (1.5 if 12 <= hour % 24 < 23 else 0.58)  # noqa: PLR2004 (office hours in New York, in UTC)
    random = dice(seed, "hour", hour)
    return {
        model: Tokens(*(int(mean * busy * random.uniform(0.6, 1.4) + random.random()) for mean in means))
        for model, means in _AVERAGE_HOUR.items()
    }


@lru_cache(maxsize=1_024)
def _day_factor(seed: int, day: int) -> float:
    return dice(seed, "day", day).uniform(0.65, 1.45)


def bill(tokens: Mapping[str, Tokens], day_at: int) -> Iterator[CostLine]:
    """The lines of the day that begins at `day_at`, exact; nothing for what was not used."""
    for model, used in tokens.items():
        name = _NAMES[model]
        for (token_type, words), count, price in zip(_TOKEN_TYPES, used.counts(), _prices(model, day_at), strict=False):
            if count:
                yield CostLine(Decimal(count * price).scaleb(-6), model, token_type, f"{name} Usage - {words}")
        if used.searches:
            yield CostLine(Decimal(used.searches), model, None, "Web Search Usage")


def _prices(model: str, day_at: int) -> tuple[int, ...]:
    prices = _CENTS_PER_MILLION[model]
    if model == "claude-sonnet-5-5" and day_at < _SONNET_READ_CHANGED:
        return (*prices[:3], 20, prices[4])
    return prices
