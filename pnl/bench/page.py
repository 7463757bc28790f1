"""An open page of a dashboard without a browser: it does what BokehJS does, and keeps what a reader would see."""

import asyncio
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import ClientSession
from bokeh.core.serialization import Buffer, Deserializer
from bokeh.core.types import ID

from pnl.bench.websocket import Buffers, Message, Socket, connect

TOKEN = re.compile(r'"token":"([^"]+)"')
AGAIN_S = 0.05
DOCUMENT_S = 60.0
CONTENTS = 256
LINE = {"t", "net", "t0"}
ASKED = "pnl-asked"
READY = {
    "kind": "MessageSent",
    "msg_type": "bokeh_event",
    "msg_data": {"type": "event", "name": "document_ready", "values": {"type": "map", "entries": []}},
}

type Columns = Mapping[str, Any]


class Point(NamedTuple):
    """One point of the line: local ms and US dollars (None: a gap), published at `t0` ms since the epoch."""

    t0: float
    t: float
    net: float | None


class Change(NamedTuple):
    """What one event does to a column source, named by its model's id.

    Streamed columns are added, patches are (place, value) by column, anything else is there instead of what was.
    """

    model: str
    kind: str
    columns: Columns
    points: tuple[Point, ...]
    rollover: int | None


class Page:
    """What one page shows: its texts by name, and its line.

    A subclass learns of news by `texts_came`, `points_came` and `begun`.

    Attributes:
        fields: Every text of the page that lives, by name.
        line: The points of the line, oldest first.
        past: Every text of the page's own, as the document had them that was last pulled.
        received_bytes: The payloads of all its patches.
    """

    def __init__(self, address: str) -> None:
        self.fields: dict[str, str] = {}
        self.past: dict[str, str] = {}
        self.line: deque[Point] = deque()
        self.received_bytes = 0
        self._address = address
        self._names: list[str] = []
        self._sources: dict[str, str] = {}
        self._token = ""
        self._socket: Socket | None = None
        self._pulled: asyncio.Future[None]

    async def open(self, session: ClientSession) -> float | None:
        """Ask for the page, and open it.

        Returns:
            None, or the seconds after which to come back: it was put off, or has nothing to show yet.

        Raises:
            ClientError: The server does not answer, or refuses.
            OSError: The websocket is refused.
        """
        async with session.get(self._address) as answer:
            if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and "Retry-After" in answer.headers:
                return float(answer.headers["Retry-After"])
            answer.raise_for_status()
            token = TOKEN.search(await answer.text())
        if token is None:
            return AGAIN_S
        self._token = token[1]
        return await self.reopen()

    async def reopen(self) -> float | None:
        """Open the websocket, also once more: BokehJS comes back to the same session, and pulls its document anew.

        Returns:
            None, or the seconds after which to ask for the page again: it has nothing to show yet.

        Raises:
            OSError: The websocket is refused, for instance because the page is too old for that, or brings nothing.
        """
        self.close()
        self._pulled = asyncio.get_running_loop().create_future()
        self._socket = socket = await connect(self._address, self._token, self._heard)
        socket.gone.add_done_callback(lambda _: self._gone(socket))
        await self._document()
        if not self._names:
            self.close()
            return AGAIN_S
        self._send("PATCH-DOC", events=[READY])  # the session follows once its page is ready
        return None

    async def pull(self) -> None:
        """Have the session's own document in place of what was followed.

        Raises:
            OSError: The websocket is gone.
        """
        if self._socket is None or self._socket.gone.done():
            raise ConnectionError("the page is not open")
        self._pulled = asyncio.get_running_loop().create_future()
        self._socket.send("PULL-DOC-REQ")
        await self._document()

    def wish(self, **wanted: Any) -> None:
        """Say what is wanted of the past, as the fields of a `Wish`; the answer stands in the document later on."""
        said = msgspec.json.encode(wanted).decode()
        event = {"kind": "ModelChanged", "model": {"id": ASKED}, "attr": "wish", "new": said}
        self._send("PATCH-DOC", events=[event])

    async def closed(self) -> None:
        """Wait until it is closed, by whoever."""
        if self._socket is not None:
            await asyncio.wait([self._socket.gone])

    def close(self) -> None:
        """End its websocket without a word."""
        if self._socket is not None:
            self._socket.cut()
            self._socket = None

    @property
    def is_open(self) -> bool:
        """Whether it follows."""
        return self._socket is not None and self._pulled.done() and not self._socket.gone.done()

    @property
    def port(self) -> int | None:
        """The port of its websocket on this side; None: it is not open."""
        return self._socket.port if self._socket is not None and self.is_open else None

    def begun(self) -> None:
        """A document was pulled: texts and line are those of the server."""

    def texts_came(self, texts: Mapping[str, str]) -> None:
        """Texts are other than before."""

    def points_came(self, points: Sequence[Point], received_ms: float, *, is_streamed: bool) -> None:
        """Points were added to the line, or, unless streamed, took the place of it."""

    async def _document(self) -> None:
        async with asyncio.timeout(DOCUMENT_S):
            await self._pulled

    def _gone(self, socket: Socket) -> None:
        if socket is self._socket and not self._pulled.done():
            self._pulled.set_exception(ConnectionError("the websocket was closed before it brought a document"))

    def _heard(self, message: Message, received_ms: float) -> None:
        if message.kind == "PATCH-DOC":
            self.received_bytes += message.size_bytes
            for change in changes(message.content, message.buffers):
                name = self._sources.get(change.model)
                if name == "line":
                    self._change_line(change, received_ms)
                elif name == "fields":
                    self._change_fields(change)
        elif message.kind == "ACK":
            self._send("PULL-DOC-REQ")
        elif message.kind == "PULL-DOC-REPLY":
            self._begin(message)

    def _send(self, kind: str, **content: Any) -> None:
        if self._socket is not None:
            self._socket.send(kind, **content)

    def _begin(self, message: Message) -> None:
        document = msgspec.json.decode(message.content)["doc"]
        self._sources = {}
        for source in column_sources(document):
            name = source["attributes"].get("name", "")
            self._sources[source["id"]] = name
            if name in {"fields", "line", "past"}:
                columns = decoded(source["attributes"]["data"], message.buffers)
                self._replace(name, columns)
        if self._names:
            self.begun()
            self.texts_came(self.fields)
        if not self._pulled.done():
            self._pulled.set_result(None)

    def _replace(self, name: str, columns: Columns) -> None:
        if name == "line":
            self.line = deque(points_of(columns))
        elif name == "past":
            self.past = dict(zip(columns["name"], columns["text"], strict=True))
        else:
            self._names = list(columns["name"])
            self.fields = dict(zip(self._names, columns["text"], strict=True))

    def _change_fields(self, change: Change) -> None:
        if change.kind == "ColumnsPatched":
            texts = {self._names[place]: text for place, text in change.columns.get("text", ())}
            self.fields |= texts
        else:
            self._replace("fields", change.columns)
            texts = self.fields
        self.texts_came(texts)

    def _change_line(self, change: Change, received_ms: float) -> None:
        is_streamed = change.kind == "ColumnsStreamed"
        if is_streamed:
            self.line.extend(change.points)
            while change.rollover and len(self.line) > change.rollover:
                self.line.popleft()
        else:
            self.line = deque(change.points)
        self.points_came(change.points, received_ms, is_streamed=is_streamed)


