"""Every exception that the package raises on purpose, under one base."""


class PnlError(Exception):
    """Something went wrong that a person can act on: the text says what, where, and what to do."""


class ConfigError(PnlError):
    """A setting is missing or makes no sense; the text names the setting, never its secret value."""


class SourceError(PnlError):
    """A source could not be read: refused, unreachable, too slow, or its answer made no sense."""


class SourceBusy(SourceError):
    """The source asks for fewer requests (HTTP 429)."""


class SourceRefused(SourceError):
    """The source answered and said no: a wrong key, a wrong clock, a wrong address (HTTP 4xx, in `status`)."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class BadRow(PnlError):
    """One row from outside cannot be believed; it is set aside and named, its neighbours count."""


class StoreError(PnlError):
    """The store cannot be opened, read or written."""


class StoreHeld(StoreError):
    """Another process writes to this data folder."""


class SimulatorError(PnlError):
    """The simulated world cannot be built, for instance from a damaged recording."""
