"""One viewer of a served page without a browser: what its websocket brought, and which of it as recorded."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType
from bokeh.protocol import Protocol
from bokeh.protocol.receiver import Receiver

from pnl.rows import micros, to_ms

TOKEN = re.compile(r'"token":"([^"]+)"')
AGAIN_S = 0.05
UNRECORDED = "Not recorded"
UNKNOWN = ("", "—")

type Message = Mapping[str, Any]


class Viewer:
    """An open page of the dashboard, as far as its numbers go.

    It takes the line's times for UTC, so the reporting time zone of the dashboard has to be UTC.

    Attributes:
        shown: Every snapshot that was shown: the net P&L in micro-dollars, by the instant in ms since the epoch.
        recorded: Those that came without the mark "Not recorded".
        fields: Every text of the page that lives, by name.
        has_number: Set once a net P&L is shown.
        has_record: Set once one is shown as recorded.
    """

    def __init__(self, address: str) -> None:
        self.shown: dict[int, int] = {}
        self.recorded: dict[int, int] = {}
        self.fields: dict[str, str] = {}
        self.has_number = asyncio.Event()
        self.has_record = asyncio.Event()
        self._address = address
        self._names: list[str] = []
        self._sources: dict[str, str] = {}

    async def follow(self) -> None:
        """Open the page as soon as it can be opened, and follow it until its server is gone."""
        async with ClientSession() as session:
            while not self._names:  # at first the page may only say that the server is starting
                async with await self._open(session) as socket:
                    await self._follow(socket)

    async def _follow(self, socket: ClientWebSocketResponse) -> None:
        async for kind, content in _messages(socket):
            if kind == "ACK":
                await _send(socket, "PULL-DOC-REQ")
            elif kind == "PULL-DOC-REPLY":
                self._begin(content["doc"])
                if not self._names:
                    return
                await _send(socket, "PATCH-DOC", events=[READY])  # the page follows once its document is ready
            elif kind == "PATCH-DOC":
                for event in content["events"]:
                    self._change(event)

    async def _open(self, session: ClientSession) -> ClientWebSocketResponse:
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                async with session.get(self._address) as answer:
                    token = TOKEN.search(await answer.text())
                if token is not None:
                    return await session.ws_connect(
                        f"{self._address.replace('http', 'ws', 1)}/ws",
                        protocols=("bokeh", token[1]),
                        origin=self._address.removesuffix("/app"),
                        max_msg_size=0,
                    )
            except (ClientError, OSError):
                continue  # it is not up yet

    def _begin(self, document: Message) -> None:
        for source in _column_sources(document):
            self._sources[source["id"]] = name = source["attributes"].get("name", "")
            if name == "fields":
                columns = dict(source["attributes"]["data"]["entries"])
                self._names = columns["name"]
                self._show(dict(zip(self._names, columns["text"], strict=True)))

    def _change(self, event: Message) -> None:
        name = self._sources.get(event.get("model", {}).get("id", ""))
        if name == "fields" and event["kind"] == "ColumnsPatched":
            texts = dict(event["patches"]["entries"])["text"]
            self._show({self._names[place]: text for place, text in texts})
        elif name == "line" and event["kind"] == "ColumnsStreamed":
            self._grow(dict(event["data"]["entries"]))

    def _show(self, texts: Mapping[str, str]) -> None:
        self.fields |= texts
        if self.fields["net"] in UNKNOWN:
            return
        self.has_number.set()
        if self.fields["state"] == "complete":  # every source is fresh: the numbers are of the instant they were taken
            self._note(to_ms(datetime.fromisoformat(self.fields["as_of"])), micros(self._net_usd()))

    def _grow(self, columns: Mapping[str, list[Any]]) -> None:
        if columns["t"]:  # the last point is of the snapshot whose texts came before it
            self._note(int(columns["t"][-1]), round(columns["net"][-1] * 1_000_000))

    def _note(self, at_ms: int, net_micros: int) -> None:
        self.shown[at_ms] = net_micros
        if UNRECORDED not in self.fields["warning"]:
            self.recorded[at_ms] = net_micros
            self.has_record.set()

    def _net_usd(self) -> Decimal:
        return Decimal(self.fields["exact"].split()[0])


READY = {
    "kind": "MessageSent",
    "msg_type": "bokeh_event",
    "msg_data": {"type": "event", "name": "document_ready", "values": {"type": "map", "entries": []}},
}


async def _messages(socket: ClientWebSocketResponse) -> AsyncIterator[tuple[str, Any]]:
    """Every message of Bokeh's protocol, as its kind and content, until the other end is gone."""
    receiver = Receiver(Protocol())
    async for fragment in socket:
        if fragment.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
            return
        message = await receiver.consume(fragment.data)
        if message is not None:
            yield message.msgtype, message.content


async def _send(socket: ClientWebSocketResponse, kind: str, **content: Any) -> None:
    header: Any = {"msgid": kind, "msgtype": kind}
    for fragment in (header, {}, content):
        await socket.send_json(fragment)


def _column_sources(node: Any) -> Iterator[Message]:
    """Every column source of a document that stands in JSON."""
    if isinstance(node, dict):
        if node.get("name") == "ColumnDataSource" and "attributes" in node:
            yield node
        for child in node.values():
            yield from _column_sources(child)
    elif isinstance(node, list):
        for child in node:
            yield from _column_sources(child)
