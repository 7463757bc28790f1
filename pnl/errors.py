"""Every exception that the package raises on purpose, under one base."""


class PnlError(Exception):
    """Something went wrong that a person can act on: the text says what, where, and what to do."""


class ConfigError(PnlError):
    """A setting is missing or makes no sense; the text names the setting, never its secret value."""


class SourceError(PnlError):
    """A source could not be read: refused, unreachable, too slow, or its answer made no sense."""


class SourceUnavailable(SourceError):
    """The source cannot be reached, broke off, or answered HTTP 5xx: another attempt may succeed at once."""


class SourceBusy(SourceError):
    """The source asks for fewer requests (HTTP 429, or 503 with Retry-After).

    `retry_after_s` is how long it wants to be left alone, in seconds; None when it does not say.
    """

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class SourceResting(SourceError):
    """The source was not asked at all: it failed too often just now; the text says until when."""


class SourceRefused(SourceError):
    """The source answered and said no: a wrong key, a wrong clock, a wrong address (HTTP 4xx, in `status`)."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class BadRow(PnlError):
    """One row from outside cannot be believed; it is set aside and named, its neighbours count."""


class StoreError(PnlError):
    """The store cannot be opened, read or written."""


class StoreNotReady(StoreError):
    """Nothing can be read yet: whoever records has not made the database so far, or not brought it to this version."""


class Damaged(StoreError):
    """A file of the store does not hold what was written to it."""


class StoreHeld(StoreError):
    """Another process, the `holder`, writes to this data folder."""

    def __init__(self, text: str, holder: str) -> None:
        super().__init__(text)
        self.holder = holder


class StoreReadOnly(StoreError):
    """Nothing can be written to the data folder."""


class HistoryError(PnlError):
    """A question about the history makes no sense, or cannot be answered."""


class HistoryDown(HistoryError):
    """The process that answers questions about the history died or took too long; the next question starts it anew."""


class LinkRefused(PnlError):
    """A link that was handed out does not let anybody in any more, or never did."""


class ReportError(PnlError):
    """A report cannot be written where it should be."""


class SimulatorError(PnlError):
    """The simulated world cannot be built, for instance from a damaged recording."""
