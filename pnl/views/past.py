"""The past as one page sees it: the chosen range as a plot, and what the page's panels make of it."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from bokeh.document import Document
from bokeh.events import Event
from bokeh.model import Model
from bokeh.models import ColumnDataSource
from bokeh.server.session import ServerSession
from panel.io.document import unlocked
from panel.io.state import set_curdoc, state

from pnl.errors import HistoryError
from pnl.history.client import History
from pnl.history.ranges import Range, parse_range, range_text, shifted
from pnl.stream import LINE_POINTS, changed
from pnl.stream.wire import Columns, connections_of, is_in_use, session_of, with_id
from pnl.views.answers import Point, Stretch, ends, ghost, stretch, under
from pnl.views.beside import COLUMNS, empty, instant_columns
from pnl.views.panel import Look, Panel
from pnl.views.period import parse_instant
from pnl.views.wish import LONGEST_TEXT, Asked, Wish, kept

AGAIN_S = 0.005
REST_S, MOST_FAILURES = 0.5, 4
TEXTS = ("range.error", "at", "at.error", "wish.error", "step", "error", "rebuilt", "live", "ghost")
UNITS = {"s": "s", "m": "min", "h": "h", "d": "day", "w": "week", "mo": "month"}

log = logging.getLogger(__name__)


class _Gone(Exception):
    """Nobody looks at the page any more."""


class Past:
    """What one page shows of the past: `drawn` for the plots, and `texts` by name, also in `fields`.

    Args:
        history: Whom to ask.
        line: The live line, `t` in local ms and `net` in US dollars, as every page has it.
        zone: The reporting time zone, by name.
        sources: The sources that are configured; what only others could know is unknown.
        panels: What else is shown, in the order in which it is asked for.
        notes: What is pinned to the plot, in the columns of `beside.COLUMNS`.
        turns: How many pages may ask at once: a record that came concerns all of them, and the numbers go first.
        wish: What to begin with, as somebody typed it; what makes no sense in it is said and not taken.
        drawn: What to draw with, each by its name in `beside.COLUMNS`, instead of sources for a page.
        explain: What is said when the history has no answer: its own words name paths of this machine.
    """

    def __init__(
        self,
        history: History,
        line: Callable[[], Mapping[str, Any]],
        *,
        zone: str,
        sources: Collection[str] = (),
        panels: Sequence[Panel] = (),
        notes: Callable[[], Mapping[str, Any]] | None = None,
        turns: asyncio.Semaphore | None = None,
        wish: Wish | None = None,
        drawn: Mapping[str, Columns | ColumnDataSource] | None = None,
        explain: Callable[[HistoryError], str] = str,
    ) -> None:
        self.drawn: Mapping[str, Columns | ColumnDataSource] = drawn or {
            name: with_id(Columns, name, data=empty(name)) for name in COLUMNS
        }
        self.texts = with_id(ColumnDataSource, "past")
        self.asked = with_id(Asked, "asked")
        self._history = history
        self._line = line
        self._zone = ZoneInfo(zone)
        self._sources = tuple(sources)
        self._panels = panels
        self._notes = notes or partial(empty, "notes")
        self._explain = explain
        self._turns = turns or asyncio.Semaphore()
        self._document: Document | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[None] | None = None
        self._is_due = False
        self._failures = 0  # in a row
        self._is_gone = False
        self._wish = Wish()
        self._drawn: tuple[Stretch, Point | None] | None = None
        self._live_since = -math.inf
        self._shown: dict[object, Hashable] = {}
        self._stale: set[object] = set()
        self._unsaid: dict[str, str] = {}
        self.fields = self._first_fields() | self._choose(wish or Wish())
        self.texts.data = {"name": list(self.fields), "text": list(self.fields.values())}

    @property
    def models(self) -> tuple[Model, ...]:
        """What a session's document holds of it."""
        return *self.drawn.values(), self.texts, self.asked

    def _first_fields(self) -> dict[str, str]:
        texts = dict.fromkeys((f"past.{name}" for name in TEXTS), "") | {"past.live": "0"}
        for panel in self._panels:
            texts |= panel.first()
        return texts | self._named(self._parsed(Wish().range))

    def follow(self, document: Document, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, answer on this loop what the page in this document asks for."""
        self._document, self._loop = document, loop

        # Bokeh calls back in another thread, where an answer could overtake a newer one.
        def heard(_name: str, _old: str, said: str) -> None:
            loop.call_soon_threadsafe(self.hear, said)

        def begun(_event: Event) -> None:
            loop.call_soon_threadsafe(self._begin)

        self.asked.on_change("wish", heard)
        document.on_event("document_ready", begun)

    def _begin(self) -> None:
        """The page is ready; Panel notes that in a thread, and sends nothing before it has."""
        if self._loop is not None and not (self._is_gone or self._is_ready()):
            self._loop.call_later(AGAIN_S, self._begin)
        else:
            self.refresh()

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
        if wish.anew:
            self._forget()
        self._load_soon()

    def refresh(self) -> None:
        """Have everything read anew, one question after another; asked for meanwhile, it is done once more."""
        self._forget()
        self._load_soon()

    def _forget(self) -> None:
        """All that is shown is old, also what is on its way: it was asked for before."""
        self._stale = {self, *self._panels}

    def _load_soon(self) -> None:
        self._is_due = True
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._load_while_due(), name="page-history")

    async def _load_while_due(self) -> None:
        while self._is_due and self._is_heard():
            self._is_due = False
            try:
                async with self._turns:
                    await self._bring()
            except _Gone:
                return
            except Exception:
                log.exception("the history of a page could not be shown")
                self._forget()
                self._is_due = await self._may_try_again()
            else:
                self._failures = 0

    async def _may_try_again(self) -> bool:
        """After a while, as what was wished for stands nowhere; what fails again and again waits for another wish."""
        self._failures += 1
        await asyncio.sleep(REST_S)
        return self._is_due or self._failures < MOST_FAILURES

    async def load(self) -> None:
        """Read and show everything anew; a history that is down is said, and what is shown stays."""
        self._forget()
        await self._bring()

    async def _bring(self) -> None:
        """Read and show what a wish, or a record, has changed; the rest is left once another wish has come."""
        look = Look(self._history, self._zone, self._sources, self._wish, self._parsed(self._wish.range))
        unsaid, self._unsaid = self._unsaid, {}
        await self._say(unsaid | self._named(look.range))
        panels: list[Past | Panel] = [self, *self._panels]
        panels.sort(key=lambda panel: self._shows(panel, look.wish))
        trouble = [await self._brought(panel, look) for panel in panels if self._wish is look.wish]
        await self._say({"past.error": next(filter(None, trouble), "")})

    def _shows(self, panel: "Past | Panel", wish: Wish) -> bool:
        """Whether what a panel shows is of this wish; where it is not, somebody waits for it."""
        return self._shown.get(panel, _Gone) == panel.depends(wish)

    async def _brought(self, panel: "Past | Panel", look: Look) -> str:
        """Show a panel if anything has changed for it; why it could not be."""
        if panel not in self._stale and self._shows(panel, look.wish):
            return ""
        self._stale.discard(panel)
        try:
            await (self._plot(look) if isinstance(panel, Past) else self._say(await panel.texts(look)))
        except HistoryError as error:
            if not isinstance(panel, Past) and not self._shows(panel, look.wish):
                await self._say(panel.first())
            self._shown.pop(panel, None)
            return self._explain(error)
        self._shown[panel] = panel.depends(look.wish)
        return ""

    def depends(self, wish: Wish) -> Hashable:
        """What the plot depends on."""
        return wish.range, wish.window, tuple(wish.filters), wish.compare, wish.at

    async def _plot(self, look: Look) -> None:
        wish, range_ = look.wish, look.range
        start, end = ends(range_, wish.window, self._zone, self._live_from(0.0))
        await self._draw(await stretch(self._history, start, end, wish.filters), range_.start)
        compared = await ghost(self._history, range_, self._zone, wish.filters) if wish.compare else empty("ghost")
        await self._put("ghost", compared)
        await self._put("instant", instant_columns(self._moment(wish.at), self._zone))
        await self._put("notes", self._notes())
        is_there = range_.before is not None and len(compared["t"])
        await self._say({"past.ghost": range_text(range_.before, self._zone) if range_.before and is_there else ""})

    def _moment(self, text: str) -> datetime | None:
        return parse_instant(text, zone=self._zone, now=datetime.now(UTC))

    def _choose(self, wish: Wish) -> dict[str, str]:
        """Take over what makes sense, and tell what does not."""
        old, texts = self._wish, {"past.turn": str(wish.turn)}
        wish, trouble = kept(wish)
        texts["past.wish.error"] = " ".join(trouble)
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

    def _parsed(self, text: str) -> Range:
        this_minute = datetime.now(UTC).replace(second=0, microsecond=0)  # so that pages ask the same and share answers
        return parse_range(text, zone=self._zone, now=this_minute)

    def _named(self, range_: Range) -> dict[str, str]:
        before = f"compared with {range_text(range_.before, self._zone)}" if range_.before else ""
        now = datetime.now(UTC)
        neighbours = (shifted(range_, by, zone=self._zone, now=now) for by in (-1, 1))
        earlier, later = ("" if each is None else each for each in neighbours)
        dates = range_text(range_, self._zone)
        known = {"range": range_.name, "dates": dates, "before": before, "earlier": earlier, "later": later}
        return {f"past.{name}": text for name, text in known.items()}

    async def _draw(self, found: Stretch, since: datetime | None) -> None:
        await self._untouched()
        live = self._live_from(found.last_begins(self._zone)) if found.is_joined else None
        if self._still_stands(found):
            return
        below = await under(self._history, found, since, self._zone, live)
        await self._untouched()
        self._drawn = (found, live)
        with self._writing():
            self.drawn["under"].data = below
            self.drawn["steps"].data = found.columns(self._zone, live)
            self._send_texts(_captions(found) | {"past.live": self._joined_at(live) if found.is_joined else ""})

    def _joined_at(self, live: Point | None) -> str:
        """From where on the live line is shown; the browser leaves to the steps what is before."""
        if live is not None:
            self._live_since = live[0]
        return str(self._live_since if math.isfinite(self._live_since) else 0)

    def _still_stands(self, found: Stretch) -> bool:
        """Whether what is drawn shows this already, up to where the live line goes on."""
        if self._drawn is None or not found.goes_on(self._drawn[0]):
            return False
        return not found.is_joined or (self._has_room() and self._live_from(0.0) == self._drawn[1])

    def _live_from(self, local: float) -> Point | None:
        """The first point of the live line at a time or after it."""
        line, first = self._line(), max(local, self._live_since)
        points = zip(line["t"], line["net"], strict=True)
        return next(((t, net) for t, net in points if t >= first and not math.isnan(net)), None)

    def _has_room(self) -> bool:
        """Whether the live line keeps all of its points for a while."""
        line = self._line()["t"]
        return len(line) < LINE_POINTS * 0.9 or line[LINE_POINTS // 10] <= self._live_since

    async def _put(self, name: str, columns: Mapping[str, Any]) -> None:
        if _same(self.drawn[name].data, columns):
            return
        await self._untouched()
        with self._writing():
            self.drawn[name].data = columns

    async def _say(self, texts: Mapping[str, str]) -> None:
        await self._untouched()
        with self._writing():
            self._send_texts(texts)

    def _send_texts(self, texts: Mapping[str, str]) -> None:
        new = changed(self.fields, texts)
        index = {name: number for number, name in enumerate(self.fields)}
        if new:
            self.texts.patch({"text": [(index[name], text) for name, text in new.items()]})
        self.fields |= new  # only now: what could not be sent is sent once more

    def _is_heard(self) -> bool:
        """Whether a page listens; a document without a session is somebody's own."""
        if self._is_gone or self._session is None:
            return not self._is_gone
        return self._is_ready() and bool(connections_of(self._session))

    def _is_ready(self) -> bool:
        """Whether the page has said that it is ready: before, Bokeh refuses what is written to it."""
        with set_curdoc(self._document):
            return bool(state.loaded)

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


def _same(one: Any, other: Mapping[str, Any]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in other)
