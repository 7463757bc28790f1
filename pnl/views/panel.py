"""What a part of the page is that asks the history: texts by name, made from what is looked at."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Protocol

from pnl.history.client import History
from pnl.history.ranges import Range
from pnl.views.wish import Wish


@dataclass(frozen=True, slots=True)
class Look:
    """What one page looks at; `sources` are those that are configured: what only others could know is unknown."""

    history: History
    zone: tzinfo
    sources: tuple[str, ...]
    wish: Wish
    range: Range


class Panel(Protocol):
    """A part of the page."""

    def first(self) -> Mapping[str, str]:
        """Its texts before there is an answer, and when there is none."""

    def depends(self, wish: Wish) -> Hashable:
        """What of a wish its texts depend on: while that stays the same and no record came, they do too."""

    async def texts(self, look: Look) -> Mapping[str, str]:
        """Its texts.

        Raises:
            HistoryError: There is no answer.
        """
