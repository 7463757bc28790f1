"""Whether and when a request is tried again: full jitter between attempts, one deadline over all of them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pnl.errors import SourceBusy, SourceUnavailable

ATTEMPTS = 3
PAUSE_S = wait_random_exponential(multiplier=0.1, max=1)
BUSY_ATTEMPTS = 6
BUSY_PAUSE_S = wait_random_exponential(multiplier=0.5, max=2)
LONGEST_WAIT_S = 300.0


class Patience:
    """Whether and when one request is tried again; its attempts and their pauses share one deadline.

    Waiting for its turn is not taken from the deadline: not the pace of the source, nor the pauses that a busy source
    needs when it does not say how long (7.5 s at most): it did answer, so it is not dead.
    """

    def __init__(self, deadline_s: float, *, may_retry: bool) -> None:
        self.left_s = deadline_s
        self._may_retry = may_retry

    def retrying(self, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
        """Calls a function until it answers, or until its last failure."""
        return AsyncRetrying(
            retry=retry_if_exception_type((SourceBusy, SourceUnavailable)),
            wait=self._pause_s,
            stop=self._is_over,
            before_sleep=self._charge,
            sleep=sleep,
            reraise=True,
        )

    def _pause_s(self, state: RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, SourceBusy):
            return (error.retry_after_s or 0.0) + BUSY_PAUSE_S(state)
        return PAUSE_S(state)

    def _is_over(self, state: RetryCallState) -> bool:
        attempts = BUSY_ATTEMPTS if isinstance(_error(state), SourceBusy) else ATTEMPTS
        return not self._may_retry or state.attempt_number >= attempts or self._cost_s(state) >= self.left_s

    def _charge(self, state: RetryCallState) -> None:
        self.left_s -= self._cost_s(state)

    def _cost_s(self, state: RetryCallState) -> float:
        error = _error(state)
        is_for_its_turn = isinstance(error, SourceBusy) and error.retry_after_s is None
        return 0.0 if is_for_its_turn else state.upcoming_sleep


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After asks for, 300 at most; None where it asks for nothing that makes sense."""
    if value is None:
        return None
    try:
        wait_s = float(value) if value.isdigit() else (http_date(value) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(wait_s, LONGEST_WAIT_S) if wait_s > 0 else None


def http_date(value: str) -> datetime:
    """The instant that a header tells, aware.

    Raises:
        ValueError: It tells none.
    """
    instant = parsedate_to_datetime(value)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
