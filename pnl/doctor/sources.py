"""Each configured source tried with one small request that only reads, and its clock held against ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Container
from functools import partial

from pnl.config import Settings
from pnl.doctor.findings import Finding, Mark
from pnl.errors import ConfigError, SourceError
from pnl.sources import Checkable, Source, source_classes
from pnl.sources.transport import Transport

MOST_SKEW_S = 10  # Kalshi refused signatures that are off by 15 s or a minute, and took those that are off by 10 s
ODD_SKEW_S = 3

MISSING = {
    "kalshi": "set PNL_KALSHI_KEY_ID and PNL_KALSHI_PRIVATE_KEY_PATH",
    "anthropic": "set PNL_ANTHROPIC_ADMIN_KEY",
    "john": "set PNL_JOHN_URL",
}

Tried = partial(Finding, "Sources")


async def sources_found(settings: Settings, *, offline: bool, known: Container[str]) -> AsyncIterator[Finding]:
    """What every installed source says, all asked at once, and then whose clock is off.

    Args:
        settings: Where they are, and their keys.
        offline: Ask none of them anything.
        known: What was found wrong before, and is not said again.
    """
    async with Transport() as transport:
        try:
            kinds = source_classes()
        except ConfigError as error:
            yield Tried("sources", str(error), Mark.FAILED)
            return
        asked = (_try(name, kind, settings, transport, offline=offline, known=known) for name, kind in kinds.items())
        for finding in await asyncio.gather(*asked):
            yield finding
        for name, ahead_s in transport.ahead_s.items():
            yield clock_found(name, ahead_s)


async def _try(
    name: str, kind: type[Source], settings: Settings, transport: Transport, *, offline: bool, known: Container[str]
) -> Finding:
    try:
        source = kind.from_settings(settings, transport)
    except ConfigError as error:
        if str(error) in known:
            return Tried(name, "not asked until that is put right", Mark.SKIPPED)
        return Tried(name, str(error), Mark.FAILED)
    if source is None:
        return Tried(name, "not set up, so left out of the total", Mark.SKIPPED, MISSING.get(name, ""))
    if offline or not isinstance(source, Checkable):
        return Tried(name, "set up; not asked", Mark.SKIPPED)
    return await _ask(name, source)


async def _ask(name: str, source: Checkable) -> Finding:
    began = time.perf_counter()
    try:
        said, mark = await source.check(), Mark.OK
    except SourceError as error:
        said, mark = str(error), Mark.FAILED
    return Tried(name, said, mark, took_ms=(time.perf_counter() - began) * 1000)


def clock_found(source: str, ahead_s: float) -> Finding:
    """What it means that a source's clock is ahead of this machine's by so many seconds; it tells whole ones."""
    name, off_s = f"{source}'s clock", abs(ahead_s)
    if off_s <= ODD_SKEW_S:
        return Tried(name, "agrees with this machine's")
    said = f"this machine's clock is {off_s:,.0f} s {'behind' if ahead_s > 0 else 'ahead'}"
    advice = "set the clock, for instance with NTP: signatures hold the time"
    return Tried(name, said, Mark.FAILED if off_s > MOST_SKEW_S else Mark.WARNING, advice)
