"""The ledger as a file to keep: all rows that a range and filters choose, on the dashboard's own port."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from pnl.engine import Engine
from pnl.errors import HistoryError
from pnl.history.dimensions import DIMENSIONS, TERMS
from pnl.history.ranges import Range, parse_range
from pnl.web.ops import FindEngine

PATH = "/export"
CONTENT_TYPES: Mapping[str, str] = {
    "csv": "text/csv; charset=UTF-8",
    "json": "application/json",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
NAMES = ("format", "range", "term", "q", *DIMENSIONS)
MOST_AT_ONCE = 4
PATIENCE_S = 5
PIECE_BYTES = 1 << 16
NO_NAME = re.compile(r"[^a-z0-9]+")
LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that somebody asks for: its format, and which rows."""

    form: str
    range: Range
    chosen: Mapping[str, Any]

    def name(self, *, is_demo: bool) -> str:
        """What the file is called: small letters, digits and hyphens, whatever was asked for."""
        part = NO_NAME.sub("-", self.range.name.lower()).strip("-")[:LONGEST_NAME] or "all"
        return f"pnl-ledger-{'demo-' if is_demo else ''}{part}.{self.form}"


def wanted(query: str, *, zone: tzinfo, now: datetime) -> Wanted:
    """What the query of an address asks for.

    Args:
        query: `format` (csv unless told), `range` (all of it), `term`, `q` for a text, and a dimension's name for a
            filter, where an empty value is the part without a name.
        zone: Where days begin.
        now: Aware.

    Raises:
        HistoryError: It means nothing; the text says what would.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=len(NAMES) + 1)
    except ValueError:
        raise HistoryError("the address cannot be read; ask for each name once, in UTF-8") from None
    asked = dict(pairs)
    for name in asked:
        if name not in NAMES:
            raise HistoryError(f"nothing is called {name[:40]!r} here; choose from {', '.join(NAMES)}")
    if len(asked) < len(pairs):
        raise HistoryError("ask for each name once")
    form = _one_of(CONTENT_TYPES, asked.get("format", "csv"), "format")
    term = _one_of(TERMS, asked.get("term", "net"), "term")
    filters = [(name, asked[name] or None) for name in asked if name in DIMENSIONS]
    chosen = {"term": term, "search": asked.get("q", ""), "filters": filters}
    return Wanted(form, parse_range(asked.get("range", "all"), zone=zone, now=now), chosen)


def _one_of(known: Mapping[str, str], name: str, what: str) -> str:
    if name not in known:
        raise HistoryError(f"there is no {what} {name[:40]!r}; choose one of {', '.join(known)}")
    return name


class Export(RequestHandler):
    """Sends the file once it is whole, as fast as it is taken; whoever leaves stops the work."""

    _running: ClassVar[set[asyncio.Task[int]]] = set()
    _task: asyncio.Task[int] | None = None

    def initialize(self, engine: FindEngine) -> None:
        """Tornado's own way to hand things in."""
        self._engine = engine

    async def get(self) -> None:
        """The file, or in plain words why there is none."""
        self.set_header("Cache-Control", "no-store")
        engine = self._engine()
        if engine is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the engine is not open; the page and the log say why")
            return
        try:
            asked = wanted(self.request.query, zone=engine.settings.zone, now=datetime.now(UTC))
        except HistoryError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        try:
            file = await self._made(engine, asked)
        except HistoryError as error:  # not of the question's making: that was looked at before
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _without_folder(error, engine))
            return
        if file is not None:
            with file:
                await self._send(file, asked, is_demo=engine.is_demo)

    async def _made(self, engine: Engine, asked: Wanted) -> BinaryIO | None:
        """The file, open and without a name any more: nothing is left of it. None if nobody waits for it."""
        if len(self._running) >= MOST_AT_ONCE:
            self.set_header("Retry-After", str(PATIENCE_S))
            raise HistoryError("several files are being made; ask again in a moment")
        with TemporaryDirectory(prefix="pnl-export-") as folder:
            path = Path(folder, f"ledger.{asked.form}")
            write = engine.history.export_ledger(path, asked.range.start, asked.range.end, **asked.chosen)
            task = self._task = asyncio.create_task(write, name="export")
            self._running.add(task)
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
                self._running.discard(task)
            if task.cancelled():
                return None
            task.result()
            return path.open("rb")  # noqa: ASYNC230 - a file that was written just now

    def on_connection_close(self) -> None:
        """Nobody waits any more."""
        if self._task is not None:
            self._task.cancel()

    async def _send(self, file: BinaryIO, asked: Wanted, *, is_demo: bool) -> None:
        self.set_header("Content-Type", CONTENT_TYPES[asked.form])
        self.set_header("Content-Disposition", f'attachment; filename="{asked.name(is_demo=is_demo)}"')
        self.set_header("Content-Length", str(file.seek(0, 2)))
        file.seek(0)
        try:
            while piece := file.read(PIECE_BYTES):
                self.write(piece)
                await self.flush()  # until it is taken
        except StreamClosedError:
            return

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(f"{text}\n")


def _without_folder(error: HistoryError, engine: Engine) -> str:
    """Its words without where something is, on this machine or in its network."""
    words = re.sub(r"the database \S+ at \S+ cannot be read: .*", "the database cannot be read", str(error))
    return words.replace(f"{engine.settings.data_dir}", "the data folder")
