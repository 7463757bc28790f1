"""What the shell offers behind an option; `pnl --install-completion` sets it up."""

from collections.abc import Iterable, Iterator

from pnl.history.buckets import BUCKETS
from pnl.records import MONEY_FIELDS

RANGES = (
    ("today", "since midnight"),
    ("7d", "seven days, today included"),
    ("30d", "thirty days, today included"),
    ("mtd", "this month so far"),
    ("ytd", "this year so far"),
    ("all", "since the first record"),
    ("month-1", "the last whole month"),
    ("quarter-1", "the last whole quarter"),
)
"""The presets of `pnl.history.ranges`, and what else is often asked for."""

PARTS = ("source", "market", "event", "series", "side", "kind", "item", "deal", "day", "month", "weekday", "hour")
"""By what a period can be broken down."""


def ranges(incomplete: str) -> Iterator[tuple[str, str]]:
    """Ranges of time, with what they mean."""
    return (known for known in RANGES if known[0].startswith(incomplete))


def buckets(incomplete: str) -> Iterator[str]:
    """How bars are cut."""
    return _beginning((bucket.name for bucket in BUCKETS.values() if bucket.offered), incomplete)


def columns(incomplete: str) -> Iterator[str]:
    """Which money."""
    return _beginning(MONEY_FIELDS, incomplete)


def parts(incomplete: str) -> Iterator[str]:
    """By what a period is broken down."""
    return _beginning(PARTS, incomplete)


def _beginning(known: Iterable[str], incomplete: str) -> Iterator[str]:
    return (name for name in known if name.startswith(incomplete))
