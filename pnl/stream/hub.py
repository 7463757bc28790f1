"""One present for all pages: what changed is put together at most every so often, encoded once, and sent to each.

A session's document holds three column sources: `fields` (every text of the page that lives, by name), `line` (net P&L
over the last snapshots) and `days` (what each day made). They have the same ids in every session, and no session keeps
their columns: whoever asks for a document gets the present, and whoever follows gets what changed since.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import tzinfo

from bokeh.document import Document
from param.parameterized import Event

from pnl.config import Role
from pnl.metrics import Metrics
from pnl.model import PnLModel
from pnl.records import Snapshot, Trace
from pnl.stream.delivery import Deliveries
from pnl.stream.live import Live, Page
from pnl.stream.present import Line, Present, day_columns, patch
from pnl.stream.texts import fields_of, for_viewers
from pnl.stream.wire import Encoder, Letter, connections_of, is_free, is_in_use, session_of

log = logging.getLogger(__name__)

FLUSH_MS = 100
FLUSH_CHANGES = 100
AGAIN_S = 0.01

type Letters = dict[tuple[Role, Present | None], Letter | None]
"""What pages of a role lack that show a present; None: nothing, or everything where nobody knows what they show."""


class Hub:
    """The present of one model, and every session that follows it.

    Args:
        model: Whose snapshots are shown.
        zone: The reporting time zone.
        sources: The names of all sources that there may be.
        metrics: Told of what is sent.
        tables: More texts by name, always the same names: asked for whenever texts are sent, so it should be quick.
        flush_ms: Changes go out at once, but no more often than this; the newest text wins, and every point stays.
        flush_changes: So many snapshots do not wait any longer.
    """

    def __init__(
        self,
        model: PnLModel,
        zone: tzinfo,
        sources: Iterable[str],
        *,
        metrics: Metrics | None = None,
        tables: Callable[[], dict[str, str]] = dict,
        flush_ms: float = FLUSH_MS,
        flush_changes: int = FLUSH_CHANGES,
    ) -> None:
        self.sources = tuple(sources)
        self._tables = tables
        first = fields_of(None, self.sources) | tables()
        self.names = tuple(first)
        self.present = Present(tuple(first.values()), Line.empty(), day_columns({}))
        self._of_viewers: Present | None = None
        self._made_for: Present | None = None
        self._model = model
        self._zone = zone
        self._flush_s, self._flush_changes = flush_ms / 1000, flush_changes
        self._newest: Snapshot | None = None
        self._points: list[tuple[float, float]] = []
        self._changes = 0
        self._flushed_at = -float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._pages: dict[Document, Page] = {}
        self._behind: set[Page] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._encoder = Encoder()
        self._metrics = metrics or Metrics()
        self.deliveries = Deliveries(self._metrics)
        model.param.watch(self._on_snapshot, "snapshot")

    def fields(self, role: Role = Role.OWNER) -> dict[str, str]:
        """Every text by name, as a role reads it."""
        return dict(zip(self.names, self.seen_by(role).texts, strict=True))

    def seen_by(self, role: Role) -> Present:
        """The present, as a role sees it; viewers' own is made once somebody asks for it."""
        if role is Role.OWNER:
            return self.present
        if self._of_viewers is None or self._made_for is not self.present:
            texts = for_viewers(self.fields(), self.sources)
            self._of_viewers = replace(self.present, texts=tuple(texts[name] for name in self.names))
            self._made_for = self.present
        return self._of_viewers

    @property
    def session_count(self) -> int:
        """How many sessions follow, those included whose page is not open yet or not any more."""
        return len(self._pages)

    @property
    def connected_count(self) -> int:
        """How many pages are open."""
        sessions = map(session_of, list(self._pages))
        return sum(len(connections_of(session)) for session in sessions if session is not None)

    def recall(self, snapshots: Iterable[tuple[int, int]]) -> None:
        """Begin the line with what was recorded: (ms since the epoch, micro-dollars), oldest first."""
        recorded = [(float(at_ms), micros / 1e6) for at_ms, micros in snapshots]
        old = self.present.line
        line = Line.empty(old.era + 1).with_points(recorded, self._zone).followed_by(old)
        self._show(replace(self.present, line=line))

    def live(self, role: Role = Role.OWNER) -> Live:
        """The sources for a new session's document."""
        return Live(self.names, lambda: self.seen_by(role))

    def join(self, document: Document, live: Live, on_records: Callable[[], None], *, role: Role = Role.OWNER) -> None:
        """Let a session follow, from when its page has the document.

        Args:
            document: It holds the sources.
            live: The sources.
            on_records: Called when a record came that is more than a new price: what is not streamed is read anew.
            role: Whose page it is; the sources are of the same.
        """
        self._pages[document] = Page(document, live, on_records, role)

    def leave(self, document: Document) -> None:
        """Forget a session."""
        self._pages.pop(document, None)

    def _on_snapshot(self, event: Event) -> None:
        if event.old is not None and event.old.sequence == event.new.sequence:  # the same one, on disk by now
            self._newest = event.new
            self.publish_tables()
        else:
            self.publish(event.new)
        if event.old is None or event.old.records != event.new.records:
            self.publish_records()

    def publish(self, snapshot: Snapshot) -> None:
        """Bring every session to a new snapshot: the texts that changed, and one point."""
        self._newest = snapshot
        if snapshot.is_worth_recording:
            self._points.append((snapshot.taken_at.timestamp() * 1000, float(snapshot.net_pnl)))
        self._changes += 1
        self._flush_soon()

    def publish_tables(self) -> None:
        """Bring every session to the texts of now, though no other snapshot came."""
        self._show(replace(self.present, texts=self._texts()))

    def publish_records(self) -> None:
        """Bring every session to what the days made, and let it read anew what it shows of the records."""
        days = day_columns(self._model.day_totals(self._zone))
        if days != self.present.days:
            self._show(replace(self.present, days=days))
            self._metrics.broadcast("days")
        for page in list(self._pages.values()):
            page.on_records()

    def _flush_soon(self) -> None:
        wait_s = self._flushed_at + self._flush_s - time.monotonic()
        if wait_s <= 0 or self._changes >= self._flush_changes:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
        t0 = time.time() * 1000
        line = self.present.line.with_points(self._points, self._zone, t0=t0)
        self._timer, self._points, self._changes, self._flushed_at = None, [], 0, time.monotonic()
        trace = Trace() if self._newest is None else self._newest.trace
        self._show(replace(self.present, texts=self._texts(), line=line), trace)
        self.deliveries.sent(t0, trace)

    def _texts(self) -> tuple[str, ...]:
        newest = {} if self._newest is None else fields_of(self._newest)
        texts = self.fields() | newest | self._tables()
        return tuple(texts[name] for name in self.names)

    def _show(self, present: Present, trace: Trace | None = None) -> None:
        shown, self.present = self.present, present
        letters: Letters = {}
        self._letter(Role.OWNER, shown, letters)
        if trace is not None:
            trace.encoded = time.perf_counter()
        self._send(self._pages.values(), letters)

    def _send(self, pages: Iterable[Page], letters: Letters) -> None:
        """Bring pages to the present; what several of them lack is encoded once."""
        for page in list(pages):
            try:
                is_there = self._bring(page, letters)
            except Exception:
                log.exception("a session could not be written to and is let go; its page loads itself anew")
                self.leave(page.document)
                continue
            if not is_there:
                self._behind.add(page)
        if self._behind and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        behind = [page for page in self._behind if page.document in self._pages]
        self._behind, self._retry = set(), None
        self._send(behind, {})

    def _bring(self, page: Page, letters: Letters) -> bool:
        """Bring a page to the present, if it has the document already; False if it cannot be written to now."""
        session = session_of(page.document)
        if session is None or not (listeners := connections_of(session)):
            return True
        if is_in_use(session) or not all(map(is_free, listeners)):
            return False
        page.look(listeners)
        present = self.seen_by(page.role)
        if page.pulls and page.shown is not present:
            if (letter := self._letter(page.role, page.shown, letters)) is not None:
                for listener in listeners:
                    letter.send(listener)
            page.shown = present
        return True

    def _letter(self, role: Role, shown: Present | None, letters: Letters) -> Letter | None:
        if (role, shown) not in letters:
            lacks = patch(shown, self.seen_by(role))
            letters[role, shown] = self._encoder.encode(lacks) if lacks else None
        return letters[role, shown]
