"""The level of the cache in memory, and what every level keeps and counts."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(slots=True)
class Level:
    """What one level did so far; for the store a hit is a fetch that brought a value."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    evictions: int = 0

    @property
    def hit_ratio(self) -> float | None:
        """Hits per question, 0–1; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class Entry(NamedTuple):
    """A value as the levels keep it; `stored_at` is in seconds of the cache's clock."""

    value: bytes
    stored_at: float
    ttl_s: float

    def is_fresh(self, now: float) -> bool:
        """Whether it is inside its TTL; a value from the future, left by another clock, is not."""
        return 0 <= now - self.stored_at < self.ttl_s


class Memory:
    """The last values, at most `entries` of them, each for `ttl_s`; the least recently used makes room.

    A value past its time stays where it is, for a fetch that fails, until its room is needed.
    """

    name: Literal["memory"] = "memory"

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._held: OrderedDict[str, tuple[float, Entry]] = OrderedDict()  # until when, and what
        self.counts = Level()

    def get(self, key: str, now: float) -> Entry | None:
        """The value that is still fresh."""
        held = self._held.get(key)
        if held is None or now >= held[0]:
            self.counts.misses += 1
            return None
        self._held.move_to_end(key)
        self.counts.hits += 1
        return held[1]

    def last(self, key: str) -> Entry | None:
        """The last value, however old."""
        held = self._held.get(key)
        return None if held is None else held[1]

    def put(self, key: str, entry: Entry, now: float) -> None:
        """Keep a value until its TTL or this level's ends, whichever is first."""
        self._held[key] = min(now + self._ttl_s, entry.stored_at + entry.ttl_s), entry
        self._held.move_to_end(key)
        if len(self._held) > self._entries:
            self._held.popitem(last=False)
            self.counts.evictions += 1

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._held.pop(key, None)
