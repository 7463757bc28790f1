"""The only place that leans on what Bokeh and Tornado do not promise: one message, encoded once, to many pages.

Bokeh sends a message to each page on its own, which costs as much for the thousandth as for the first. Here it is made
into bytes once, and the same bytes go to the socket of every page. Where a socket is not the kind that is known here,
Bokeh's own `send_message` takes the message: slower, and right.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bokeh.core.properties import Any as Anything
from bokeh.core.properties import ColumnData, Seq, String
from bokeh.core.serialization import ObjectRefRep, Serializer
from bokeh.core.types import ID
from bokeh.document import Document
from bokeh.document.events import (
    ColumnDataChangedEvent,
    ColumnsPatchedEvent,
    ColumnsStreamedEvent,
    DocumentPatchedEvent,
)
from bokeh.model import Model
from bokeh.models import ColumnDataSource
from bokeh.protocol import Protocol
from bokeh.protocol.message import Message
from bokeh.server.connection import ServerConnection
from bokeh.server.session import ServerSession
from bokeh.server.views.ws import WSHandler
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketProtocol13

from pnl.stream.present import LINE_POINTS, Patch

FIELDS, LINE, DAYS = "fields", "line", "days"
SHORT, MIDDLE = 126, 1 << 16


def with_id[M: Model](model: type[M], name: str, *, id: str | None = None, **properties: Any) -> M:  # noqa: A002
    """A model whose id is the same in every session, so that one message fits all of them."""
    made = model.__new__(model, id=ID(id or f"pnl-{name}"))
    model.__init__(made, name=name, **properties)
    return made


class Columns(Model):
    """A column source as a page has it, without Bokeh's selections, which take most of the time to make one."""

    data = ColumnData(String, Seq(Anything))

    def to_serializable(self, serializer: Serializer) -> ObjectRefRep:
        """A plain column source."""
        return super().to_serializable(serializer) | {"name": "ColumnDataSource"}


class Encoder:
    """Makes patches into messages of Bokeh's protocol."""

    def __init__(self) -> None:
        self._document = Document()
        self._fields, self._line, self._days = (with_id(ColumnDataSource, name) for name in (FIELDS, LINE, DAYS))
        for source in (self._fields, self._line, self._days):
            self._document.add_root(source)
        self._document.models.flush_synced()
        self._protocol = Protocol()

    def encode(self, patch: Patch) -> "Letter":
        """One message with all of a patch that is not empty."""
        return Letter(self._protocol.create("PATCH-DOC", list(self._events(patch))))

    def _events(self, patch: Patch) -> Iterable[DocumentPatchedEvent]:
        document = self._document
        if patch.texts:
            yield ColumnsPatchedEvent(document, self._fields, "data", {"text": list(patch.texts)})
        if patch.points is not None:
            yield ColumnsStreamedEvent(document, self._line, "data", dict(patch.points), LINE_POINTS)
        if patch.amounts is not None:
            yield ColumnsPatchedEvent(document, self._days, "data", dict(patch.amounts))
        for source, columns in ((self._line, patch.line), (self._days, patch.days)):
            if columns is not None:
                yield ColumnDataChangedEvent(document, source, "data", dict(columns))


_under_way: set[asyncio.Future[None]] = set()  # nobody else holds on to what Bokeh is sending


@dataclass
class Letter:
    """A message, and its bytes once somebody needs them."""

    message: Message[Any]

    @cached_property
    def frames(self) -> bytes:
        """The message as text frames of the websocket protocol, from a server: RFC 6455, §5.2."""
        message = self.message
        return b"".join(_frame(part) for part in (message.header_json, message.metadata_json, message.content_json))

    def send(self, connection: ServerConnection) -> None:
        """Write the message to a socket that can take it, see `is_free`; one that breaks meanwhile is cleared away."""
        socket: Any = connection._socket  # noqa: SLF001
        if _takes_frames(socket):
            _put(socket.ws_connection.stream, self.frames)
        else:
            task = asyncio.ensure_future(connection.send_message(self.message))
            _under_way.add(task)
            task.add_done_callback(_under_way.discard)


def _put(stream: IOStream, frames: bytes) -> None:
    """What `stream.write` does, without a future for each of a thousand pages; it takes over what is left."""
    sent = 0
    if stream.socket is not None and type(stream) is IOStream:
        with suppress(OSError):  # which it meets again
            sent = stream.socket.send(frames)
    with suppress(StreamClosedError):  # Tornado tells the session
        if sent < len(frames):
            stream.write(frames[sent:])


def _frame(text: str) -> bytes:
    payload = text.encode()
    if len(payload) < SHORT:
        return bytes((0x81, len(payload))) + payload
    if len(payload) < MIDDLE:
        return b"\x81\x7e" + len(payload).to_bytes(2) + payload
    return b"\x81\x7f" + len(payload).to_bytes(8) + payload


def _takes_frames(socket: Any) -> bool:
    """Whether bytes can be written past Tornado: the plain protocol, uncompressed."""
    protocol = getattr(socket, "ws_connection", None)
    return isinstance(socket, WSHandler) and type(protocol) is WebSocketProtocol13 and protocol._compressor is None  # noqa: SLF001


def session_of(document: Document) -> ServerSession | None:
    """The session of a document that a server shows; None for somebody's own, and before there is one."""
    return getattr(document.session_context, "session", None)


def connections_of(session: ServerSession) -> frozenset[ServerConnection]:
    """Every page that listens to a session: one, except for a moment."""
    return frozenset(session._subscribed_connections)  # noqa: SLF001


def is_in_use(session: ServerSession) -> bool:
    """Whether a callback runs on a session's document: Bokeh runs it in another thread, and holds a lock for it."""
    return session._lock.locked()  # noqa: SLF001


def is_free(connection: ServerConnection) -> bool:
    """Whether a message can be written to a page at once: no other is half written, none waits in its socket."""
    socket = connection._socket  # noqa: SLF001
    if socket.write_lock._block._value == 0:  # type: ignore[attr-defined]  # noqa: SLF001
        return False
    protocol = getattr(socket, "ws_connection", None)
    return protocol is None or not protocol.stream.writing()
