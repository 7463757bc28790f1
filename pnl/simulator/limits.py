"""The venue's token buckets: so many tokens a second, never more than the bucket holds."""

from collections.abc import Callable


class TokenBucket:
    """Full at first; `take` says whether a request may pass, and never waits.

    Args:
        per_s: Tokens that come back each second.
        capacity: Tokens that it holds at most.
        clock: Seconds on any clock that only goes forward.
    """

    def __init__(self, per_s: float, capacity: float, clock: Callable[[], float]) -> None:
        """Fill the bucket."""
        self._per_s = per_s
        self._capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._filled_at = clock()

    def take(self, tokens: float) -> bool:
        """Take the tokens if they are there; a refusal costs nothing."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True
