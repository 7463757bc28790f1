"""One loopback server for the three APIs: its life, its keys, and the order of its checks."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import format_datetime
from inspect import isawaitable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from aiohttp import web

from pnl.simulator import anthropic, john, kalshi
from pnl.simulator.auth import KeyType, open_key
from pnl.simulator.wire import reply
from pnl.simulator.world import World

type Answer = Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]
type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
type Upstream = kalshi.Kalshi | anthropic.Anthropic | john.John

_HOST = "127.0.0.1"


class Simulator:
    """The three APIs of one world, served on 127.0.0.1 while its `async with` block lasts.

    Args:
        world: `LivingMarket` or `RecordedAccount`.
        port: 0 takes a free one.
        key_out: Where the venue's private key is kept; a key that is there already is used. None: a private
            folder that goes away with the block.
        key_type: Of a key that has to be made.
        now: The clock of all three; aware. Signatures are held against it.
        limited: Whether the venue refuses more than 20 requests a second, and one a second for the balance.

    Raises:
        SimulatorError: The world cannot be built or the key file cannot be used.
        OSError: The port is taken.
    """

    def __init__(
        self,
        world: World,
        port: int = 0,
        *,
        key_out: Path | None = None,
        key_type: KeyType = "rsa",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limited: bool = True,
    ) -> None:
        """Choose the secrets; nothing is opened yet."""
        self.key_id = "simulated"
        self.admin_key = f"sk-ant-admin01-simulated-{secrets.token_hex(16)}"
        self.john_token = f"john-simulated-{secrets.token_hex(16)}"
        self.requests: Counter[str] = Counter()
        self.answers: dict[str, Answer | None] = {}
        self._world = world
        self._port = port
        self._key_out = key_out
        self._key_type = key_type
        self._now = now
        self._limited = limited
        self._opened = ExitStack()
        self._upstreams: dict[str, Upstream] = {}

    async def __aenter__(self) -> Self:
        """Build the world, make the key, listen."""
        try:
            self._world.balance(self._now())  # the first question builds the world; no client should wait for that
            self._upstreams = await self._open_upstreams()
            self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1)
            await self._runner.setup()
            await web.TCPSite(self._runner, _HOST, self._port).start()
        except BaseException:
            await self.__aexit__()
            raise
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop listening and take the private folder away."""
        if hasattr(self, "_runner"):
            await self._runner.cleanup()
        self._opened.close()

    @property
    def private_key_path(self) -> Path:
        """The venue's private key, a PEM file of mode 0600."""
        return self._key_path

    @property
    def kalshi_url(self) -> str:
        """With `/trade-api/v2`."""
        return self._origin + kalshi.BASE

    @property
    def anthropic_url(self) -> str:
        """Scheme and host."""
        return self._origin

    @property
    def john_url(self) -> str:
        """The whole address of the deals endpoint."""
        return self._origin + john.DEALS

    @property
    def stripe_url(self) -> str:
        """Scheme and host; the client adds `/v1/balance_transactions`."""
        return self._origin

    @property
    def settings(self) -> dict[str, str]:
        """The settings that point `pnl` at it, by name (`PNL_…`)."""
        return {
            "PNL_KALSHI_URL": self.kalshi_url,
            "PNL_KALSHI_KEY_ID": self.key_id,
            "PNL_KALSHI_PRIVATE_KEY_PATH": str(self.private_key_path),
            "PNL_ANTHROPIC_URL": self.anthropic_url,
            "PNL_ANTHROPIC_ADMIN_KEY": self.admin_key,
            "PNL_JOHN_URL": self.john_url,
            "PNL_JOHN_TOKEN": self.john_token,
        }

    @property
    def _origin(self) -> str:
        return f"http://{_HOST}:{self._port}"

    async def _open_upstreams(self) -> dict[str, Upstream]:
        folder = None if self._key_out else self._opened.enter_context(TemporaryDirectory(prefix="pnl-simulator-"))
        self._key_path = self._key_out or Path(folder or "") / "kalshi.pem"
        key = await asyncio.to_thread(open_key, self._key_path, self._key_type)
        seconds = asyncio.get_running_loop().time if self._limited else None
        venue = kalshi.Kalshi(self._world, self._now, key_id=self.key_id, public_key=key.public_key(), seconds=seconds)
        deals = john.John(self._world, self._now, self.john_token)
        provider = anthropic.Anthropic(self._world, self._now, self.admin_key)
        return {kalshi.BASE: venue, anthropic.BASE: provider, john.DEALS: deals, john.TRANSACTIONS: deals}

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._count, self._answer])
        application.on_response_prepare.append(self._date)
        application.add_routes([web.get("/simulator/requests", self._counted)])
        for upstream in {id(each): each for each in self._upstreams.values()}.values():
            application.add_routes(upstream.routes())
        return application

    async def _counted(self, _: web.Request) -> web.Response:
        return reply(dict(self.requests))

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = format_datetime(self._now().astimezone(UTC), usegmt=True)

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            self.requests[f"{request.method} {request.path}"] += 1

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if answer := self.answers.get(request.path):
            given = answer(request)
            return await given if isawaitable(given) else given
        upstream = self._upstream(request.path)
        if upstream and (refusal := upstream.refusal(request)):
            return refusal
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _not_found(upstream)

    def _upstream(self, path: str) -> Upstream | None:
        return next((each for base, each in self._upstreams.items() if path.startswith(base)), None)


def _not_found(upstream: Upstream | None) -> web.Response:
    if isinstance(upstream, anthropic.Anthropic):
        return upstream.error(404, "not_found_error", "Not found")
    return kalshi.error(404, "not_found", "not found")
