"""A Redis or Valkey server that may be away: worked with while it is there, tried again, later and later, while not."""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from pnl.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis

SOCKET_S = 1.0
CONNECTIONS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

log = logging.getLogger("pnl.cache")


def connect(url: SecretStr, *, timeout_s: float = SOCKET_S) -> "Redis":
    """A client of the server, which connects when it is first asked; close it with `aclose`.

    It tries nothing twice: who asks has to hear of a connection that broke, for the server may have lost something.

    Raises:
        ConfigError: The package is not installed.
    """
    redis, retry = _library("redis.asyncio"), _library("redis.asyncio.retry")
    pool = redis.BlockingConnectionPool.from_url(
        url.get_secret_value(),
        max_connections=CONNECTIONS,
        timeout=timeout_s,  # for a connection that is free
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=retry.Retry(_library("redis.backoff").NoBackoff(), 0),
    )
    client: Redis = redis.Redis.from_pool(pool)
    return client


def _library(name: str) -> Any:
    try:
        return import_module(name)  # only here: it takes as long as all the rest of a command
    except ImportError:
        raise ConfigError(
            "PNL_CACHE_URL needs a package that is not installed: pip install 'pnl[redis]', or unset it"
        ) from None


def in_words(error: BaseException) -> str:
    """What went wrong, without what the server or the library says: there may be an address in it."""
    known = _library("redis.exceptions")
    said = (
        (ssl.SSLCertVerificationError, "its certificate is not to be trusted"),
        ((known.AuthenticationError, known.AuthorizationError), "it refuses the user or the password"),
        (known.NoPermissionError, "it does not let this user do what is needed"),
        (known.OutOfMemoryError, "it is full and makes no room; set its maxmemory-policy to allkeys-lru"),
        (known.ReadOnlyError, "it is a replica, which takes no values"),
        (known.BusyLoadingError, "it is still starting"),
        (known.ResponseError, "it refuses a command"),
        ((known.TimeoutError, TimeoutError), f"no answer for {SOCKET_S:g} s"),
        ((known.ConnectionError, OSError), "it cannot be reached"),
    )
    causes = tuple(_causes(error))  # the library hides what it was in a failure to connect
    found = (words for kinds, words in said if any(isinstance(cause, kinds) for cause in causes))
    return next(found, type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Link:
    """Works with a server in a task of its own; a failure ends the work, and it begins anew once the server is back.

    Args:
        url: The server's address.
        work: Goes on until something fails; calls `reached` once it can be relied on.
        on_change: Called when the server is lost, with why, and with None when it is back.

    Attributes:
        trouble: Why the server is not there, in words; None while it is, and before the first try.
    """

    def __init__(
        self, url: SecretStr, work: Callable[["Redis"], Awaitable[None]], *, on_change: Callable[[str | None], None]
    ) -> None:
        _library("redis.asyncio")
        self._url = url
        self._work = work
        self._on_change = on_change
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = None

    async def open(self) -> None:
        """Begin, and wait until the server is there or the first try has failed."""
        self._task = asyncio.create_task(self._run(), name="shared-cache")
        await self._tried.wait()

    async def aclose(self) -> None:
        """Stop; twice is fine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reached(self) -> None:
        """The server is there."""
        was_lost, self.trouble = self.trouble is not None, None
        self._tried.set()
        if was_lost:
            log.info("the shared cache is back")
            self._on_change(None)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            try:
                await self._work_once()
            except Exception as error:  # noqa: BLE001 - whatever it was, the program goes on without the server
                self._lost(in_words(_first(error)))
            if time.monotonic() - began_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S  # it was well for a while; else it may refuse all that is asked of it
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _work_once(self) -> None:
        client = connect(self._url)
        try:
            await self._work(client)
        finally:
            await client.aclose()

    def _lost(self, why: str) -> None:
        was_there, self.trouble = self.trouble is None, why
        self._tried.set()
        if was_there:
            log.warning("the shared cache (PNL_CACHE_URL) is gone: %s; tried again by itself", why)
            self._on_change(why)


def _first(error: BaseException) -> BaseException:
    """The failure for which a group of tasks was ended."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
