"""What one session holds of what all of them show: sources without columns of their own, and where its page stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bokeh.core.serialization import ObjectRefRep, Serializer
from bokeh.document import Document
from bokeh.model import Model
from bokeh.server.connection import ServerConnection

from pnl.config import Role
from pnl.stream.present import Columns, Present
from pnl.stream.wire import DAYS, FIELDS, LINE, with_id


class Followed(Model):
    """A source of a page whose columns are the hub's, read when somebody asks for its document."""

    def show(self, columns: Callable[[], Columns]) -> None:
        """Have these columns from now on."""
        self._columns = columns

    def to_serializable(self, serializer: Serializer) -> ObjectRefRep:
        """A plain column source with the columns of now."""
        serializer.add_ref(self, self.ref)
        attributes = {"name": self.name, "data": serializer.encode(dict(self._columns()))}
        return ObjectRefRep(type="object", name="ColumnDataSource", id=self.id, attributes=attributes)


class Live:
    """The sources of one session's document.

    Args:
        names: Of the texts, each in its place.
        present: What all pages show, whenever it is asked for.

    Attributes:
        pulled: What was in the document when it was last asked for.
        pulls: How often it was.
    """

    def __init__(self, names: Sequence[str], present: Callable[[], Present]) -> None:
        self.pulled: Present | None = None
        self.pulls = 0
        self._names = names
        self._present = present
        self.fields, self.line, self.days = (with_id(Followed, name) for name in (FIELDS, LINE, DAYS))
        self.fields.show(self._begin)
        self.line.show(lambda: self._now().line.columns)
        self.days.show(lambda: self._now().days)

    @property
    def sources(self) -> tuple[Followed, Followed, Followed]:
        """In the order in which they have to stand in the document, before everything that refers to them."""
        return self.fields, self.line, self.days

    def _begin(self) -> dict[str, Any]:
        """The texts come first in a document: all of it is of this moment."""
        self.pulled = self._present()
        self.pulls += 1
        return {"name": list(self._names), "text": list(self.pulled.texts)}

    def _now(self) -> Present:
        return self.pulled or self._present()


@dataclass(eq=False)
class Page:
    """A session that follows, and what its page shows: None while nobody knows."""

    document: Document
    live: Live
    on_records: Callable[[], None]
    role: Role = Role.OWNER
    shown: Present | None = None
    pulls: int = 0
    listeners: frozenset[ServerConnection] = field(default_factory=frozenset)

    def look(self, listeners: frozenset[ServerConnection]) -> None:
        """Notice who listens, and who asked for the document; only the first to do either leaves no doubt."""
        if (listeners, self.live.pulls) == (self.listeners, self.pulls):
            return
        is_first = self.pulls == 0 and self.live.pulls == 1 and len(listeners) == 1
        self.shown = self.live.pulled if is_first else None
        self.listeners, self.pulls = listeners, self.live.pulls
