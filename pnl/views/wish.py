"""What a page wants to see of the past: written by the browser, begun with what its address asks for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from bokeh.core.properties import String
from bokeh.model import DataModel
from msgspec import Meta

from pnl.history.dimensions import DIMENSIONS, ORDERS, TERMS

LONGEST_TEXT = 100
MOST_FILTERS = 8
CALENDAR = "calendar"
TABS = ("source", "series", "event", "market", "side", "item", "deal", CALENDAR, "weekday", "hour")
LANDMARKS = ("range", "at", "by", "term", "sort", "q")

type Window = tuple[float, float]
"""What a plot was moved to, in local ms since the epoch."""
type Text = Annotated[str, Meta(max_length=1000)]


class Asked(DataModel):
    """What the page asks for: a `Wish` as JSON, written by the browser."""

    wish = String(default="")


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page wants to see; `turn` counts them, so that the same one can be said again.

    `window` is what the plot was moved to; None for the whole range. `chosen` tells a range or an instant that somebody
    chose from a plot that only moved, beside which what is wrong stays said. `anew` wants everything read again.
    `timings` and `health` tell whether somebody looks at the performance, or at a source.
    `filters` are pairs of a dimension and the name of one of its parts. `by` is the breakdown that is looked at,
    `first` and `count` are the rows of the ledger, `sort` its order (with a minus: the largest first), `record` the
    kind and name of the record that is looked at.
    """

    turn: int = 0
    range: Text = "all"
    at: Text = ""
    window: Window | None = None
    chosen: bool = False
    anew: bool = False
    timings: bool = False
    health: bool = False
    compare: bool = False
    filters: Annotated[list[tuple[Text, Text | None]], Meta(max_length=MOST_FILTERS)] = []
    by: Text = "source"
    term: Text = "net"
    sort: Text = "-time"
    q: Text = ""
    first: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    count: Annotated[int, Meta(ge=1, le=500)] = 60
    record: tuple[Text, Text] | None = None

    @property
    def order(self) -> str:
        """By what the ledger is ordered."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        """Whether the largest, or newest, comes first."""
        return self.sort.startswith("-")

    @property
    def postings(self) -> dict[str, Any]:
        """Which postings are looked at, as `History.booked` and its like take it."""
        return {"filters": self.filters, "search": self.q}


def wish_of(arguments: Mapping[str, Sequence[bytes]]) -> Wish:
    """What a page's address asks for; what it says twice counts the last time, and what is unknown is not heard."""
    said = {name: values[-1].decode("utf-8", "replace")[:LONGEST_TEXT] for name, values in arguments.items() if values}
    filters = [(name, said[name] or None) for name in DIMENSIONS if name in said]
    texts = {name: said[name] for name in LANDMARKS if said.get(name)}
    return msgspec.structs.replace(Wish(compare=said.get("compare") == "1", filters=filters), **texts)


def kept(wish: Wish) -> tuple[Wish, list[str]]:
    """The part of a wish that makes sense, and what is wrong with the rest, in words."""
    trouble = []
    for name, known in (("by", TABS), ("term", tuple(TERMS)), ("order", tuple(ORDERS))):
        if getattr(wish, name) not in known:
            trouble.append(f"There is no {name} {getattr(wish, name)[:40]!r}.")
    fallen = Wish()
    wish = msgspec.structs.replace(
        wish,
        by=wish.by if wish.by in TABS else fallen.by,
        term=wish.term if wish.term in TERMS else fallen.term,
        sort=wish.sort if wish.order in ORDERS else fallen.sort,
        q=wish.q[:LONGEST_TEXT].strip(),
        filters=list(_known(wish.filters)),
    )
    return wish, trouble


def _known(filters: Iterable[tuple[str, str | None]]) -> Iterable[tuple[str, str | None]]:
    return ((dimension, name) for dimension, name in dict(filters).items() if dimension in DIMENSIONS)
