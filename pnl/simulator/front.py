"""A front before the simulator: one door per upstream on loopback, and into each a fault can be put while it runs.

It speaks HTTP by hand, because most faults are what a web server would never let one do.
"""

import asyncio
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from pnl.simulator.server import Simulator

SOURCES = ("kalshi", "anthropic", "john")
MOST_LOGGED = 10_000

_HOST = "127.0.0.1"
_CURSOR = {"kalshi": "cursor", "anthropic": "page", "john": "cursor"}
_PASSED_ON = ("Content-Type", "Retry-After", "request-id")
_END = b"\r\n\r\n"


class Harm(StrEnum):
    """What a reader should make of a source that has the fault."""

    UNREAD = "unread"
    """The answer cannot be used: the last good numbers stay, and the source is said to be stale or down."""

    SET_ASIDE = "set_aside"
    """Some rows cannot be believed: they are named, the good ones beside them count."""

    UNSEEN = "unseen"
    """It changes no number."""

    BELIEVED = "believed"
    """The numbers follow the source, and come back with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    @property
    def head(self) -> bytes:
        """Status line and headers, with the true length of the body."""
        lines = [f"HTTP/1.1 {self.status} Simulated", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + _END


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an upstream goes wrong.

    `harm` says by source what a reader should make of it; a source that it does not name cannot have the fault.
    `begins` is how far a client gets before it notices: refused, cut off once connected, or at its first request.
    """

    name: str
    says: str
    act: Callable[["Exchange"], Awaitable[None]]
    harm: Mapping[str, Harm]
    begins: Literal["refused", "connected", "asked"] = "asked"


@dataclass(frozen=True, slots=True)
class Asked:
    """A line of the log: one request, when it came on the monotonic clock, and what became of it."""

    source: str
    path: str
    at_s: float
    fault: str | None
    outcome: Literal["answered", "cut", "left"]


@dataclass(frozen=True, slots=True)
class Log:
    """What came to the doors: how many requests have begun, by source, and the last of those that have ended."""

    requests: Counter[str] = field(default_factory=Counter)
    ended: deque[Asked] = field(default_factory=lambda: deque(maxlen=MOST_LOGGED))


class Exchange:
    """One request at a door, and what can be done with it."""

    def __init__(self, door: "Door", target: str, headers: Mapping[str, str], streams: "Streams") -> None:
        """Nothing is answered yet."""
        self.source = door.source
        self.path = urlsplit(target).path
        self.canary_url = door.canary_url
        self.dice = Random(f"{door.seed} {target}")  # noqa: S311 (nothing secret is drawn)
        self.is_cut = False
        self._door = door
        self._url = URL(door.origin + target, encoded=True)
        self._headers = headers
        self._reader, self._writer = streams

    @property
    def cursor(self) -> str:
        """Which page is asked for; empty for the first."""
        return self._url.query.get(_CURSOR[self.source], "")

    async def good(self, *, cursor: str | None = None) -> Answer:
        """What the upstream itself says, or says of another page."""
        url = self._url
        if cursor is not None:
            url = url.without_query_params(_CURSOR[self.source])
            url = url.update_query({_CURSOR[self.source]: cursor}) if cursor else url
        return await self._door.forward(url, self._headers)

    async def send(self, *parts: bytes) -> None:
        """Send bytes as they are."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer."""
        await self.send(answer.head + answer.body)

    async def drip(self, data: bytes, *, every_s: float) -> None:
        """Send a byte at a time until the client gives up."""
        for number in range(len(data)):
            await self.send(data[number : number + 1])
            await asyncio.sleep(every_s)

    async def until_left(self) -> None:
        """Wait until the client gives up."""
        while await self._reader.read(1 << 16):
            pass

    def hang_up(self) -> None:
        """End the connection in good order."""
        self.is_cut = True
        self._writer.close()

    def reset(self) -> None:
        """End the connection with a reset, so that what is under way is lost."""
        self.is_cut = True
        reset(self._writer)


