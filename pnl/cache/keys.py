"""The keys of the cache, and how long their values are kept."""

from collections.abc import Mapping

CURRENT = "pnl:current"
"""The key of the snapshot that is shown now."""

KEPT_S: Mapping[str, int] = {
    CURRENT: 5 * 60,
    "pnl:1m:": 30 * 60,  # one minute's bar, by its start in ms since the epoch
    "history:": 15 * 60,  # bars over a range
    "kalshi:": 5 * 60,
    "john:": 15 * 60,
    "anthropic:": 30 * 60,  # costs change by the day
}
"""How long a value is kept, fresh or stale, by how its key begins; in seconds."""

KEPT_OTHERWISE_S = 5 * 60


def kept_s(key: str) -> int:
    """How long a value of this key is kept, in seconds."""
    return next((kept for start, kept in KEPT_S.items() if key.startswith(start)), KEPT_OTHERWISE_S)


def minute_key(minute_ms: int) -> str:
    """The key of the minute that starts at `minute_ms` since the epoch."""
    return f"pnl:1m:{minute_ms}"
