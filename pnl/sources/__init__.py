"""The upstreams, one class each, found through the entry-point group `pnl.sources`."""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol, Self, runtime_checkable

from pnl.config import Settings
from pnl.errors import ConfigError
from pnl.records import Batch, Known
from pnl.sources.transport import Transport

GROUP = "pnl.sources"
OWN = ("kalshi", "anthropic", "john")
TITLES = {"kalshi": "Kalshi", "anthropic": "Anthropic", "john": "Deals"}


class Source(Protocol):
    """One upstream. It keeps nothing between polls: what it must remember, it is told in `Known`.

    A third party adds a source by naming such a class in its package's entry points::

        [project.entry-points."pnl.sources"]
        openai = "my_package:OpenAI"
    """

    name: str
    """Short and lower-case, as in `PNL_<NAME>_POLL_S`; also the key in `pnl snapshot --json`."""

    origin: str
    """Where the records come from, without secrets: cursors of another origin are not used."""

    poll_s: float
    """Seconds between two polls."""

    @classmethod
    def from_settings(cls, settings: Settings, transport: Transport) -> Self | None:
        """The source, ready to poll, or None when it is not configured.

        Raises:
            ConfigError: It is configured, but not in a way that can work.
        """

    async def poll(self, known: Known) -> Batch:
        """Read what is new.

        Raises:
            SourceError: Nothing could be read.
        """


@runtime_checkable
class Checkable(Protocol):
    """A source that can be tried, as `pnl doctor` does; one of a third party may leave it out."""

    async def check(self) -> str:
        """What a small request says, in plain words; nothing is kept of it.

        Raises:
            SourceError: It was refused, or nobody answered.
        """


def source_classes() -> dict[str, type[Source]]:
    """Every installed source by name: the project's own first, then others by name.

    Raises:
        ConfigError: A third party's source cannot be imported.
    """
    found = {}
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (*(entry.name != own for own in OWN), entry.name))
    for entry in entries:
        try:
            found[entry.name] = entry.load()
        except Exception as error:
            raise ConfigError(
                f"source {entry.name} ({entry.value}) cannot be imported: {error}; reinstall or remove its package"
            ) from error
    return found


def open_sources(settings: Settings, transport: Transport) -> tuple[list[Source], Sequence[str]]:
    """The configured sources, and the names of the others.

    Raises:
        ConfigError: One is configured in a way that cannot work.
    """
    made = {name: kind.from_settings(settings, transport) for name, kind in source_classes().items()}
    configured = [source for source in made.values() if source is not None]
    return configured, [name for name, source in made.items() if source is None]