type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection off: with no time to linger, the system sends a reset instead of an end."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Door:
    """One upstream's address: it listens or does not, and answers as its fault has it."""

    def __init__(
        self,
        source: str,
        origin: str,
        session: aiohttp.ClientSession,
        log: "Log",
        *,
        seed: int,
        canary_url: str,
    ) -> None:
        """Closed at first."""
        self.source = source
        self.origin = origin
        self.seed = seed
        self.canary_url = canary_url
        self._session = session
        self._log = log
        self._fault: Fault | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._reserved = socket.socket()

    async def __aenter__(self) -> Self:
        # Bound and never listened on: it keeps the port while the door is closed.
        _bind(self._reserved, 0)
        self.port: int = self._reserved.getsockname()[1]
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        self._reserved.close()

    async def put(self, fault: Fault | None) -> None:
        """Answer as this fault has it from now on; None: as the upstream itself. What is under way goes on."""
        self._fault = fault
        if fault is not None and fault.begins == "refused":
            await self._close()
        elif self._server is None:
            await self._listen()

    async def forward(self, url: URL, headers: Mapping[str, str]) -> Answer:
        """What the upstream says."""
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            kept = {name: response.headers[name] for name in _PASSED_ON if name in response.headers}
            return Answer(await response.read(), response.status, kept)

    async def _listen(self) -> None:
        listening = socket.socket()
        _bind(listening, self.port)
        self._server = await asyncio.start_server(self._serve, sock=listening)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]
        connection.set_name(f"door-{self.source}")
        self._connections.add(connection)
        try:
            await self._answer_all((reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # a client that goes away is what most faults are about; only this door cancels
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _answer_all(self, streams: Streams) -> None:
        if self._fault is not None and self._fault.begins == "connected":
            reset(streams[1])
            return
        while (request := await _request(streams[0])) is not None:
            exchange = Exchange(self, *request, streams)
            await self._answer(exchange, self._fault)
            if exchange.is_cut:
                return

    async def _answer(self, exchange: Exchange, fault: Fault | None) -> None:
        at_s = time.monotonic()
        self._log.requests[self.source] += 1
        outcome: Literal["answered", "cut", "left"] = "left"
        try:
            if fault is None:
                await exchange.answer(await exchange.good())
            else:
                await fault.act(exchange)
            outcome = "cut" if exchange.is_cut else "answered"
        finally:
            name = fault.name if fault else None
            self._log.ended.append(Asked(self.source, exchange.path, at_s, name, outcome))


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    """Target and headers of the next request, None when there is none."""
    try:
        head = await reader.readuntil(_END)
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    headers = {name.strip(): value.strip() for name, _, value in fields}
    unwanted = {"host", "connection", "accept-encoding"}
    return first.split(" ")[1], {name: value for name, value in headers.items() if name.lower() not in unwanted}


def _bind(listening: socket.socket, port: int) -> None:
    listening.setblocking(False)  # noqa: FBT003 (the standard library's own signature)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # the port's keeper and its listener hold it together
        listening.setsockopt(socket.SOL_SOCKET, option, 1)
    listening.bind((_HOST, port))


class Front:
    """Three doors before one simulator, for as long as the `async with` block lasts.

    Point the settings at it with `settings.model_copy(update=front.urls)`; keys and key file are the simulator's.

    Args:
        simulator: Already open.
        seed: Of whatever a fault chooses; the same seed and the same request always give the same answer.
    """

    def __init__(self, simulator: Simulator, *, seed: int = 1) -> None:
        """Nothing is open yet."""
        self.log = Log()
        self.strangers: list[str] = []
        """The head of each request that followed a redirect to another host: there should be none."""
        self._simulator = simulator
        self._seed = seed
        self._doors: dict[str, Door] = {}
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            canary_url = await self._open_canary(opened)
            connector = aiohttp.TCPConnector(force_close=True)  # no connection outlives its request
            session = await opened.enter_async_context(aiohttp.ClientSession(connector=connector))
            for source, url in self._behind.items():
                origin = str(URL(url).origin())
                door = Door(source, origin, session, self.log, seed=self._seed, canary_url=canary_url)
                self._doors[source] = await opened.enter_async_context(door)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    @property
    def kalshi_url(self) -> str:
        """With `/trade-api/v2`."""
        return self._url("kalshi")

    @property
    def anthropic_url(self) -> str:
        """Scheme and host."""
        return self._url("anthropic")

    @property
    def john_url(self) -> str:
        """The whole address of the deals endpoint."""
        return self._url("john")

    @property
    def urls(self) -> dict[str, str]:
        """The three addresses by the name of their setting."""
        return {f"{source}_url": self._url(source) for source in SOURCES}

    async def put(self, source: str, fault: Fault | None) -> None:
        """Give a source a fault, or None to heal it."""
        if fault is not None and source not in fault.harm:
            raise ValueError(f"{fault.name} is no fault that {source} can have")
        await self._doors[source].put(fault)

    @property
    def _behind(self) -> dict[str, str]:
        behind = self._simulator
        return {"kalshi": behind.kalshi_url, "anthropic": behind.anthropic_url, "john": behind.john_url}

    def _url(self, source: str) -> str:
        return str(URL(self._behind[source]).with_port(self._doors[source].port)).rstrip("/")

    async def _open_canary(self, opened: AsyncExitStack) -> str:
        async def catch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.strangers.append((await reader.read(1 << 16)).decode("latin-1"))
            writer.close()

        canary = await asyncio.start_server(catch, _HOST, 0)
        opened.callback(canary.close)
        return f"http://{_HOST}:{canary.sockets[0].getsockname()[1]}/caught"
