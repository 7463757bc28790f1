"""The past as one page sees it: the chosen range as a plot and as figures, and what was shown at an instant."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from bokeh.core.properties import String
from bokeh.document import Document
from bokeh.model import DataModel, Model
from bokeh.models import ColumnDataSource
from bokeh.server.session import ServerSession
from panel.io.document import unlocked
from panel.io.state import set_curdoc

from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.history.periods import Period, period
from pnl.history.ranges import Range, parse_range
from pnl.stream import LINE_POINTS, changed
from pnl.stream.wire import connections_of, is_in_use, session_of, with_id
from pnl.views.answers import Point, Stretch, ends, stretch
from pnl.views.equity import NAMES
from pnl.views.period import instant_fields, parse_instant, period_fields, range_text

DEFAULT = "all"
AGAIN_S = 0.005
LONGEST_TEXT = 100
TEXTS = ("range.error", "at", "at.error", "step", "error", "rebuilt", "live", "timings", "slow", "checklist", "fills")
UNITS = {"s": "s", "m": "min", "h": "h", "d": "day", "w": "week", "mo": "month"}

log = logging.getLogger(__name__)


class Asked(DataModel):
    """What the page asks for: a `Wish` as JSON, written by the browser."""

    wish = String(default="")


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page wants to see; `turn` counts them, so that the same one can be said again.

    `window` is what the plot was moved to, in local ms; None for the whole range. `chosen` tells a range or an instant
    that somebody chose from a plot that only moved, beside which what is wrong stays said. `fills` is the page of the
    table that is looked at, the newest being 0.
    """

    turn: int = 0
    range: str = DEFAULT
    at: str = ""
    window: Point | None = None
    chosen: bool = False
    timings: bool = False
    fills: int = 0


class _Gone(Exception):
    """Nobody looks at the page any more."""


