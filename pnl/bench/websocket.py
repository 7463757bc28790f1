"""A websocket of Bokeh's protocol that costs next to nothing, so that one process can read a thousand of them.

What a server sends to many is often the same bytes: a piece that came before is not taken apart again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from secrets import token_bytes, token_urlsafe
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
LAST, MASKED = 0x80, 0x80
SHORT_BYTES, LONG_BYTES = 126, 127  # lengths that say how many bytes of length follow
LARGEST_SHORT = (1 << 16) - 1
FRAGMENTS = 3  # header, metadata and content; two more for each buffer
PIECES = 64
SWITCHED = b" 101 "
HTTP_PORT = 80

type Buffers = tuple[tuple[str, bytes], ...]
type Frame = tuple[int, bytes]


class Message(NamedTuple):
    """One message of Bokeh's protocol: what kind it is, its content as JSON, its buffers by id, and its payloads."""

    kind: str
    content: bytes
    buffers: Buffers
    size_bytes: int


class Header(msgspec.Struct):
    """What Bokeh says first of a message."""

    msgtype: str
    num_buffers: int = 0


class BufferHeader(msgspec.Struct):
    """What Bokeh says first of a buffer."""

    id: str


_header = msgspec.json.Decoder(Header).decode
_buffer_header = msgspec.json.Decoder(BufferHeader).decode


def frames(received: bytes) -> tuple[list[Frame], int]:
    """The whole frames that something begins with, as opcode and payload, and how many bytes they are together.

    Raises:
        ValueError: A frame is only a part of a payload; Tornado sends none such.
    """
    found: list[Frame] = []
    start = 0
    while len(received) >= start + 2:
        if not received[start] & LAST:
            raise ValueError("a frame holds only a part of its payload")
        length, begin = received[start + 1] & ~MASKED, start + 2
        if length >= SHORT_BYTES:
            width = 2 if length == SHORT_BYTES else 8
            length, begin = int.from_bytes(received[begin : begin + width]), begin + width
        if len(received) < begin + length:
            break
        found.append((received[start] & 0x0F, received[begin : begin + length]))
        start = begin + length
    return found, start


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A payload as a client sends it, masked."""
    size, mask = len(payload), token_bytes(4)
    head = bytes([LAST | opcode])
    if size < SHORT_BYTES:
        head += bytes([MASKED | size])
    elif size <= LARGEST_SHORT:
        head += bytes([MASKED | SHORT_BYTES]) + size.to_bytes(2)
    else:
        head += bytes([MASKED | LONG_BYTES]) + size.to_bytes(8)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def assemble(payloads: Sequence[bytes]) -> tuple[list[Message], int]:
    """The whole messages that a row of payloads begins with, and how many payloads they are together."""
    found: list[Message] = []
    start = 0
    while len(payloads) >= start + FRAGMENTS:
        header = _header(payloads[start])
        end = start + FRAGMENTS + 2 * header.num_buffers
        if len(payloads) < end:
            break
        of_buffers = payloads[start + FRAGMENTS : end]
        buffers = tuple((_buffer_header(head).id, body) for head, body in zip(*[iter(of_buffers)] * 2, strict=True))
        size = sum(map(len, payloads[start:end]))
        found.append(Message(header.msgtype, payloads[start + 2], buffers, size))
        start = end
    return found, start


@lru_cache(PIECES)
def whole_messages(piece: bytes) -> tuple[Message, ...] | None:
    """The messages that a piece consists of; None if it holds anything else."""
    found, size = frames(piece)
    if size < len(piece) or any(opcode not in {TEXT, BINARY} for opcode, _ in found):
        return None
    messages, count = assemble([payload for _, payload in found])
    return tuple(messages) if count == len(found) else None


class Socket(asyncio.Protocol):
    """One websocket, from the request on; made by `connect`.

    Attributes:
        gone: Done once it is closed, by whoever.
    """

    def __init__(self, request: bytes, heard: Callable[[Message, float], None]) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._heard = heard
        self._is_open = False
        self._rest = b""
        self._payloads: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the websocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what `create_connection` makes
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Hand on each message with the instant in ms since the epoch at which its last byte came."""
        received_ms = time.time() * 1000
        if self._is_open and not (self._rest or self._payloads) and (messages := whole_messages(data)) is not None:
            for message in messages:
                self._heard(message, received_ms)
            return
        self._rest += data
        if self._is_open or self._opens():
            self._take_apart(received_ms)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        del exc
        if not self.gone.done():
            self.gone.set_result(None)

    def send(self, kind: str, **content: Any) -> None:
        """Send a message of Bokeh's protocol."""
        for part in ({"msgid": token_urlsafe(8), "msgtype": kind}, {}, content):
            self._transport.write(frame(msgspec.json.encode(part)))

    @property
    def port(self) -> int:
        """The port of this end."""
        return int(self._transport.get_extra_info("sockname")[1])

    def cut(self) -> None:
        """End it without a word, as a page does whose machine goes away."""
        self._transport.abort()

    def _opens(self) -> bool:
        answer, end, rest = self._rest.partition(b"\r\n\r\n")
        if end and SWITCHED not in answer.partition(b"\r\n")[0]:
            self.cut()
        elif end:
            self._is_open, self._rest = True, rest
        return self._is_open

    def _take_apart(self, received_ms: float) -> None:
        found, size = frames(self._rest)
        self._rest = self._rest[size:]
        for opcode, payload in found:
            if opcode == PING:
                self._transport.write(frame(payload, PONG))
            elif opcode == CLOSE:
                self._transport.close()
            elif opcode in {TEXT, BINARY}:
                self._payloads.append(payload)
        messages, count = assemble(self._payloads)
        del self._payloads[:count]
        for message in messages:
            self._heard(message, received_ms)


async def connect(address: str, token: str, heard: Callable[[Message, float], None]) -> Socket:
    """Open the websocket of a page.

    Args:
        address: The page's.
        token: What the page gave to open it with.
        heard: Called with each message and the instant at which it came, in ms since the epoch.

    Raises:
        OSError: Nobody listens.
    """
    at = urlsplit(address)
    request = (
        f"GET {at.path}/ws HTTP/1.1\r\nHost: {at.netloc}\r\nOrigin: {at.scheme}://{at.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: bokeh, {token}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    where = at.hostname or "localhost", at.port or HTTP_PORT
    _, socket = await loop.create_connection(lambda: Socket(request.encode(), heard), *where)
    return socket
