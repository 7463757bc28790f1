"""The cache that processes share: whether it can be reached, how fast, and whether it makes room when it is full."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from pnl.cache.link import connect, in_words
from pnl.config import Settings, is_loopback
from pnl.doctor.findings import Finding, Mark
from pnl.errors import ConfigError

TIMEOUT_S = 2.0
ASKED = 20
SLOW_MS = 20.0

Shared = partial(Finding, "Shared cache")


async def shared_found(settings: Settings, *, offline: bool) -> AsyncIterator[Finding]:
    """What the server of PNL_CACHE_URL says; nothing where none is set, and no request if `offline`."""
    if settings.cache_url is None:
        return
    if finding := way_found(settings.cache_url):
        yield finding
    if offline:
        yield Shared("server", "set; not asked", Mark.SKIPPED)
        return
    try:
        took_ms, said = await _ask(settings.cache_url)
    except ConfigError as error:
        yield Shared("server", str(error), Mark.FAILED)
    except Exception as error:  # noqa: BLE001 - whatever it was, its own text may hold the address
        advice = "start it, or put PNL_CACHE_URL right; until then each process goes on without it"
        yield Shared("server", in_words(error), Mark.FAILED, advice)
    else:
        yield _speed(took_ms)
        for finding in room_found(said):
            yield finding


async def _ask(url: SecretStr) -> tuple[float, Mapping[str, Any]]:
    """Milliseconds that one question takes, the p50, and what the server says of its memory."""
    client = connect(url, timeout_s=TIMEOUT_S)
    try:
        await client.ping()  # connects
        took_s = []
        for _ in range(ASKED):
            began_s = time.perf_counter()
            await client.ping()
            took_s.append(time.perf_counter() - began_s)
        return median(took_s) * 1000, await client.info("memory")
    finally:
        await client.aclose()


def way_found(url: SecretStr) -> Finding | None:
    """Whether what goes over the network can be read by others."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme != "redis" or is_loopback(url.get_secret_value()):
        return None
    said = "numbers, and the password if there is one, go to another machine in clear"
    return Shared("way", said, Mark.WARNING, "use rediss://, or a network that is yours alone")


def _speed(took_ms: float) -> Finding:
    said = f"there; beside it the p50 of {ASKED} questions"
    if took_ms < SLOW_MS:
        return Shared("server", said, took_ms=took_ms)
    return Shared(
        "server", said, Mark.WARNING, "a server that far away saves no time; unset PNL_CACHE_URL", "", took_ms
    )


def room_found(memory: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the server is told how much it may hold, and to make room for what is new."""
    most, policy = memory.get("maxmemory"), memory.get("maxmemory_policy")
    if most is None or policy is None:
        yield Shared("maxmemory", "it does not say how much it may hold", Mark.SKIPPED)
        return
    if not most:
        advice = "run on the server: CONFIG SET maxmemory 100mb, and write it into its configuration"
        yield Shared("maxmemory", "not set: it may take all memory of its machine", Mark.WARNING, advice)
    else:
        yield Shared("maxmemory", f"{most / 1e6:,.0f} MB")
    if str(policy).startswith("allkeys-"):
        yield Shared("maxmemory-policy", str(policy))
        return
    advice = "run on the server: CONFIG SET maxmemory-policy allkeys-lru, and write it into its configuration"
    yield Shared("maxmemory-policy", f"{policy}: once it is full it may refuse what is new", Mark.WARNING, advice)