class Past:
    """What one page shows of the past: `steps` for the plot, and `texts` by name, also in `fields`.

    Args:
        history: Whom to ask.
        line: The live line, `t` in local ms and `net` in US dollars, as every page has it.
        zone: The reporting time zone, by name.
        sources: The sources that are configured; what only others could know is unknown.
        fills: The rows of a page of the table of fills; the newest page is not of the past.
        timings: The texts of the performance panel.
        turns: How many pages may ask at once: a record that came concerns all of them, and the numbers go first.
        wish: What to begin with, as somebody typed it; what makes no sense in it is said and not taken.
    """

    def __init__(
        self,
        history: History,
        line: Callable[[], Mapping[str, Any]],
        *,
        zone: str,
        sources: Collection[str] = (),
        fills: Callable[[int], str] | None = None,
        timings: Callable[[], Mapping[str, str]] = dict,
        turns: asyncio.Semaphore | None = None,
        wish: Wish | None = None,
    ) -> None:
        self.steps = with_id(ColumnDataSource, "steps", data={name: [] for name in NAMES})
        self.texts = with_id(ColumnDataSource, "past")
        self.asked = with_id(Asked, "asked")
        self._history = history
        self._line = line
        self._zone = ZoneInfo(zone)
        self._sources = tuple(sources)
        self._fills = fills
        self._timings = timings
        self._turns = turns or asyncio.Semaphore()
        self._document: Document | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[None] | None = None
        self._is_due = False
        self._is_gone = False
        self._wish = Wish()
        self._drawn: tuple[Stretch, Point | None] | None = None
        self._live_since = -math.inf
        self._figures_of = ""
        self._unsaid: dict[str, str] = {}
        self.fields = self._first_fields() | self._choose(wish or Wish())
        self.texts.data = {"name": list(self.fields), "text": list(self.fields.values())}

    @property
    def models(self) -> tuple[Model, ...]:
        """What a session's document holds of it."""
        return self.steps, self.texts, self.asked

    def _first_fields(self) -> dict[str, str]:
        texts = dict.fromkeys((f"past.{name}" for name in TEXTS), "") | {"past.live": "0"}
        texts |= self._figures(None, Range("")) | instant_fields(None, None, self._zone)
        return texts | self._named(self._parsed(DEFAULT))

    def follow(self, document: Document, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, answer on this loop what the page in this document asks for."""
        self._document, self._loop = document, loop

        # Bokeh calls back in another thread, where an answer could overtake a newer one.
        def heard(_name: str, _old: str, said: str) -> None:
            loop.call_soon_threadsafe(self.hear, said)

        self.asked.on_change("wish", heard)

    def leave(self) -> None:
        """Nobody looks at the page any more, and its models are no longer to be touched."""
        self._is_gone = True

    def refresh_soon(self) -> None:
        """Read anew what is shown, from any thread; nothing happens before the page is followed."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.refresh)

    def hear(self, said: str) -> None:
        """Take a wish as the browser wrote it; what is none is not from our page, and not heard."""
        try:
            wish = msgspec.json.decode(said, type=Wish)
        except msgspec.DecodeError:
            return
        self._unsaid |= self._choose(wish)
        self.refresh()

    def refresh(self) -> None:
        """Have everything read anew, one question after another; asked for meanwhile, it is done once more."""
        self._is_due = True
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._load_while_due(), name="page-history")

    async def _load_while_due(self) -> None:
        while self._is_due and self._is_heard():
            self._is_due = False
            try:
                async with self._turns:
                    await self.load()
            except _Gone:
                return
            except Exception:
                log.exception("the history of a page could not be shown")  # the next wish may go well

    async def load(self) -> None:
        """Read and show the plot, the figures and the instant; a history that is down is said, and the plot stays."""
        wish, range_, error = self._wish, self._parsed(self._wish.range), ""
        await self._say(self._unsaid | self._named(range_))
        try:
            start, end = ends(range_, wish.window, self._zone, self._live_from(0.0))
            await self._draw(await stretch(self._history, start, end))
            await self._say(self._figures(await period(self._history, range_), range_))
            self._figures_of = range_.name
            await self._load_instant(wish.at)
        except HistoryError as trouble:
            error = str(trouble)
            if self._figures_of != range_.name:  # another range's figures would be taken for this one's
                await self._say(self._figures(None, range_))
        timings = self._timings() if wish.timings else {}
        fills = self._fills(wish.fills) if self._fills and wish.fills > 0 else ""
        await self._say({"past.error": error, "past.fills": fills} | dict(timings))

    async def _load_instant(self, text: str) -> None:
        moment = parse_instant(text, zone=self._zone, now=datetime.now(UTC))
        snapshot = None if moment is None else await self._history.snapshot_at(moment, self._sources)
        await self._say(instant_fields(moment, snapshot, self._zone))

    def _choose(self, wish: Wish) -> dict[str, str]:
        """Take over what makes sense, and tell what does not."""
        old, texts = self._wish, {"past.turn": str(wish.turn)}
        if wish.chosen:
            texts |= {"past.range.error": "", "past.at.error": ""}
        chosen, at, window = wish.range[:LONGEST_TEXT], wish.at[:LONGEST_TEXT].strip(), wish.window
        try:
            texts |= self._named(self._parsed(chosen))
        except HistoryError as error:
            texts["past.range.error"], chosen, window = str(error), old.range, window or old.window
        try:
            parse_instant(at, zone=self._zone, now=datetime.now(UTC))
        except ValueError as error:
            texts["past.at.error"], at = str(error), old.at
        self._wish = msgspec.structs.replace(wish, range=chosen, at=at, window=window)
        return texts | {"past.at": at}

    def _figures(self, found: Period | None, range_: Range) -> dict[str, str]:
        return period_fields(found, self._zone, self._sources, has_before=range_.before is not None)

    def _parsed(self, text: str) -> Range:
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)  # so that pages ask the same and share answers
        return parse_range(text, zone=self._zone, now=this_minute)

    def _named(self, range_: Range) -> dict[str, str]:
        before = f"compared with {range_text(range_.before, self._zone)}" if range_.before else ""
        return {"past.range": range_.name, "past.dates": range_text(range_, self._zone), "past.before": before}

    async def _draw(self, found: Stretch) -> None:
        await self._untouched()
        is_joined = found.end is None
        live = self._live_from(found.last_begins(self._zone)) if is_joined else None
        if self._still_stands(found):
            return
        self._drawn = (found, live)
        with self._writing():
            self.steps.data = found.columns(self._zone, live)
            self._send_texts(_captions(found) | {"past.live": self._joined_at(live) if is_joined else ""})

    def _joined_at(self, live: Point | None) -> str:
        """From where on the live line is shown; the browser leaves to the steps what is before."""
        if live is not None:
            self._live_since = live[0]
        return str(self._live_since if math.isfinite(self._live_since) else 0)

    def _still_stands(self, found: Stretch) -> bool:
        """Whether what is drawn shows this already, up to where the live line goes on."""
        if self._drawn is None or not found.goes_on(self._drawn[0]):
            return False
        return found.end is not None or (self._has_room() and self._live_from(0.0) == self._drawn[1])

    def _live_from(self, local: float) -> Point | None:
        """The first point of the live line at a time or after it."""
        line, first = self._line(), max(local, self._live_since)
        points = zip(line["t"], line["net"], strict=True)
        return next(((t, net) for t, net in points if t >= first and not math.isnan(net)), None)

    def _has_room(self) -> bool:
        """Whether the live line keeps all of its points for a while."""
        line = self._line()["t"]
        return len(line) < LINE_POINTS * 0.9 or line[LINE_POINTS // 10] <= self._live_since

    async def _say(self, texts: Mapping[str, str]) -> None:
        await self._untouched()
        with self._writing():
            self._send_texts(texts)

    def _send_texts(self, texts: Mapping[str, str]) -> None:
        new = changed(self.fields, texts)
        index = {name: number for number, name in enumerate(self.fields)}
        self.fields |= new
        if new:
            self.texts.patch({"text": [(index[name], text) for name, text in new.items()]})

    def _is_heard(self) -> bool:
        """Whether a page still listens; a document without a session is somebody's own."""
        if self._is_gone:
            return False
        return self._session is None or bool(connections_of(self._session))

    @property
    def _session(self) -> ServerSession | None:
        return None if self._document is None else session_of(self._document)

    async def _untouched(self) -> None:
        """Wait until no callback is at the document: it runs in another thread."""
        while (session := self._session) is not None and is_in_use(session):  # noqa: ASYNC110 - Bokeh's lock tells nobody
            await asyncio.sleep(AGAIN_S)
        if not self._is_heard():  # writing to it would keep Bokeh from ever clearing it away
            raise _Gone

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Send at once what is written meanwhile, if there is a page."""
        if self._document is None:
            yield
            return
        with set_curdoc(self._document), unlocked():
            yield


def _captions(found: Stretch) -> dict[str, str]:
    name = found.bars.bucket
    number = name.rstrip("smhdwo")
    return {
        "past.step": f"{number} {UNITS[name.removeprefix(number)]} a step",
        "past.rebuilt": "some" if found.carried is not None or bool(found.bars.rebuilt.any()) else "",
    }