@lru_cache(CONTENTS)
def changes(content: bytes, buffers: Buffers = ()) -> tuple[Change, ...]:
    """What a patch does to column sources, in order; events of other kinds are left out."""
    events = msgspec.json.decode(content)["events"]
    return tuple(change for event in events if (change := _change(event, buffers)) is not None)


def _change(event: Mapping[str, Any], buffers: Buffers) -> Change | None:
    match event:
        case {"kind": "ColumnsStreamed" | "ColumnDataChanged", "data": data}:
            pass
        case {"kind": "ColumnsPatched", "patches": data}:
            pass
        case {"kind": "ModelChanged", "attr": "data", "new": data}:
            pass
        case _:
            return None
    columns = decoded(data, buffers)
    points = points_of(columns) if columns.keys() >= LINE else ()
    return Change(event["model"]["id"], event["kind"], columns, points, event.get("rollover"))


def decoded(columns: Any, buffers: Buffers = ()) -> Columns:
    """Columns as Bokeh serializes them: lists, or arrays in base64 or in buffers."""
    found: Columns = Deserializer().decode(columns, [Buffer(ID(name), body) for name, body in buffers])
    return found


def points_of(columns: Columns) -> tuple[Point, ...]:
    """The points of a line; equal ones are one object, whoever received them, for a thousand pages hold them."""
    rows = zip(columns["t0"], columns["t"], columns["net"], strict=True)
    points = (Point(float(t0), float(t), None if net is None or net != net else float(net)) for t0, t, net in rows)  # noqa: PLR0124 - NaN
    return tuple(_one_of(point) for point in points)


@lru_cache(1 << 14)
def _one_of(point: Point) -> Point:
    return point


def column_sources(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every column source of a document that stands in JSON."""
    if isinstance(node, dict):
        if node.get("name") == "ColumnDataSource" and "attributes" in node:
            yield node
        for child in node.values():
            yield from column_sources(child)
    elif isinstance(node, list):
        for child in node:
            yield from column_sources(child)
